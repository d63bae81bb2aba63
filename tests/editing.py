"""Settings of every editor for the tiny models that know a few facts, and an edit with them."""

from collections.abc import Callable
from dataclasses import dataclass

from jeep.editors import load_editor
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task

# The states of tiny models have small norms, where β‖δ‖/‖h‖² would allow no δ at all.
LOW = {"layers": [0, 1], "clamp": 2.0, "prior": 20.0, "weight_decay": 0.0}
SETTINGS = {
    "ft_wd": {"layer": 2, "learning_rate": 0.001, "weight_decay": 0.0, "stop_loss": 0.3},
    "pmet": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_loss": 0.05, "relax": {}},
        # The attention of the two lowest blocks is off in these models: its δ stays zero, whatever its bound.
        "region": {**LOW, "spread": "sqrt"},
        "write": "both",
    },
    "rome": {"optimization": {"steps": 20, "learning_rate": 0.1, "stop_loss": 0.05}, "layer": 1, "weight_decay": 0.0},
    "memit": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_loss": 0.05},
        "region": {**LOW, "spread": "even"},
    },
    "alphaedit": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_loss": 0.05},
        "region": {"layers": [0, 1], "clamp": 2.0, "weight_decay": 0.0, "spread": "even", "ridge": 0.001}
        | {"null_space": {"keep": 0.9}},
    },
    "mend": {
        "layers": [1, 2, 3],
        "rank": 32,
        "training": {"edits": 4, "epochs": 5, "learning_rate": 3e-4, "meta_learning_rate": 1e-3},
    },
    "malmen": {
        "layers": [1, 2, 3],
        "rank": 32,
        "training": {"edits": 4, "epochs": 5, "learning_rate": 1e-3, "meta_learning_rate": 1e-3},
    },
    "ultraedit": {"layers": [2, 3], "rate": 0.03},
    "jeep": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_probability": 0.9},
        "low": {**LOW, "spread": "sqrt"},
        "high": {"layers": [2], "clamp": 0.5, "prior": 5.0, "spread": "even", "weight_decay": 0.0},
    },
}


@dataclass(frozen=True)
class Given:
    """What editors need beside facts, of a model."""

    covariance: dict
    network: Callable[[str], dict]
    """A hyper-network's tensors, by the editor; nothing where the editor has none."""


def deltas_of(name, model, facts, prefixes, given, **settings):
    editor = load_editor(name, SETTINGS[name] | settings)
    targets = optimize_facts(model, facts, prefixes, editor.target_spec, 2048) if editor.target_spec else []
    return editor.edit(model, Task(facts, prefixes, 2048, targets, given.covariance, given.network(name)))


def jeep(**settings):
    return load_editor("jeep", SETTINGS["jeep"] | settings)
