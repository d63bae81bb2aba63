"""Models to edit: from a folder, from the hub, or loaded already."""

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from jeep.common.errors import UserError, one_line
from jeep.data.fetch import OTHER_WEIGHTS, SMALL_FILES
from jeep.model.editable import EditableModel
from jeep.model.loading import check_forward, load_model, pick_device


def load(
    source: str | Path, *, dtype: str = "auto", device: str = "auto", revision: str | None = None
) -> EditableModel:
    """A model from a checkpoint folder or a repository of the hub (`revision`: a branch, a tag or a commit of it).

    `dtype` is float32, float16, bfloat16, or auto: the checkpoint's own on an accelerator, float32 on a CPU. `device`
    is a torch device, or auto: the first accelerator, or the CPU. Of a gated repository the token is in HF_TOKEN.
    Raises UserError where there is no such model, or its architecture is unknown.
    """
    folder = folder_of(source, revision)
    if dtype == "auto":
        dtype = "float32" if pick_device(device).type == "cpu" else "auto"
    return load_model(folder, dtype, device)


def folder_of(source: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The checkpoint folder of a source, downloaded where it is none. Raises UserError where there is no such model."""
    folder = Path(source).expanduser()
    if folder.exists():
        return folder
    given = {"allow_patterns": [*SMALL_FILES, *["*.safetensors"] * weights], "ignore_patterns": OTHER_WEIGHTS}
    try:
        found = snapshot_download(str(source), revision=revision, **given)
    except HFValidationError:
        raise UserError(f"{source}: no such folder, and no name of a repository of the hub") from None
    except (HfHubHTTPError, OSError) as error:
        reason = one_line(error)
        raise UserError(f"{source}: no such folder, and the hub has none to give ({reason})") from None
    return Path(found)


def wrap(network: torch.nn.Module, tokenizer) -> EditableModel:
    """A model that is loaded already. As a context manager, it is given back as it was: weights, gradients, mode.

    Raises UserError where its architecture is unknown, or is not what its row says.
    """
    model = EditableModel(network, tokenizer)
    try:
        check_forward(model)
    except UserError:
        model.release()
        raise
    return model
