"""Every editor on tiny models that know a few facts, of both block types."""

import pytest
import torch

from jeep.covariance import covariances, sequences
from jeep.editors import EDITORS, load_editor
from jeep.evaluate import evaluate
from jeep.targets import optimize
from jeep.task import Task
from jeep.tokens import Request

# The states of tiny models have small norms, where β‖δ‖/‖h‖² would allow no δ at all.
LOW = {"layers": [0, 1], "clamp": 2.0, "prior": 20.0, "weight_decay": 0.0}
SETTINGS = {
    "memit": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_loss": 0.05},
        "region": {**LOW, "spread": "even"},
    },
    "jeep": {
        "optimization": {"steps": 20, "learning_rate": 0.1, "stop_probability": 0.9},
        "low": {**LOW, "spread": "sqrt"},
        "high": {"layers": [2], "clamp": 0.5, "prior": 5.0, "spread": "even", "weight_decay": 0.0},
    },
}


@pytest.fixture(scope="module")
def covariance(trained, facts):
    texts = [prompt for fact in facts for prompt in (fact.prompt, *fact.paraphrases)]
    rows = sequences(trained.tokenizer, texts, 32, 3000)
    found, _ = covariances(trained, rows, range(4), 512, 3000)
    # So little text does not span the keys' space; a little of every direction makes the matrix definite.
    return {layer: matrix + 0.01 * matrix.diag().mean() * torch.eye(len(matrix)) for layer, matrix in found.items()}


def deltas_of(name, model, facts, prefixes, covariance, **settings):
    editor = load_editor(name, SETTINGS[name] | settings)
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    found = {
        t.case_id: t for batch in optimize(model, requests, editor.sites, editor.optimization, 2048) for t in batch
    }
    return editor.edit(model, Task(facts, prefixes, 2048, [found[f.case_id] for f in facts], covariance))


def test_every_editor_is_tested():
    assert set(SETTINGS) == set(EDITORS)


@pytest.mark.parametrize("name", EDITORS)
def test_one_edit_changes_the_answer_and_keeps_the_others(name, trained, facts, prefixes, covariance):
    fact, others = facts[9:10], facts[:9] + facts[10:]
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    deltas = deltas_of(name, trained, fact, prefixes, covariance)
    assert all(torch.equal(before[key], value) for key, value in trained.network.state_dict().items())
    with trained.scratch(list(deltas)):
        trained.add_(deltas)
        edited = evaluate(trained, fact, "counterfact", 500).groupby("metric")["value"].mean()
        kept = evaluate(trained, others, "counterfact", 500)
    assert edited["ES"] == edited["GS"] == 1
    wrong = kept[kept.metric == "ES"]["value"].sum()
    assert wrong <= 2, "of fifteen other cities, nearly all keep their country"


@pytest.mark.parametrize("name", EDITORS)
def test_many_edits_at_once(name, trained, facts, prefixes, covariance):
    deltas = deltas_of(name, trained, facts[::3], prefixes, covariance)
    with trained.scratch(list(deltas)):
        trained.add_(deltas)
        results = evaluate(trained, facts[::3], "counterfact", 500).groupby("metric")["value"].mean()
    assert results["ES"] > 0.8


@pytest.mark.parametrize("name", EDITORS)
def test_the_release_preset_runs_and_differs(name, trained, facts, prefixes, covariance):
    paper = deltas_of(name, trained, facts[:2], prefixes, covariance)
    release = deltas_of(name, trained, facts[:2], prefixes, covariance, preset="release")
    assert paper.keys() == release.keys()
    assert any(not torch.allclose(paper[key], release[key]) for key in paper)


@pytest.mark.parametrize("name", EDITORS)
def test_the_same_edit_twice_is_the_same_to_the_bit(name, trained, facts, prefixes, covariance):
    one, two = (deltas_of(name, trained, facts[:3], prefixes, covariance) for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
