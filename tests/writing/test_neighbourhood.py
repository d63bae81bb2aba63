"""What spares neighbours and what reaches them, against plain computations."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import random_network

from benchmarks.plain import read
from jeep.common.errors import UserError
from jeep.common.settings import Neighbours
from jeep.editors import load_editor
from jeep.model.editable import EditableModel
from jeep.model.tokens import encode_pair, locate
from jeep.vectors.targets import Target
from jeep.vectors.task import Task
from jeep.writing.leaks import key_leaks
from jeep.writing.neighbourhood import Neighbourhood, leak
from jeep.writing.regions import write_regions
from jeep.writing.solve import closed_form_update

SUBJECTS = {"country": ["Tromsø", "Bergamo", "Malaga"]}


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    keys, residuals, covariance = draw(6, 4), draw(3, 4), torch.cov(draw(6, 30))
    return residuals, keys, covariance, draw(6, 2)


def test_spared_keys_are_the_least_squares_with_them_as_rows_of_zero():
    """‖Δ K − R‖² + ‖Δ S‖² + λ tr Δ C Δᵀ, by stacking and lstsq."""
    residuals, keys, covariance, spared = problem()
    change = closed_form_update(residuals, keys, covariance, 5.0, spared=spared)
    root = torch.linalg.cholesky(5.0 * covariance)
    rows = torch.cat([keys, spared, root], 1).mT
    wanted = torch.cat([residuals, torch.zeros(3, 8, dtype=torch.float64)], 1).mT
    torch.testing.assert_close(change, torch.linalg.lstsq(rows, wanted).solution.mT)


def test_fixed_keys_are_answered_as_before_at_the_least_cost():
    """Δ M = 0; along every direction that keeps it the objective's gradient is zero, and a heavy weight tends to it."""
    residuals, keys, covariance, fixed = problem()
    change = closed_form_update(residuals, keys, covariance, 5.0, fixed=fixed)
    torch.testing.assert_close(change @ fixed, torch.zeros(3, 2, dtype=torch.float64))
    gradient = (change @ keys - residuals) @ keys.mT + 5 * change @ covariance
    free = torch.eye(6, dtype=torch.float64) - fixed @ torch.linalg.pinv(fixed)
    assert (gradient @ free).abs().max() < 1e-10
    heavy = closed_form_update(residuals, keys, covariance, 5.0, spared=1e5 * fixed)
    torch.testing.assert_close(change, heavy, rtol=1e-6, atol=1e-8)


def test_two_relations_with_one_mean_constrain_it_once():
    residuals, keys, covariance, fixed = problem()
    once = closed_form_update(residuals, keys, covariance, 5.0, fixed=fixed[:, :1])
    twice = closed_form_update(residuals, keys, covariance, 5.0, fixed=fixed[:, [0, 0]])
    torch.testing.assert_close(once, twice)


def test_the_leak_by_hand():
    """Δ passes the first coordinate on, doubled: edited keys of lengths 2 and 4 along it, neighbours 1 and 0."""
    change = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    edited, beside = torch.tensor([[1.0, -2.0], [5.0, 0.0]]), torch.tensor([[0.5, 0.0], [7.0, 1.0]])
    assert leak(change, edited, beside) == pytest.approx((1 + 0) / 2 / ((2 + 4) / 2))
    assert leak(change, edited, edited) == 1


def editor(neighbours=None):
    region = {"clamp": 1.0, "prior": 20.0}
    high = {**region, "layers": [2, 3], "spread": "even", "neighbours": neighbours}
    low = {**region, "layers": [0, 1], "spread": "sqrt"}
    return load_editor("jeep", {"optimization": {"steps": 2}, "low": low, "high": high})


@pytest.fixture
def model(byte_level):
    return EditableModel(random_network("llama"), byte_level)


