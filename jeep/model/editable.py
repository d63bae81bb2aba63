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
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from jeep.common.errors import UserError
from jeep.common.settings import Place, Projection
from jeep.common.storage import sha256
from jeep.model.architectures import architecture_of
from jeep.model.attention import Packing, packed
from jeep.model.batches import flat
from jeep.model.dense_attention import dense_inputs

_UNBOUNDED = 2048
"""Positions of a model whose attention has no bound of its own."""
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
"""Files that hold a model's weights, in some format or other."""


class EditableModel:
    """A causal language model that runs packed batches block by block and whose W_O can be changed and restored."""

    def __init__(self, network: nn.Module, tokenizer, *, compiled: bool = False):
        """`compiled`: batches that run many times go through torch.compile's version of each block."""
        self.network = network
        self.architecture = architecture_of(network.config)
        self.folder: Path | None = None
        """The checkpoint that it was loaded from."""
        self.edits: list[Any] = []
        """What is in force, the latest last (`jeep.api.Edit`)."""
        self.tokenizer = tokenizer
        self.blocks = self._part(self.architecture.blocks)
        self.norm = self._part(self.architecture.norm)
        self.head = self._part(self.architecture.head)
        self._embedding = self._part(self.architecture.embedding)
        self._rotary = self._part(self.architecture.rotary) if self.architecture.rotary else None
        self._given = network.training, [(p, p.requires_grad) for p in network.parameters()]
        network.eval().requires_grad_(False)
        self._fast = [torch.compile(block, dynamic=True) for block in self.blocks] if compiled else None

    def _part(self, name: str) -> nn.Module:
        """A module of the network. Raises UserError where it has none, as some sizes of OPT have no final norm."""
        try:
            return self.network.get_submodule(name)
        except AttributeError:
            kind = self.network.config.model_type
            raise UserError(f"{kind}: this model has no {name}, which its row of ARCHITECTURES names") from None

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
        return getattr(self.network.config, "max_position_embeddings", _UNBOUNDED)

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
        return self.architecture.parallel

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

    def inputs(self, layer: int, place: Place = "mlp") -> int:
        """Number of inputs of a W_O, d_in."""
        return self.as_stored(layer, self.projection(layer, place).weight, place).shape[1]

    def as_stored(self, layer: int, matrix: Float[Tensor, "d_out d_in"], place: Place = "mlp") -> Tensor:
        """A change of W_O in the orientation of the parameter (GPT-2 stores the transpose)."""
        return matrix.mT if isinstance(self.projection(layer, place), Conv1D) else matrix

    def pack(self, rows: Sequence[Sequence[int]], **options) -> tuple[Packing, Float[Tensor, "n d"]]:
        """Token sequences as one packed batch (`options`: the Packing's), and their h⁰."""
        packing = Packing([len(row) for row in rows], self.device, self.norm.weight.dtype, **options)
        return packing, self.embed(flat(rows, self.device), packing.positions)

    def embed(self, ids: Int[Tensor, " n"], positions: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """h⁰: token embeddings, with learned positions where the model has them."""
        a, states = self.architecture, self._embedding(ids)
        if a.positions:
            table = self.network.get_submodule(a.positions).weight
            states = states + nn.functional.embedding(positions + a.first_position, table)
        if a.embedding_norm:
            states = self.network.get_submodule(a.embedding_norm)(states)
        return states * a.embedding_scale if a.embedding_scale else states

    def run(self, states: Float[Tensor, "n d"], packing: Packing, first: int, last: int) -> Float[Tensor, "n d"]:
        """Run the blocks first..last on a packed batch: h^(first-1) to h^last."""
        states, inputs = states[None], self._inputs(states, packing)
        with packed(self.network, self.architecture.precise_scores):
            for layer in range(first, last + 1):
                states = self._block(layer, packing)(states, **inputs, **self._angles(layer, states, packing))
                states = states[0] if isinstance(states, tuple) else states
        return states[0]

    def _block(self, layer: int, packing: Packing) -> nn.Module:
        """The block, or its compiled version, which would not see the hooks inside."""
        block = self.blocks[layer]
        if self._fast is None or not packing.repeated or any(module._forward_hooks for module in block.modules()):
            return block
        return self._fast[layer]

    def _inputs(self, states: Tensor, packing: Packing) -> dict[str, Any]:
        """What every block is given beside its states."""
        inputs = {"position_ids": packing.positions[None], "attention_mask": packing}
        if self.architecture.dense:
            inputs |= dense_inputs(self.network, packing, biased=self.architecture.alibi)
        return inputs

    def _angles(self, layer: int, states: Tensor, packing: Packing) -> dict[str, Any]:
        """Sines and cosines for a block, where the model has them."""
        if self._rotary is None:
            return {}
        kind = (self.network.config.layer_types[layer],) if self.architecture.rotary_by_type else ()
        made = packing.once(("rotary", *kind), lambda: self._rotary(states, packing.positions[None], *kind))
        return {"position_embeddings": made}

    def added(self, layer: int, place: Projection, output: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What a block adds to its state where W_O gives `output`: that, in most models."""
        a = self.architecture
        norm = a.mlp_norm if place == "mlp" else a.attention_norm
        if norm:
            output = self.blocks[layer].get_submodule(norm)(output)
        return output * a.residual_scale if a.residual_scale else output

    def in_front(
        self, layer: int, place: Projection, output: Float[Tensor, "n d"], change: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """The change of W_O's `output` that makes the block add `change` more.

        Behind a norm, which scales each component and divides by their root mean square, it is exact but for that
        divisor: what is added has the direction of the wanted sum.
        """
        if not self.adds_otherwise:
            return change
        given = output.to(self.device, self.norm.weight.dtype)
        given = torch.where(given == 0, torch.finfo(given.dtype).eps * given.norm(dim=-1, keepdim=True), given)
        added = self.added(layer, place, given)
        return torch.where(added == 0, 0, change.to(given.device) * (given / added).to(change.dtype)).to(change)

    @property
    def adds_otherwise(self) -> bool:
        """Whether a block adds something else than what W_O gives."""
        a = self.architecture
        return bool(a.mlp_norm or a.attention_norm or a.residual_scale)

    def logits(self, states: Float[Tensor, "n d"], *, norm: bool = True) -> Float[Tensor, "n vocabulary"]:
        """Final norm (unless `norm` is false) and LM head, in `precision`."""
        a = self.architecture
        logits = self.head(self.norm(states) if norm else states).to(self.precision)
        if a.logit_scale:
            logits = logits * a.logit_scale
        if a.logit_divisor:
            logits = logits / a.logit_divisor
        return a.logit_cap * torch.tanh(logits / a.logit_cap) if a.logit_cap else logits

    def add_(self, deltas: dict[str, Tensor]) -> None:
        """Add changes to parameters, by name, in place."""
        for name, delta in deltas.items():
            parameter = self.network.get_parameter(name)
            parameter.data.add_(delta.to(parameter.device, parameter.dtype))

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as an ordinary checkpoint folder, with what else lay beside its weights."""
        given = self.network.generation_config
        self.network.generation_config = GenerationConfig()  # some that are read are refused when they are written
        try:
            self.network.save_pretrained(folder)
        finally:
            self.network.generation_config = given
        given.to_json_file(folder / "generation_config.json")
        self.tokenizer.save_pretrained(folder)
        for path in self.folder.iterdir() if self.folder else ():
            weights = path.suffix in _WEIGHTS or path.match("*.index.json")
            if path.is_file() and not weights and not (folder / path.name).exists():
                shutil.copy(path, folder)

    @contextmanager
    def scratch(self, names: list[str]) -> Iterator[None]:
        """The named parameters are back, bit for bit, when the block ends, also by an exception."""
        saved = {name: self.network.get_parameter(name).data.clone() for name in names}
        try:
            yield
        finally:
            for name, value in saved.items():
                self.network.get_parameter(name).data.copy_(value)


def bit_sum(tensor: Tensor) -> int:
    """Sum of a tensor's bits as integers, which no order and no number of threads changes."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return int(tensor.detach().view(kinds[tensor.element_size()]).sum(dtype=torch.int64))
