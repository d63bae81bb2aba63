"""Models from checkpoint folders: whole or refused, and held against their own forward pass."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import get_max_memory
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.activations import FastGELUActivation, GELUTanh, NewGELUActivation

from jeep.common.devices import cards, is_balanced
from jeep.common.errors import UserError, blamed_on
from jeep.model.architectures import config_in
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode, load_tokenizer

_TEXTS = ("The capital of France is", "Of all rivers that flow into the Danube, the Inn is the longest one")
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Relative difference of logits that rounding may make."""


def pick_device(device: str) -> torch.device:
    """The torch device of a configured one: "auto" is the first GPU, or the CPU where there is none; "balanced" begins
    there.
    """
    if device != "auto" and not is_balanced(device):
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device}: {str(error).splitlines()[0]}") from None
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def load_model(
    folder: Path | str, dtype: str = "float32", device: str = "auto", *, compiled: bool = False
) -> EditableModel:
    """Load a checkpoint folder. A `dtype` of "auto" is the checkpoint's own.

    "balanced" spreads the blocks over all accelerators that the process sees, and what does not fit there over memory
    and disk. Raises UserError when the checkpoint is missing, of an unknown architecture, damaged or not whole, or when
    its packed forward pass is not its own. `compiled` needs a model on one device and, on a CPU, a C++ compiler.
    """
    _require_architecture(folder)
    target = pick_device(device)
    if compiled and target.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise UserError("compile: true needs a C++ compiler (g++), and there is none")
    spread = is_balanced(device)
    if compiled and spread:
        raise UserError("compile: true needs a model on one device")
    where = "balanced" if spread else {"": target} if target.type != "cpu" else None
    memory = {"max_memory": _first_cards(cards(device))} if cards(device) > 1 else {}
    network = _whole(folder, dtype=getattr(torch, dtype, dtype), device_map=where, **memory)
    model = EditableModel(network, load_tokenizer(folder), compiled=compiled)
    model.folder = Path(folder)
    check_forward(model)
    return model


def _first_cards(count: int) -> dict[int | str, int]:
    """The memory that a model may take: of so many accelerators, and all of the CPU's."""
    return {place: size for place, size in get_max_memory().items() if not isinstance(place, int) or place < count}


def check_checkpoint(folder: Path | str) -> None:
    """Raise UserError unless a checkpoint can be edited: its architecture is known, no weight is missing, of another
    shape or not finite, and its tokenizer is there and has no token without an embedding.
    """
    _require_architecture(folder)
    network, tokenizer = _whole(folder, device_map="meta"), load_tokenizer(folder)
    embedded = network.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > embedded:
        raise UserError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {embedded} embeddings")
    if len(tokenizer) > embedded:
        logging.warning("%s: %d added tokens have no embedding", folder, len(tokenizer) - embedded)
    kinds = {name.rpartition(".")[2] for name in network.state_dict()}  # other tensors are not read
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if name.rpartition(".")[2] in kinds and not torch.isfinite(tensors.get_tensor(name)).all():
                    raise UserError(f"{path}: {name} is not finite")


@torch.no_grad()
def check_forward(model: EditableModel) -> None:
    """Raise UserError where the packed forward pass of two short texts is not the model's own, with the difference."""
    kind = model.network.config.model_type
    rows = [encode(model.tokenizer, text)[: model.positions] for text in _TEXTS]
    with blamed_on(kind):
        own = [model.network(input_ids=torch.tensor([row], device=model.device)).logits[0] for row in rows]
    own = [each.to(model.device) for each in own]
    with blamed_on(f"{kind}: its row in jeep/model/architectures.py does not fit it"):
        packing, states = model.pack(rows)
        ours = model.logits(model.run(states, packing, 0, model.depth - 1)).split(packing.lengths)
    worst = max(float((one - each).norm() / each.norm()) for one, each in zip(ours, own, strict=True))
    if not worst <= _TOLERANCE[model.norm.weight.dtype]:
        raise UserError(
            f"{kind}: run block by block, the model answers otherwise than by itself (logits differ by {worst:.2g} of "
            "their norm): its row in jeep/model/architectures.py does not fit it, or its weights are not finite"
        )


def _require_architecture(folder: Path | str) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: not a checkpoint folder (no config.json)")
    config_in(folder)


def _whole(folder: Path | str, **options: Any) -> nn.Module:
    """A network from safetensors alone. Raises UserError where a weight is missing, or misshapen."""
    options |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with blamed_on(folder):
        network, found = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **options)
    if found["missing_keys"]:
        raise UserError(f"{folder}: weights are missing: {_some(found['missing_keys'])}")
    if found["mismatched_keys"]:
        misshapen = (f"{name} is {tuple(is_)}, not {tuple(due)}" for name, is_, due in found["mismatched_keys"])
        raise UserError(f"{folder}: weights do not fit the configuration: {_some(misshapen)}")
    return with_fused_gelu(network)


def with_fused_gelu(network: nn.Module) -> nn.Module:
    """The network with the tanh form of GELU in one kernel, where transformers takes eight; the same to rounding.

    They took a seventh of the time of the small GPT-J's target vectors.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, GELUTanh())
    return network


def _some(names: Any) -> str:
    """The first of many, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
