"""The release preset against target vectors that the authors' released code computed on SmolLM2."""

import json

import numpy as np
import pytest
from conftest import DATA

from jeep.data.facts import Fact
from jeep.editors import load_editor
from jeep.model.tokens import Request
from jeep.vectors.targets import optimize
from jeep.vectors.task import Task
from jeep.writing.covariance import covariances
from jeep.writing.walk import LayerWalk, pooled, prompts_of

RELEASED = DATA / "released"
"""What it is and where it comes from: its README."""
CASES = ["0", "2", "4"]


def region(layers, clamp, prior, spread):
    return {"layers": layers, "clamp": clamp, "prior": prior, "spread": spread}


EDITORS = {
    "jeep": {
        "optimization": {"steps": 30, "stop_probability": 0.9},
        "low": region([6, 7, 8, 9], 1, 2500, "sqrt"),
        "high": region([20, 21, 22], 0.25, 1000, "even"),
    },
    "memit": {
        "optimization": {"steps": 30, "stop_loss": 0.05},
        "region": region([6, 7, 8, 9], 0.9, 4000, "even"),
    },
}
EDITORS["pmet"] = {
    "optimization": {"steps": 30, "kl_factor": 1.0, "stop_loss": 0.05, "relax": {}},
    "region": region([6, 7, 8, 9], 0.9, 4000, "sqrt"),
}
VECTORS = {
    "jeep": [("z_low", "h0_low"), ("z_high", "h0_high")],
    "memit": [("z", "h0")],
    "pmet": [("z_attn", "h0_attn"), ("z_mlp", "h0_mlp")],
}


@pytest.fixture(scope="module")
def released():
    return np.load(RELEASED / "vectors.npz")


@pytest.fixture(scope="module")
def inputs():
    return json.loads((RELEASED / "inputs.json").read_text())


def cases(inputs):
    facts = [Fact(str(r["case_id"]), r["subject"], r["prompt"], "", r["target_new"]["str"]) for r in inputs["requests"]]
    return [fact for fact in facts if fact.case_id in CASES]


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITORS)
def test_target_vectors_equal_the_released_codes(name, smollm2, inputs, released):
    requests = [Request.of(smollm2.tokenizer, fact, inputs["templates"]) for fact in cases(inputs)]
    editor = load_editor(name, {"preset": "release", **EDITORS[name]})
    found = {
        t.case_id: t for batch in optimize(smollm2, requests, editor.sites, editor.optimization, 2048) for t in batch
    }
    for row, case in enumerate(CASES):
        target = found[case]
        assert len(target.losses) == int(released[f"{name}/n_steps"][row])
        for site, (vector, state) in enumerate(VECTORS[name]):
            for ours, key in ((target.values[site], vector), (target.states[site], state)):
                assert distance(ours.numpy(), released[f"{name}/{key}"][row]) < 1e-3, key
        losses = released[f"{name}/step_loss"][row][: len(target.losses)]
        np.testing.assert_allclose(target.losses, losses, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITORS)
def test_keys_equal_the_released_codes(name, smollm2, inputs, released):
    """Of layer 6: half the bare prompt's, half the mean of the others."""
    prompts = prompts_of(smollm2, cases(inputs), inputs["templates"], "subject_last")
    walk = LayerWalk(smollm2, prompts, 2048)
    walk.advance(6)
    keys = pooled(walk.keys("subject_last"), len(inputs["templates"]), "half_bare")
    for ours, theirs in zip(keys.T.numpy(), released[f"{name}/keys_layer6"], strict=True):
        assert distance(ours, theirs) < 1e-3


@pytest.mark.slow
def test_romes_change_equals_the_released_codes(smollm2, inputs, released):
    (fact, *_) = cases(inputs)
    rows = np.load(RELEASED / "covariance_token_ids.npz")["ids"].tolist()
    covariance = covariances(smollm2, rows, [(8, "mlp")], 4096)
    editor = load_editor("rome", {"optimization": {"steps": 20, "stop_loss": 0.05}, "layer": 8})
    (change,) = editor.edit(smollm2, Task([fact], inputs["templates"], 2048, (), covariance)).values()
    theirs = np.outer(released["rome/right"][0], released["rome/left"][0])
    assert distance(change.numpy(), theirs) < 1e-3
