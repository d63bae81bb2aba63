"""The model that editors work on."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from jeep.common.errors import UserError
from jeep.common.settings import Place
from jeep.common.storage import sha256
from jeep.model.architectures import architecture_of
from jeep.model.attention import Packing, packed
from jeep.model.batches import flat
from jeep.model.tokens import load_tokenizer


class EditableModel:
    """A causal language model that runs packed batches block by block and whose W_O can be changed and restored."""

    def __init__(self, network: nn.Module, tokenizer, *, compiled: bool = False):
        """`compiled`: batches that run many times go through torch.compile's version of each block."""
        self._given = network.training, [(p, p.requires_grad) for p in network.parameters()]
        self.network = network.eval().requires_grad_(False)
        self.folder: Path | None = None
        """The checkpoint that it was loaded from."""
        self.edits: list[Any] = []
        """What is in force, the latest last (`jeep.api.Edit`)."""
        self.tokenizer = tokenizer
        self.architecture = architecture_of(network.config)
        self.blocks = network.get_submodule(self.architecture.blocks)
        self.norm = network.get_submodule(self.architecture.norm)
        self.head = network.get_submodule(self.architecture.head)
        self._embedding = network.get_submodule(self.architecture.embedding)
        self._fast = [torch.compile(block, dynamic=True) for block in self.blocks] if compiled else None

    def release(self) -> None:
        """Give the network back as it came: edits undone, gradients and mode as they were."""
        while self.edits:
            self.edits[-1].undo()
        training, gradients = self._given
        self.network.train(training)
        for parameter, required in gradients:
            parameter.requires_grad_(required)

    def __enter__(self) -> "EditableModel":
        """The model; its network is given back at the block's end."""
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def identity(self) -> str:
        """Digest of the weights: of the checkpoint's files, whatever precision they are loaded in and is edited since,
        or, of a network that came without a folder, of its parameters as they are.
        """
        if self.folder is not None:
            return self._digest
        sums = [(name, bit_sum(parameter)) for name, parameter in self.network.named_parameters()]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]

    @cached_property
    def _digest(self) -> str:
        files = sorted(self.folder.glob("*.safetensors"))
        return hashlib.sha256(" ".join(map(sha256, files)).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def depth(self) -> int:
        """Number of blocks, D."""
        return len(self.blocks)

    @property
    def positions(self) -> int:
        """Tokens of the longest sequence that the model was made for."""
        return self.network.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._embedding.weight.device

    @property
    def precision(self) -> torch.dtype:
        """What δ, norms and losses are computed in: float32, or the model's own type where that is wider."""
        return torch.promote_types(self.norm.weight.dtype, torch.float32)

    @property
    def parallel(self) -> bool:
        """Whether MLP and attention read the same state."""
        parallel = self.architecture.parallel
        return getattr(self.network.config, parallel) if isinstance(parallel, str) else parallel

    def projection(self, layer: int, place: Place = "mlp") -> nn.Module:
        """The module of W_O of the MLP or of the attention of a block."""
        path = self.architecture.mlp_out if place == "mlp" else self.architecture.attention_out
        return self.blocks[layer].get_submodule(path)

    def module(self, layer: int, place: Place) -> nn.Module:
        """The module whose output is the state at `place`: the block, or W_O of its MLP or attention."""
        return self.blocks[layer] if place == "output" else self.projection(layer, place)

    def parameter_name(self, layer: int, place: Place = "mlp") -> str:
        """The name of a W_O in the model's state dict."""
        a = self.architecture
        return f"{a.blocks}.{layer}.{a.mlp_out if place == 'mlp' else a.attention_out}.weight"

    def as_stored(self, layer: int, matrix: Float[Tensor, "d_out d_in"], place: Place = "mlp") -> Tensor:
        """A change of W_O in the orientation of the parameter (GPT-2 stores the transpose)."""
        return matrix.mT if isinstance(self.projection(layer, place), Conv1D) else matrix

    def pack(self, rows: Sequence[Sequence[int]], **options) -> tuple[Packing, Float[Tensor, "n d"]]:
        """Token sequences as one packed batch (`options`: the Packing's), and their h⁰."""
        packing = Packing([len(row) for row in rows], self.device, self.norm.weight.dtype, **options)
        return packing, self.embed(flat(rows, self.device), packing.positions)

    def embed(self, ids: Int[Tensor, " n"], positions: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """h⁰: token embeddings, with learned positions where the model has them."""
        states = self._embedding(ids)
        if self.architecture.positions:
            states = states + self.network.get_submodule(self.architecture.positions)(positions)
        return states

    def run(self, states: Float[Tensor, "n d"], packing: Packing, first: int, last: int) -> Float[Tensor, "n d"]:
        """Run the blocks first..last on a packed batch: h^(first-1) to h^last."""
        inputs = self._positions(states, packing)
        states = states[None]
        with packed(self.network, self.architecture.precise_scores):
            for layer in range(first, last + 1):
                states = self._block(layer, packing)(states, attention_mask=packing, **inputs)
                states = states[0] if isinstance(states, tuple) else states
        return states[0]

    def _block(self, layer: int, packing: Packing) -> nn.Module:
        """The block, or its compiled version, which would not see the hooks inside."""
        block = self.blocks[layer]
        if self._fast is None or not packing.repeated or any(module._forward_hooks for module in block.modules()):
            return block
        return self._fast[layer]

    def _positions(self, states: Tensor, packing: Packing) -> dict[str, object]:
        positions = packing.positions[None]
        if self.architecture.rotary is None:
            return {"position_ids": positions}
        rotary = self.network.get_submodule(self.architecture.rotary)
        return {
            "position_ids": positions,
            "position_embeddings": packing.once("rotary", lambda: rotary(states[None], positions)),
        }

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n vocabulary"]:
        """Final norm and LM head, in `precision`."""
        return self.head(self.norm(states)).to(self.precision)

    def add_(self, deltas: dict[str, Tensor]) -> None:
        """Add changes to parameters, by name, in place."""
        for name, delta in deltas.items():
            parameter = self.network.get_parameter(name)
            parameter.data.add_(delta.to(parameter.device, parameter.dtype))

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as an ordinary checkpoint folder."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @contextmanager
    def scratch(self, names: list[str]) -> Iterator[None]:
        """The named parameters are back, bit for bit, when the block ends, also by an exception."""
        saved = {name: self.network.get_parameter(name).data.clone() for name in names}
        try:
            yield
        finally:
            for name, value in saved.items():
                self.network.get_parameter(name).data.copy_(value)


def pick_device(device: str) -> torch.device:
    """The torch device of a configured one: "auto" is the first GPU, or the CPU where there is none."""
    if device != "auto":
        return torch.device(device)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def load_model(
    folder: Path | str, dtype: str = "float32", device: str = "auto", *, compiled: bool = False
) -> EditableModel:
    """Load a checkpoint folder. Raises UserError when it is missing or of an unknown architecture.

    A `dtype` of "auto" is the checkpoint's own. `compiled` needs a C++ compiler on a CPU; UserError without one.
    """
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: not a checkpoint folder (no config.json)")
    architecture_of(AutoConfig.from_pretrained(folder))
    target = pick_device(device)
    if compiled and target.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise UserError("compile: true needs a C++ compiler (g++), and there is none")
    network = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype, dtype), device_map={"": target} if target.type != "cpu" else None
    )
    model = EditableModel(network, load_tokenizer(folder), compiled=compiled)
    model.folder = Path(folder)
    return model


def bit_sum(tensor: Tensor) -> int:
    """Sum of a tensor's bits as integers, which no order and no number of threads changes."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return int(tensor.detach().view(kinds[tensor.element_size()]).sum(dtype=torch.int64))
