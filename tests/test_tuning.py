"""The search for hyper-parameters on a tiny model."""

import pytest
import torch

from jeep import tuning
from jeep.settings import with_value
from jeep.tuning import Search

SETTINGS = {
    "optimization": {"steps": 4, "learning_rate": 0.1},
    "region": {"layers": [0, 1], "clamp": 2.0, "prior": 1e6, "spread": "even", "weight_decay": 0.0},
}
SPACE = {"region.prior": [1.0, 1e6], "region.clamp": [0.5, 2.0], "region.layers": [[0, 1], [1]]}


@pytest.fixture(scope="module")
def search(trained, facts, prefixes):
    width = trained.projection(0).weight.shape[1]
    covariance = {(layer, "mlp"): torch.eye(width) for layer in range(3)}
    return Search(trained, facts[:4], "counterfact", prefixes, covariance, 512)


def test_a_value_is_set_at_its_path():
    settings = {"a": {"b": 1, "c": 2}}
    assert with_value(settings, "a.b", 3) == {"a": {"b": 3, "c": 2}}
    assert with_value(settings, "d.e", 4) == {"a": {"b": 1, "c": 2}, "d": {"e": 4}}
    assert settings == {"a": {"b": 1, "c": 2}}


def test_target_vectors_are_optimised_once_for_all_variants(search, trained, monkeypatch):
    calls = []
    original = tuning.optimize_facts
    monkeypatch.setattr(tuning, "optimize_facts", lambda *args: calls.append(args[3]) or original(*args))
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    results = search.run("memit", SETTINGS, SPACE, trials=2, variants=2, seed=0)
    assert len(calls) == 2
    assert len(results) == 4
    assert [result["Score"] for result in results] == sorted((r["Score"] for r in results), reverse=True)
    assert all(torch.equal(before[name], value) for name, value in trained.network.state_dict().items())


def test_a_prior_that_forbids_every_change_scores_worst(search):
    results = search.run("memit", SETTINGS, {"region.prior": [1.0]}, trials=1, variants=2, seed=0)
    assert results[0]["settings"] == {"region.prior": 1.0}
    assert results[0]["ES"] > results[1]["ES"]


def test_the_same_seed_tries_the_same(search):
    one, two = (search.run("memit", SETTINGS, SPACE, trials=2, variants=1, seed=3) for _ in range(2))
    assert one == two
