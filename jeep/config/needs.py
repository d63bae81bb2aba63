"""What a job needs of a machine's memory: from the checkpoint and the files that it reads, in megabytes. No torch."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from jeep.common.settings import Dtype

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_MEGA = 1e6
PROCESS = 3000
"""Python, PyTorch and its libraries, and what CUDA maps into a process."""
BATCH = 0.3
"""A batch and what is kept for it, as a share of the weights: `token_budget` bounds it."""
MORE = 0.5
"""By how much a job may take more when it has failed, for each time."""


def _configuration(checkpoint: Path) -> dict:
    """A checkpoint's config.json. Raises FileNotFoundError while the checkpoint is not there."""
    known = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return known | known.get("text_config", {})  # of a model that also sees


def weights(checkpoint: Path, dtype: Dtype) -> float:
    """A checkpoint's weights in a precision. Raises FileNotFoundError while it is not there."""
    known = _configuration(checkpoint)
    stored = str(known.get("dtype") or known.get("torch_dtype") or dtype).removeprefix("torch.")
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    return size / _MEGA * _BYTES[dtype] / _BYTES.get(stored, _BYTES[dtype])


def inputs(checkpoint: Path) -> int:
    """Inputs of an MLP's W_O, d_in; four times the width where the configuration does not say."""
    known = _configuration(checkpoint)
    inner = next((known[name] for name in _INNER if known.get(name)), None)
    return inner or 4 * next((known[name] for name in _WIDTH if known.get(name)), 0)


def covariances(checkpoint: Path, places: int) -> float:
    """The sums of a pass in float64, with one product in float32 and one in float64 beside them."""
    return inputs(checkpoint) ** 2 * (8 * places + 12) / _MEGA


def closed_form(checkpoint: Path, facts: int, prompts: int) -> float:
    """A covariance and its factor in float64, and the keys of all facts under all prompts (docs/architecture.md)."""
    size = inputs(checkpoint)
    return (24 * size**2 + 8 * size * facts * (prompts + 2)) / _MEGA


def total(parts: Iterable[float], attempt: int) -> int:
    """Megabytes of a job, more on each attempt."""
    return math.ceil((PROCESS + sum(parts)) * (1 + MORE * (attempt - 1)))
