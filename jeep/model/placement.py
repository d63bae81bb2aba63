"""Networks that accelerate has spread over several devices: where a module runs, and where its weights are kept."""

from collections.abc import Iterator

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook
from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset
from torch import Tensor, nn


def _hooks(module: nn.Module) -> Iterator[AlignDevicesHook]:
    """What moves a module's inputs, and its weights where they are offloaded."""
    hook = getattr(module, "_hf_hook", None)
    for each in hook.hooks if isinstance(hook, SequentialHook) else [hook]:
        if isinstance(each, AlignDevicesHook):
            yield each


def runs_on(module: nn.Module) -> torch.device:
    """The device that a module with weights computes on, wherever these are kept."""
    for hook in _hooks(module):
        if hook.execution_device is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device


def is_offloaded(module: nn.Module) -> bool:
    """Whether weights of a module, or inside it, are fetched for each use."""
    return any(hook.offload for part in module.modules() for hook in _hooks(part))


def kept(network: nn.Module, name: str, *, keep: bool = True) -> Tensor:
    """A parameter's data where it is kept from one use to the next: what is changed there is changed for good.

    Of weights offloaded to the disk it is a copy in memory that is used from then on, if it is to be kept.
    """
    path, _, own = name.rpartition(".")
    module = network.get_submodule(path)
    for hook in _hooks(module):
        if hook.offload and hook.weights_map is not None:
            return _in_memory(hook.weights_map, own, keep)
    return module.get_parameter(own).data


def _in_memory(weights, name: str, keep: bool) -> Tensor:
    while isinstance(weights, PrefixedDataset):
        weights, name = weights.dataset, weights.prefix + name
    if not isinstance(weights, OffloadedWeightsLoader):
        return weights[name]
    if name in weights.state_dict:
        return weights.state_dict[name]
    found = weights[name].cpu()
    if keep:
        weights.state_dict[name] = found
    return found


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network, with the offloaded weights in it."""
    state = network.state_dict()
    return {name: kept(network, name, keep=False) if value.is_meta else value for name, value in state.items()}
