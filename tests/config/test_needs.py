"""What a job asks for, by hand."""

import json

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import save_file

from jeep.config import needs
from jeep.config.config import load_config
from jeep.config.demands import Demands
from jeep.config.durations import DAY, START, Durations, minutes
from jeep.config.needs import Sizes
from jeep.config.plan import Plan
from jeep.editors import load_editor


@pytest.fixture
def checkpoint(tmp_path):
    """A million weights in two files."""
    for name in ("one", "two"):
        save_file({name: np.zeros((500, 1000), np.float16)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 500}))
    return tmp_path


def test_sizes_are_read_from_a_checkpoint(checkpoint):
    assert Sizes.of(checkpoint) == Sizes(1_000_000, 2000, 500)
    (checkpoint / "config.json").write_text(json.dumps({"n_embd": 500, "n_inner": 700}))
    assert Sizes.of(checkpoint) == Sizes(1_000_000, 700, 500)
    (checkpoint / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 30, "intermediate_size": 70}}))
    assert Sizes.of(checkpoint) == Sizes(1_000_000, 70, 30)


def test_while_there_is_no_checkpoint_nothing_is_known(tmp_path):
    with pytest.raises(FileNotFoundError):
        Sizes.of(tmp_path / "none")


SIZES = Sizes(parameters=1_000_000, inputs=2000, width=500)


def test_a_model_runs_in_a_precision():
    assert needs.running(SIZES, "float16") == pytest.approx(2 * 1.3)
    assert needs.running(SIZES, "float32") == pytest.approx(4 * 1.3)


def test_matrices_of_an_mlp_and_keys_of_facts():
    assert needs.covariances(SIZES, 3) == 2000**2 * (3 * 8 + 12) / 1e6
    # Of two matrices: C in float32, and once the sum and its factor in float64; W_O in float16 and its change in
    # float32, and once in float64. Of 10 facts: keys under 6 prompts, gathered and stacked; states of their 12 tokens.
    nothing = needs.closed_form(SIZES, "float16", 2, 0, 6)
    assert nothing == pytest.approx((2000**2 * (2 * 4 + 16) + 2000 * 500 * (2 * (2 + 4) + 8)) / 1e6)
    facts = needs.closed_form(SIZES, "float16", 2, 10, 6) - nothing
    assert facts == pytest.approx(10 * (6 * (8 * 2000 + 12 * 500 * 2) + 16 * 2000 + 40 * 500) / 1e6)
    assert needs.normal_equations(SIZES, 2) == 8 * 2000 * (2 * 2500 + 2000) / 1e6


def test_another_attempt_gets_more():
    assert [needs.total(1000.0, attempt) for attempt in (1, 2, 3)] == [4000, 6000, 8000]


def test_minutes_follow_from_operations():
    assert [minutes(0.0, attempt) for attempt in (1, 2)] == [START, 2 * START]
    assert minutes(3e12 * 60 * 10) == START + 10
    assert minutes(3e12 * 60 * 10 - 1) == START + 10, "rounded up"
    assert minutes(0.0, least=480) == 480
    assert minutes(1e30) == minutes(0.0, 100) == DAY


def test_what_jobs_compute_by_hand():
    """Of the paper's grid, on a model of a million weights."""
    plan = Plan(load_config(ROOT / "config/paper.yaml"))
    work, million = Durations(plan), 1_000_000
    text = 100_000 * 2048
    assert work.covariance(SIZES, "gptj", 3) == text * (2 * million + 3 * 2 * 2000**2)
    # Six prompts and that of the divergence, 12 tokens each, forward and back, 25 steps.
    assert work.targets(SIZES, "gptj", "mcf", "memit") == 2500 * 25 * 7 * 12 * 4 * million
    counts = sum(plan.edit_counts("gptj", "mcf", "memit"))
    written = counts * 6 * 12 * 2 * million + len(plan.edit_counts("gptj", "mcf", "memit")) * 6 * 3 * 2000**3
    assert work.edit(SIZES, "gptj", "mcf", "memit") == pytest.approx(written + counts * 260 * 2 * million)
    assert work.evaluate(SIZES, "gptj", "mcf", "none") == 10_000 * 260 * 2 * million
    tuned = plan.edit_counts("gptj", "mcf", "ft-wd")
    trained = plan.editor("ft-wd", "gptj", "mcf").epochs * 12 * 6 + 260 * 2
    assert work.edit(SIZES, "gptj", "mcf", "ft-wd") == pytest.approx(sum(tuned) * trained * million)
    measured = (100 + 500 + 1000 + 1500 + 2000) * 260 + 5 * 50_000
    assert work.measured_sequence(SIZES, "long_sequence") == measured * 2 * million
    twenty = work.sequence(SIZES, "gptj", "mcf", "memit", "long_sequence") - measured * 2 * million
    batch = 100 * 25 * 7 * 12 * 4 * million + 100 * 6 * 12 * 2 * million + 6 * 3 * 2000**3
    assert twenty == pytest.approx(20 * batch)
    assert minutes(work.hypernetwork(SIZES, "gptj", "mend")) == DAY, "how many facts a file has is not known before"


def test_an_edit_asks_for_what_its_editor_holds():
    """Of the paper's grid: the largest number of edits, every covariance, or what is trained and summed."""
    demands = Demands(Plan(load_config(ROOT / "config/paper.yaml")))
    run = demands.run(SIZES, "gptj", "mcf", "jeep")
    assert run == needs.running(SIZES, "float16")
    held = {
        method: demands.edit(SIZES, "gptj", "mcf", method) for method in ("jeep", "memit", "rome", "mend", "malmen")
    }
    assert held["jeep"] - run == pytest.approx(needs.closed_form(SIZES, "float16", 8, 10_000, 6))
    wide = needs.running(SIZES, "float32")
    assert held["memit"] - wide == pytest.approx(needs.closed_form(SIZES, "float32", 6, 10_000, 6))
    assert held["rome"] - wide == pytest.approx(needs.closed_form(SIZES, "float32", 1, 1, 21))
    assert held["mend"] - wide == pytest.approx(4)
    assert held["malmen"] - held["mend"] == pytest.approx(needs.normal_equations(SIZES, 6))
    ultraedit = load_editor("ultraedit", {"layers": [0, 1, 2, 3, 4, 5]})
    searched = Demands(Plan(load_config(ROOT / "config/config.yaml"))).search(SIZES, "gptj-nano", ultraedit, 0)
    assert searched - wide == pytest.approx(4 + needs.normal_equations(SIZES, 6))