@pytest.fixture
def task(facts, prefixes):
    torch.manual_seed(2)
    targets = [Target(f.case_id, v, v, [1.0], [0.5]) for f in facts[:4] for v in [torch.randn(2, 32)]]
    samples = torch.randn(4, 64, 200)
    covariance = {(layer, "mlp"): sample @ sample.mT / 200 for layer, sample in enumerate(samples)}
    return Task(facts[:4], prefixes, 2048, targets, covariance, neighbours=SUBJECTS)


def beside_of(facts, tokenizer):
    """The neighbours' prompts: the first facts', about other subjects."""
    return [
        locate(tokenizer, replace(fact, subject=subject))
        for fact, subject in zip(facts, SUBJECTS["country"], strict=False)
    ]


def test_the_trace_says_what_reaches_the_neighbours(model, task, byte_level):
    """Leak and gains of each layer by plain reads of the network, changed layer by layer."""
    network = copy.deepcopy(model.network)
    changes = write_regions(model, task, editor().placements, pool="mean")
    beside = beside_of(task.facts, byte_level)
    edited = [[locate(byte_level, fact, prefix) for prefix in task.prefixes] for fact in task.facts]
    answers = [[encode_pair(byte_level, f.prompt, a)[1][0] for a in (f.target_new, f.target_true)] for f in task.facts]

    def inputs(rows, layer, position):
        where = [prompt.position(position) for prompt in rows]
        return read(network, [prompt.ids for prompt in rows], layer, "mlp", where, inputs=True).mT

    def lead(rows, layer):
        states = read(network, [p.ids for p in rows], layer, "output", [p.prediction for p in rows])
        logits = network.lm_head(network.model.norm(states))
        return torch.stack([row[new] - row[true] for row, (new, true) in zip(logits, answers, strict=False)])

    assert [step["layer"] for step in task.trace] == [0, 1, 2, 3]
    for step in task.trace:
        layer, position = step["layer"], step["position"]
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        keys = torch.stack([inputs(rows, layer, position).mean(1) for rows in edited], 1)
        expected = leak(changes[name].double(), keys, inputs(beside, layer, position))
        bare = [rows[0] for rows in edited]
        before = lead(bare, layer), lead(beside, layer)
        network.get_parameter(name).data.add_(changes[name])
        after = lead(bare, layer), lead(beside, layer)
        assert step["leak"] == pytest.approx(expected, rel=1e-3)
        if position == "subject_last":
            assert "gain" not in step
            continue
        for key, one, other in zip(("gain", "gain_neighbours"), before, after, strict=True):
            assert step[key] == pytest.approx(float((other - one).mean()), rel=1e-3, abs=1e-5)


def test_without_neighbours_nothing_is_measured_and_what_is_written_is_the_same(model, task):
    alone = replace(task, neighbours={}, trace=[])
    one, other = (write_regions(model, each, editor().placements, pool="mean") for each in (task, alone))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any("leak" in step for step in alone.trace)


def test_what_is_not_there_is_not_in_the_trace(model, task):
    """No fact has an original answer, as zsRE's, or nothing is left to be written: no NaN, which is no JSON."""
    nothing = {"leak", "gain", "gain_neighbours"}
    without = replace(task, facts=[replace(fact, target_true=None) for fact in task.facts], trace=[])
    write_regions(model, without, editor().placements, pool="mean")
    assert [nothing & set(step) for step in without.trace] == [{"leak"}] * 4
    settled = replace(task, settled=frozenset(fact.case_id for fact in task.facts), trace=[])
    write_regions(model, settled, editor().placements, pool="mean")
    assert not any("leak" in step for step in settled.trace)


def test_a_relations_mean_reads_nothing(model, task):
    free, fixed = replace(task, trace=[]), replace(task, trace=[])
    write_regions(model, free, editor().placements, pool="mean")
    changes = write_regions(model, fixed, editor({"form": "mean"}).placements, pool="mean")
    beside = Neighbourhood(model, task, "prediction")
    low = {name: change for name, change in changes.items() if ".0." in name or ".1." in name}
    with model.edited(low):
        keys = beside.look(beside.walk, beside.facts, 2, editor().placements[1]).keys
    change = changes["model.layers.2.mlp.down_proj.weight"]
    assert (change @ keys.mean(1)).norm() < 1e-5 * (change @ keys).norm(dim=0).mean()
    assert fixed.trace[2]["leak"] < free.trace[2]["leak"]
    assert fixed.trace[0]["leak"] == free.trace[0]["leak"], "the low region is as it was"


