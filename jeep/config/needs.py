"""What a job needs of a machine's memory, in megabytes: from a checkpoint's sizes and what is to be done. No torch.

On a GPU a part of it lies there; what is asked for is enough where all of it lies in the machine's own memory.
`python -m benchmarks.memory` measures jobs beside it (docs/scale.md).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jeep.common.settings import Dtype

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_MEGA = 1e6
PROCESS = 3000
"""Python, PyTorch and its libraries, and what CUDA maps into a process."""
BATCH = 0.3
"""A batch and what is kept for it, as a share of the weights: `token_budget` bounds it."""
PROMPT = 12
"""Tokens of a fact's prompt behind what all prompts have in front: its subject, and the relation where it is read."""
MORE = 0.5
"""By how much a job may take more when it has failed, for each time."""

INDEXED = {"rank-bm25": 12, "bm25s": 4}
"""Bytes that a search index takes in memory for a byte of text: measured on 23 MB of articles, 11.0 and 3.9."""


@dataclass(frozen=True)
class Sizes:
    """What of a checkpoint the memory of its jobs follows from."""

    parameters: int
    inputs: int
    """Of an MLP's W_O, d_in."""
    width: int
    """Of a state, d."""

    @classmethod
    def of(cls, checkpoint: Path) -> "Sizes":
        """Of a checkpoint folder. Raises FileNotFoundError while it is not there."""
        from safetensors import safe_open

        known = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        parameters = 0
        for path in checkpoint.glob("*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                parameters += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        return cls.configured(known, parameters)

    @classmethod
    def configured(cls, known: Mapping[str, Any], parameters: int) -> "Sizes":
        """From a model's configuration. An MLP is four times as wide as a state where it does not say."""
        known = {**known, **known.get("text_config", {})}  # of a model that also sees
        width = next((known[name] for name in _WIDTH if known.get(name)), 0)
        inner = next((known[name] for name in _INNER if known.get(name)), None)
        return cls(parameters, inner or 4 * width, width)


def weights(sizes: Sizes, dtype: Dtype) -> float:
    """A model in a precision."""
    return sizes.parameters * _BYTES[dtype] / _MEGA


def running(sizes: Sizes, dtype: Dtype) -> float:
    """A model, and a batch that runs in it."""
    return weights(sizes, dtype) * (1 + BATCH)


def training(sizes: Sizes, dtype: Dtype) -> float:
    """Gradients and moments of what is trained: a block, or a hyper-network, and a batch that keeps every state."""
    return weights(sizes, dtype)


def covariances(sizes: Sizes, places: int) -> float:
    """The sums of a pass in float64; beside them, when they are written, a mean in float64 and in float32."""
    return sizes.inputs**2 * (8 * places + 12) / _MEGA


def closed_form(sizes: Sizes, dtype: Dtype, matrices: int, facts: int, prompts: int) -> float:
    """Writing facts into W_O, each under so many prompts (docs/architecture.md, *Closed form*).

    All covariances in float32, λC + KKᵀ and its factor in float64; the states and keys of all prompts; keys, residuals
    and target vectors of all facts; each W_O as it was, and its change.
    """
    d_in, d = sizes.inputs, sizes.width
    square = d_in**2 * (4 * matrices + 16)
    by_prompt = 8 * d_in + PROMPT * d * _BYTES[dtype]
    by_fact = 16 * d_in + 40 * d
    changes = d_in * d * (matrices * (_BYTES[dtype] + 4) + 8)
    return (square + facts * (prompts * by_prompt + by_fact) + changes) / _MEGA


def remembered(sizes: Sizes, dtype: Dtype, matrices: int) -> float:
    """What goes from batch to batch of a sequence: a history of each W_O in float32, and W as it was at first."""
    return matrices * sizes.inputs * (4 * sizes.inputs + sizes.width * _BYTES[dtype]) / _MEGA


def null_spaces(sizes: Sizes, matrices: int) -> float:
    """Eigenvectors of covariances in float32, and one of them in float64 with what is computed in its coordinates."""
    return sizes.inputs**2 * (4 * matrices + (24 if matrices else 0)) / _MEGA


def decomposition(covariance: int, attempt: int = 1) -> int:
    """Megabytes of the job that decomposes a covariance of so many bytes in float32: four matrices in float64."""
    return total(8 * covariance / _MEGA, attempt)


def retrieval(size: int, backend: str, attempt: int = 1) -> int:
    """Megabytes of a job that makes or reads a search index of a text of so many bytes."""
    return total(INDEXED[backend] * size / _MEGA, attempt)


def normal_equations(sizes: Sizes, matrices: int) -> float:
    """The sums K Kᵀ and D Kᵀ of each W_O in float64, and one factor."""
    return 8 * sizes.inputs * (matrices * (sizes.inputs + sizes.width) + sizes.inputs) / _MEGA


def total(held: float, attempt: int = 1) -> int:
    """Megabytes of a job that holds so many, more on each attempt."""
    return math.ceil((PROCESS + held) * (1 + MORE * (attempt - 1)))
