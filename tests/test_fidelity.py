"""The release preset against target vectors that the authors' released code computed on SmolLM2."""

import json

import numpy as np
import pytest
from conftest import SHARED

from jeep.covariance import covariances
from jeep.editors import load_editor
from jeep.facts import Fact
from jeep.targets import optimize
from jeep.task import Task
from jeep.tokens import Request

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


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITORS)
def test_target_vectors_equal_the_released_codes(name, smollm2):
    folder = SHARED / "golden"
    if not (folder / "released.npz").is_file():
        pytest.skip("the reference vectors (released.npz) are not beside the checkout")
    inputs, released = json.loads((folder / "inputs.json").read_text()), np.load(folder / "released.npz")
    facts = [Fact(str(r["case_id"]), r["subject"], r["prompt"], "", r["target_new"]["str"]) for r in inputs["requests"]]
    requests = [Request.of(smollm2.tokenizer, fact, inputs["templates"]) for fact in facts if fact.case_id in CASES]
    editor = load_editor(name, {"preset": "release", **EDITORS[name]})
    found = {
        t.case_id: t for batch in optimize(smollm2, requests, editor.sites, editor.optimization, 2048) for t in batch
    }
    for row, case in enumerate(CASES):
        target = found[case]
        assert len(target.losses) == int(released[f"{name}/n_steps"][row])
        for site, (vector, state) in enumerate(VECTORS[name]):
            for ours, key in ((target.values[site], vector), (target.states[site], state)):
                theirs = released[f"{name}/{key}"][row]
                assert np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs) < 1e-3, key


@pytest.mark.slow
def test_romes_change_equals_the_released_codes(smollm2):
    folder = SHARED / "golden"
    if not (folder / "released.npz").is_file():
        pytest.skip("the reference vectors (released.npz) are not beside the checkout")
    inputs, released = json.loads((folder / "inputs.json").read_text()), np.load(folder / "released.npz")
    record = inputs["requests"][0]
    fact = Fact("0", record["subject"], record["prompt"], "", record["target_new"]["str"])
    rows = np.load(folder / "covariance_token_ids.npy").tolist()
    covariance, _ = covariances(smollm2, rows, [(8, "mlp")], 4096)
    editor = load_editor("rome", {"optimization": {"steps": 20, "stop_loss": 0.05}, "layer": 8})
    (change,) = editor.edit(smollm2, Task([fact], inputs["templates"], 2048, (), covariance)).values()
    theirs = np.outer(released["rome/right"][0], released["rome/left"][0])
    assert np.linalg.norm(change.numpy() - theirs) / np.linalg.norm(theirs) < 1e-3
