"""Hyper-networks for the tiny models: their settings, and one of which no part is as training begins with it."""

import copy

import torch
from tiny import exact

from jeep.learned.hypernetworks import HyperNetwork
from jeep.model.editable import EditableModel

LAYERS = (1, 2, 3)
SETTINGS = {
    "layers": LAYERS,
    "rank": 8,
    "training": {"edits": 4, "learning_rate": 1e-4, "meta_learning_rate": 3e-3, "edit_weight": 0.7},
}


def in_float64(trained: EditableModel) -> EditableModel:
    """The same model in float64, throughout."""
    return EditableModel(exact(copy.deepcopy(trained.network)), trained.tokenizer)


def random_network(model, name, dtype=torch.float64):
    """A network of the editor `name` of which no part is zero or one."""
    torch.manual_seed(1)
    d_out, d_in = model.as_stored(0, model.projection(0).weight).shape
    network = HyperNetwork(d_in, d_out, len(LAYERS), 8, 2, 0.01, prior=name == "malmen").to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return network
