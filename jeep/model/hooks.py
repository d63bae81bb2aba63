"""Read and change states inside a forward pass of a packed batch, for the length of a block of code.

What is read is brought to `home`, where the pass begins: the module may run elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_OURS: WeakSet = WeakSet()
"""Modules that a hook of this file is on."""


def has_hooks(module: nn.Module) -> bool:
    """Whether something is read or changed in a module: it must then run just as it is, and once."""
    return module in _OURS


@contextmanager
def _hooked(module: nn.Module, handle) -> Iterator[None]:
    first = module not in _OURS
    _OURS.add(module)
    try:
        yield
    finally:
        handle.remove()
        if first:
            _OURS.discard(module)


@contextmanager
def record_input(module: nn.Module, home: torch.device) -> Iterator[list[Tensor]]:
    """Collect the inputs of a module, (n, d_in) each; of a W_O these are the keys of every token."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2).to(home)))
    with _hooked(module, handle):
        yield seen


@contextmanager
def record_output(module: nn.Module, home: torch.device) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module, (n, d) each."""
    seen: list[Tensor] = []

    def hook(_, __, output):
        # A copy: some blocks go on in place.
        output = output[0] if isinstance(output, tuple) else output
        seen.append(output.flatten(0, -2).to(home, copy=True))

    handle = module.register_forward_hook(hook)
    with _hooked(module, handle):
        yield seen


@contextmanager
def shift_output(module: nn.Module, index: Int[Tensor, " k"], shift: Float[Tensor, "k d"]) -> Iterator[None]:
    """Add `shift` to a module's output at the tokens `index` of the packed batch."""

    def hook(_, __, output):
        here = output.device
        return output.flatten(0, -2).index_add(0, index.to(here), shift.to(here, output.dtype)).view_as(output)

    handle = module.register_forward_hook(hook)
    with _hooked(module, handle):
        yield


@contextmanager
def trace_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of a module as they stand in the graph, so that a loss can be differentiated by them."""
    seen: list[Tensor] = []

    def hook(_, __, output):
        if not output.requires_grad:  # nothing below has a gradient: the graph begins here
            output.requires_grad_()
        seen.append(output)
        return output.clone()  # some blocks go on in place

    handle = module.register_forward_hook(hook)
    with _hooked(module, handle):
        yield seen
