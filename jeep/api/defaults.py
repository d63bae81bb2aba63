"""Settings for a model that nobody has searched for: the paper's for its models, and by relative depth for others."""

from typing import Any

from jeep.common.errors import UserError
from jeep.common.nested import merge
from jeep.model.editable import EditableModel

_PAPER: dict[tuple[str, int], dict[str, dict[str, Any]]] = {
    # Appendix D, Multi-CounterFact, by architecture and number of blocks.
    ("gptj", 28): {
        "jeep": {
            "low": {"layers": [3, 4, 5, 6, 7, 8], "clamp": 0.75, "prior": 2000},
            "high": {"layers": [15, 16], "clamp": 0.25, "prior": 2000},
        },
        "memit": {"region": {"layers": [3, 4, 5, 6, 7, 8], "clamp": 0.75, "prior": 15000}},
        "pmet": {
            "region": {"layers": [3, 4, 5, 6, 7, 8], "clamp": 0.75, "prior": 6000},
            "optimization": {"learning_rate": 0.2},
        },
        "rome": {"layer": 5},
        "ft_wd": {"layer": 21},
    },
    ("llama", 32): {
        "jeep": {
            "low": {"layers": [5, 6, 7, 8, 9, 10], "clamp": 1, "prior": 2500},
            "high": {"layers": [22, 23, 24], "clamp": 0.25, "prior": 1000},
        },
        "memit": {"region": {"layers": [5, 6, 7, 8, 9, 10], "clamp": 0.9, "prior": 4000}},
        "pmet": {"region": {"layers": [5, 6, 7, 8, 9, 10], "clamp": 0.9, "prior": 4000}},
        "rome": {"layer": 7},
        "ft_wd": {"layer": 23, "stop_loss": 0.1},
    },
}
_GENERAL: dict[str, dict[str, Any]] = {
    # Appendix D: what holds for every model.
    "jeep": {
        "optimization": {"steps": 30, "stop_probability": 0.9},
        "low": {"spread": "sqrt"},
        "high": {"spread": "even"},
    },
    "memit": {"optimization": {"steps": 25, "stop_loss": 0.05}, "region": {"spread": "even"}},
    "pmet": {
        "optimization": {"steps": 30, "kl_factor": 1, "stop_loss": 0.05, "relax": {}},
        "region": {"spread": "sqrt"},
    },
    "rome": {"optimization": {"steps": 20, "stop_loss": 0.05}, "prefixes": ["5x10"]},
    "ft_wd": {},
}
_SMALL_MODEL = 1_000_000_000
"""Parameters below which the settings are SmolLM2's (135M). JEEP's are what `jeep tune` found on 60 development facts
(config/search/smollm2-135m/own-model.csv): it counts what the model says. The demo's, chosen by whether the new answer
beats the old one, write more softly."""


def _span(depth: int, first: float, end: float) -> list[int]:
    """The layers from one relative depth up to another, at least one."""
    start = min(round(first * depth), depth - 1)
    return list(range(start, max(round(end * depth), start + 1)))


def _by_depth(depth: int, *, small: bool) -> dict[str, dict[str, Any]]:
    """Settings for another architecture or size: SmolLM2's or LLaMA 7B's, at the same relative depths."""
    return _small(depth) if small else _large(depth)


def _small(depth: int) -> dict[str, dict[str, Any]]:
    low, high = _span(depth, 0.1, 0.23), _span(depth, 0.67, 0.77)
    region = {"layers": _span(depth, 0.2, 0.32), "clamp": 0.75, "prior": 250}
    return {
        "jeep": {
            "low": {"layers": low, "clamp": 3, "prior": 1000},
            "high": {"layers": high, "clamp": 0.05, "prior": 1000},
            "optimization": {"stop_probability": 0.97},
        },
        "memit": {"region": region},
        "pmet": {"region": region},
        "rome": {"layer": _span(depth, 0.2, 0.32)[-1]},
        "ft_wd": {"layer": high[0], "learning_rate": 3e-3, "stop_loss": 0.5},
    }


def _large(depth: int) -> dict[str, dict[str, Any]]:
    low, high = _span(depth, 0.16, 0.34), _span(depth, 0.69, 0.78)
    region = {"layers": low, "clamp": 0.9, "prior": 4000}
    return {
        "jeep": {
            "low": {"layers": low, "clamp": 1, "prior": 2500},
            "high": {"layers": high, "clamp": 0.25, "prior": 1000},
        },
        "memit": {"region": region},
        "pmet": {"region": region},
        "rome": {"layer": _span(depth, 0.2, 0.25)[-1]},
        "ft_wd": {"layer": high[0]},
    }


def default_settings(editor: str, architecture: str, depth: int, size: int) -> dict[str, Any]:
    """The settings of an editor for a model that nothing was searched for.

    `architecture` is what transformers calls `model_type`, `depth` the number of blocks, `size` that of parameters.

    Raises UserError for an editor that is trained first (MEND, MALMEN): the pipeline does that.
    """
    if editor not in _GENERAL:
        raise UserError(f"{editor} has no settings without a search: choose one of {', '.join(_GENERAL)}")
    small = size < _SMALL_MODEL
    known = (None if small else _PAPER.get((architecture, depth))) or _by_depth(depth, small=small)
    return merge(_GENERAL[editor], known[editor])


def usual_settings(method: str, model: EditableModel) -> tuple[str, dict[str, Any]]:
    """The editor's name of a method, and its settings for a model without a search."""
    name = method.replace("-", "_")
    return name, default_settings(name, model.network.config.model_type, model.depth, model.size)


def default_space(editor: str, depth: int) -> dict[str, list[Any]]:
    """Values to search around the settings without a search, by the path of a setting."""
    low = [_span(depth, first, first + 0.13) for first in (0.1, 0.2, 0.3)]
    high = [_span(depth, first, first + 0.1) for first in (0.6, 0.67, 0.8)]
    clamp, prior, stop = [0.75, 1, 1.5, 3], [50, 250, 1000, 4000, 15000], [0.05, 0.2, 0.5]
    region = {"region.layers": low, "region.clamp": clamp, "region.prior": prior, "optimization.stop_loss": stop}
    spaces: dict[str, dict[str, list[Any]]] = {
        "jeep": {
            "low.layers": low,
            "low.clamp": clamp,
            "low.prior": prior,
            "high.layers": high,
            "high.clamp": [0.05, 0.15, 0.25],
            "high.prior": [1000, 5000, 20000],
            "optimization.stop_probability": [0.8, 0.9, 0.97],
        },
        "memit": region,
        "pmet": region | {"optimization.kl_factor": [0.0625, 1]},
        "rome": {"layer": [layers[-1] for layers in low], "clamp": [2, 4], "optimization.stop_loss": stop},
        "ft_wd": {
            "layer": [low[1][-1], *(layers[0] for layers in high)],
            "learning_rate": [2e-4, 1e-3, 3e-3],
            "stop_loss": [0.1, 0.5],
        },
    }
    return {path: _distinct(values) for path, values in spaces[editor].items()}


def _distinct(values: list[Any]) -> list[Any]:
    """The values without those that were there before: regions of a shallow model coincide."""
    return [value for number, value in enumerate(values) if value not in values[:number]]