def test_the_heavier_the_prior_the_less_reaches_the_neighbours(model, task):
    leaks = []
    for weight in (0.01, 1.0, 100.0):
        task = replace(task, trace=[])
        write_regions(model, task, editor({"weight": weight}).placements, pool="mean")
        leaks.append(task.trace[-1]["leak"])
    assert leaks == sorted(leaks, reverse=True)
    assert leaks[2] < leaks[0] / 2


def test_a_neighbour_weighs_as_many_edits_as_its_relation_has_for_each(model, task):
    """Four edits and three neighbours: γ m/n is 4/3 of γ."""
    beside = Neighbourhood(model, task, "prediction")
    keys = torch.ones(5, 3)
    (spared,) = beside.terms(Neighbours(weight=3.0), keys).values()
    torch.testing.assert_close(spared**2, torch.full((5, 3), 4.0))
    (fixed,) = beside.terms(Neighbours(form="mean"), torch.tensor([[1.0, 2.0, 6.0]])).values()
    torch.testing.assert_close(fixed, torch.tensor([[3.0]]))
    assert beside.terms(None, keys) == {}


def test_sparing_neighbours_needs_some(model, task):
    with pytest.raises(UserError, match="a region spares neighbours, and none are given"):
        write_regions(model, replace(task, neighbours={}), editor({"form": "mean"}).placements, pool="mean")


def test_a_settled_facts_key_stays_and_nothing_is_written_for_it(model, task, byte_level):
    """As the plain closed form with a column of zeros."""
    task = replace(task, settled=frozenset([task.facts[1].case_id]), neighbours={})
    region = {"clamp": 1.0, "prior": 20.0, "layers": [1], "spread": "even"}
    memit = load_editor("memit", {"optimization": {"steps": 2}, "region": region})
    (change,) = write_regions(model, task, memit.placements, pool="mean").values()
    rows = [[locate(byte_level, fact, prefix) for prefix in task.prefixes] for fact in task.facts]

    def plain(place, prompts, **how):
        where = [prompt.subject_last for prompt in prompts]
        return read(model.network, [prompt.ids for prompt in prompts], 1, place, where, **how).mT

    keys = torch.stack([plain("mlp", each, inputs=True).mean(1) for each in rows], 1)
    residuals = torch.stack([t.values[0] for t in task.targets], 1) - plain("output", [each[0] for each in rows])
    residuals[:, 1] = 0
    expected = closed_form_update(residuals, keys, task.covariance[1, "mlp"], 20.0)
    torch.testing.assert_close(change, expected.float(), rtol=1e-3, atol=1e-5)
    assert task.trace[0]["residual_before"] == pytest.approx(float(residuals.norm(dim=0).mean()), rel=1e-4)


def test_the_leak_that_keys_foretell_is_that_of_residuals_which_know_nothing_of_each_other(model, task, byte_level):
    """Random residuals in a thousand dimensions stand in for unknown ones."""
    table = key_leaks(model, task.facts, SUBJECTS, task.covariance, 20.0, 2048).set_index(["layer", "position"]).leak
    assert len(table) == 2 * len(task.covariance)
    beside, bare = beside_of(task.facts, byte_level), [locate(byte_level, fact) for fact in task.facts]
    for layer, position in ((0, "subject_last"), (3, "prediction")):
        keys, others = (
            read(
                model.network, [p.ids for p in rows], layer, "mlp", [p.position(position) for p in rows], inputs=True
            ).mT
            for rows in (bare, beside)
        )
        residuals = torch.randn(4000, len(bare), dtype=torch.float64)
        change = closed_form_update(residuals, keys, task.covariance[layer, "mlp"], 20.0)
        assert table[layer, position] == pytest.approx(leak(change, keys, others), rel=0.05)
