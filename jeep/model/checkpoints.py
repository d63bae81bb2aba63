"""Checkpoint folders: what tells one from another, and how an edited model becomes one."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from jeep.common.storage import sha256
from jeep.model.placement import whole_state

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
"""Files that hold a model's weights, in some format or other."""


def checkpoint_digest(folder: Path) -> str:
    """Digest of the files of a checkpoint's weights."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(" ".join(map(sha256, files)).encode()).hexdigest()[:16]


def digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Digest of weights with names, as they are."""
    return hashlib.sha256(repr([(name, bit_sum(weight)) for name, weight in weights]).encode()).hexdigest()[:16]


def bit_sum(tensor: Tensor) -> int:
    """Sum of a tensor's bits as integers, which no order and no number of threads changes."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return int(tensor.detach().view(kinds[tensor.element_size()]).sum(dtype=torch.int64))


def write_checkpoint(network: nn.Module, tokenizer, source: Path | None, folder: Path) -> None:
    """Write a model and its tokenizer as a checkpoint folder, with what else lies beside the `source`'s weights."""
    given = network.generation_config
    network.generation_config = GenerationConfig()  # some that are read are refused when they are written
    try:
        network.save_pretrained(folder, state_dict=whole_state(network))
    finally:
        network.generation_config = given
    given.to_json_file(folder / "generation_config.json")
    tokenizer.save_pretrained(folder)
    for path in source.iterdir() if source else ():
        weights = path.suffix in _WEIGHTS or path.match("*.index.json")
        if path.is_file() and not weights and not (folder / path.name).exists():
            shutil.copy(path, folder)
