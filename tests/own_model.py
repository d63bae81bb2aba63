"""What tests of the Python interface are given: a tiny model that knows the cities, text, and an edit of four facts."""

import pytest
import torch
from tiny import TEXT, train_tiny

import jeep

SETTINGS = {
    "low": {"layers": [0], "clamp": 2.0, "prior": 0.2},
    "high": {"layers": [2], "clamp": 2.0, "prior": 0.2},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An assets cache of the test's own."""
    folder = tmp_path_factory.mktemp("assets")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(folder))
    return folder


@pytest.fixture
def text():
    """Every byte occurs, so that the keys of the lowest layer, which depend on the token alone, span their space."""
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(33, 0x250, (20,), generator=generator) for _ in range(600)]
    return ["".join(map(chr, row.tolist())) for row in codes] + TEXT


@pytest.fixture
def model(byte_level):
    """A tiny LLaMA; blocks of the other kind have their tests in `editors`."""
    trained = train_tiny("llama", byte_level)
    yield trained
    while trained.edits:
        trained.edits[-1].undo()


HASTY = SETTINGS | {"optimization": {"steps": 2}}
"""Where it does not matter whether the facts take."""


def weights(model):
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def edited(model, facts, text, **more):
    return jeep.edit(model, facts[:4], **{"settings": SETTINGS, "text": text, "tokens": 12000} | more)
