"""The model that editors work on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from jeep.common.errors import UserError
from jeep.common.places import Projection
from jeep.common.settings import Place
from jeep.model.architectures import architecture_of
from jeep.model.attention import Packing, packed
from jeep.model.batches import flat
from jeep.model.bounds import Bounds
from jeep.model.checkpoints import checkpoint_digest, digest, write_checkpoint
from jeep.model.dense_attention import dense_inputs
from jeep.model.hooks import has_hooks
from jeep.model.placement import is_offloaded, kept, runs_on

_UNBOUNDED = 2048
"""Positions of a model whose attention has no bound of its own."""


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
        self.bounds = Bounds.of(network.config)
        self._rotary = self._part(self.architecture.rotary) if self.architecture.rotary else None
        self._given = network.training, {name: p.requires_grad for name, p in network.named_parameters()}
        network.eval().requires_grad_(False)
        self._offloaded = [is_offloaded(block) for block in self.blocks]
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
        for name, required in gradients.items():
            self.network.get_parameter(name).requires_grad_(required)

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
        names = [name for name, _ in self.network.named_parameters(remove_duplicate=False)]
        return digest((name, kept(self.network, name, keep=False)) for name in names)

    @cached_property
    def _digest(self) -> str:
        return checkpoint_digest(self.folder)

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
        return self.bounds.positions or _UNBOUNDED

    @property
    def device(self) -> torch.device:
        """Where a pass begins, and what it gives is found; blocks may run elsewhere."""
        return runs_on(self._embedding)

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

    def transposed(self, name: str) -> bool:
        """Whether a parameter is stored as (d_in, d_out)."""
        return isinstance(self.network.get_submodule(name.rpartition(".")[0]), Conv1D)

    def as_stored(self, layer: int, matrix: Float[Tensor, "d_out d_in"], place: Place = "mlp") -> Tensor:
        """A change of W_O in the orientation of the parameter (GPT-2 stores the transpose)."""
        return matrix.mT if isinstance(self.projection(layer, place), Conv1D) else matrix

    def pack(self, rows: Sequence[Sequence[int]], **options) -> tuple[Packing, Float[Tensor, "n d"]]:
        """Token sequences as one packed batch (`options`: the Packing's), and their h⁰.

        Raises UserError for a sequence that the model does not take.
        """
        for row, behind in zip(rows, options.get("starts") or [0] * len(rows), strict=True):
            self.bounds.require(row, behind)
        packing = Packing([len(row) for row in rows], self.device, self.norm.weight.dtype, **options)
        return packing, self.embed(flat(rows, self.device), packing.positions)

    def embed(self, ids: Int[Tensor, " n"], positions: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """h⁰: token embeddings, with learned positions where the model has them."""
        a, states = self.architecture, self._embedding(ids)
        if a.positions:
            table = self.network.get_submodule(a.positions)
            with align_module_device(table):
                index = (positions + a.first_position).to(table.weight.device)
                states = states + nn.functional.embedding(index, table.weight).to(states.device)
        if a.embedding_norm:
            states = self.network.get_submodule(a.embedding_norm)(states)
        return (states * a.embedding_scale if a.embedding_scale else states).to(self.device)

    def run(self, states: Float[Tensor, "n d"], packing: Packing, first: int, last: int) -> Float[Tensor, "n d"]:
        """Run the blocks first..last on a packed batch: h^(first-1) to h^last; nothing where there are none."""
        if first > last:
            return states
        states, inputs = states[None], self._inputs(states, packing)
        with packed(self.network, self.architecture.precise_scores):
            for layer in range(first, last + 1):
                states = self._block(layer, packing)(states, **inputs, **self._angles(layer, states, packing))
                states = states[0] if isinstance(states, tuple) else states
        return states[0].to(self.device)

    def _block(self, layer: int, packing: Packing) -> Callable[..., Any]:
        """The block; or its compiled version; or, offloaded, one whose weights do not wait for the gradient.

        Neither of these would see the hooks inside.
        """
        block, refetched = self.blocks[layer], self._offloaded[layer] and torch.is_grad_enabled()
        fast = self._fast is not None and packing.repeated
        if not (refetched or fast) or any(has_hooks(module) for module in block.modules()):
            return block
        if refetched:
            again = partial(packed, self.network, self.architecture.precise_scores)
            whole = {"use_reentrant": False, "early_stop": False}  # stopped early, the last weight would stay
            return partial(checkpoint, block, context_fn=lambda: (nullcontext(), again()), **whole)
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
            output = self.blocks[layer].get_submodule(norm)(output).to(output.device)
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
        logits = self.head(self.norm(states) if norm else states).to(self.device, self.precision)
        if a.logit_scale:
            logits = logits * a.logit_scale
        if a.logit_divisor:
            logits = logits / a.logit_divisor
        return a.logit_cap * torch.tanh(logits / a.logit_cap) if a.logit_cap else logits

    def trainable(self, name: str) -> nn.Parameter:
        """A parameter to take gradients by. Raises UserError for one that is offloaded."""
        parameter = self.network.get_parameter(name)
        if parameter.is_meta:
            raise UserError(f"{name} is trained, and offloaded: it needs a device, or a layer on one")
        return parameter

    def weight(self, name: str) -> Tensor:
        """The data of a parameter, where it is kept: what is changed there is changed in the model."""
        return kept(self.network, name)

    def add_(self, deltas: dict[str, Tensor]) -> None:
        """Add changes to parameters, by name, in place."""
        for name, delta in deltas.items():
            weight = self.weight(name)
            weight.add_(delta.to(weight.device, weight.dtype))

    @contextmanager
    def edited(self, deltas: dict[str, Tensor]) -> Iterator[None]:
        """The model has some changes for the length of a block, and is then back, bit for bit."""
        with self.scratch(list(deltas)):
            self.add_(deltas)
            yield

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer as an ordinary checkpoint folder, with what else lay beside its weights."""
        write_checkpoint(self.network, self.tokenizer, self.folder, folder)

    @contextmanager
    def scratch(self, names: list[str]) -> Iterator[None]:
        """The named parameters are back, bit for bit, when the block ends, also by an exception."""
        saved = {name: self.weight(name).clone() for name in names}
        try:
            yield
        finally:
            for name, value in saved.items():
                self.weight(name).copy_(value)
