"""The target-vector engine against the plain version: one request at a time, the whole model, every token."""

import copy

import pytest
import torch
from conftest import ARCHITECTURES, random_network
from benchmarks.plain import target_vectors

from jeep.models import EditableModel
from jeep.settings import Optimization, Site
from jeep.targets import optimize
from jeep.tokens import Request

LOW = Site(layer=1, place="output", position="subject_last", clamp=0.6, weight_decay=0.5)
HIGH = Site(layer=2, place="output", position="prediction", clamp=0.3, weight_decay=0.5, follow=True)
SITES = {
    "memit": (LOW,),
    "jeep": (LOW, HIGH),
    "jeep-release": (
        LOW.model_copy(update={"place": "mlp"}),
        HIGH.model_copy(update={"place": "attention", "follow": False}),
    ),
    "high-only": (HIGH,),
    "attention-and-mlp": (
        LOW.model_copy(update={"place": "attention"}),
        LOW.model_copy(update={"place": "mlp"}),
    ),
}
SETTINGS = Optimization(steps=6, learning_rate=0.5, kl_factor=0.5)


def requests_of(tokenizer, facts, prefixes):
    return [Request.of(tokenizer, fact, prefixes) for fact in facts[::3]]


def run(model, requests, sites, settings, budget=4096):
    found = {t.case_id: t for batch in optimize(model, requests, sites, settings, budget) for t in batch}
    return [found[request.case_id] for request in requests]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_equals_the_plain_version(architecture, sites, byte_level, facts, prefixes):
    network = random_network(architecture, torch.float64)
    model = EditableModel(copy.deepcopy(network), byte_level)
    requests = requests_of(byte_level, facts, prefixes)[:2]
    for request, target in zip(requests, run(model, requests, sites, SETTINGS), strict=True):
        values, states, losses = target_vectors(network, request, sites, SETTINGS)
        assert len(target.losses) == len(losses)
        torch.testing.assert_close(torch.tensor(target.losses), torch.tensor(losses), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(target.states.double(), states, rtol=1e-4, atol=1e-5)
        error = (target.values - values).norm(dim=1) / values.norm(dim=1)
        assert error.max() < 1e-3


def test_a_result_does_not_depend_on_its_batch(trained, facts, prefixes):
    requests = requests_of(trained.tokenizer, facts, prefixes)
    settings = Optimization(steps=12, stop_probability=0.6)
    together = run(trained, requests, SITES["jeep"], settings)
    alone = run(trained, requests, SITES["jeep"], settings, budget=1)
    assert len({len(target.losses) for target in together}) > 1, "requests should stop at different steps"
    for one, other in zip(together, alone, strict=True):
        assert len(one.losses) == len(other.losses)
        torch.testing.assert_close(one.values, other.values, rtol=1e-3, atol=1e-4)


def test_delta_respects_its_clamp(trained, facts, prefixes):
    """Eq. 12: ‖δ‖ ≤ γ‖h‖, and the bound is reached where the loss still pulls."""
    tight = LOW.model_copy(update={"clamp": 0.05})
    requests = requests_of(trained.tokenizer, facts, prefixes)
    targets = run(trained, requests, (tight,), SETTINGS)
    ratio = torch.tensor([float((t.values[0] - t.states[0]).norm() / t.states[0].norm()) for t in targets])
    assert ratio.max() <= 0.05 * (1 + 1e-5)
    assert ratio.min() > 0.049


def test_the_new_answer_becomes_probable(trained, facts, prefixes):
    requests = requests_of(trained.tokenizer, facts, prefixes)
    wide = tuple(site.model_copy(update={"clamp": 4.0}) for site in SITES["jeep"])
    targets = run(trained, requests, wide, Optimization(steps=30, stop_probability=0.9))
    assert all(target.probabilities[-1] > 5 * target.probabilities[0] for target in targets)


def test_stops_at_the_probability_and_not_before(trained, facts, prefixes):
    requests = requests_of(trained.tokenizer, facts, prefixes)
    for target in run(trained, requests, SITES["memit"], Optimization(steps=30, stop_probability=0.5)):
        assert all(probability < 0.5 for probability in target.probabilities[:-1])
        assert target.probabilities[-1] >= 0.5 or len(target.losses) == 30


def test_a_request_that_leaves_the_finite_numbers_does_not_stop_the_others(byte_level, facts, prefixes):
    """A token whose embedding is infinite spoils the one fact that has it."""
    network = random_network("mistral")
    model = EditableModel(network, byte_level)
    requests = requests_of(byte_level, facts, prefixes)[:3]
    own = set(requests[1].prompts[0].ids) - set(requests[0].prompts[0].ids) - set(requests[2].prompts[0].ids)
    network.get_input_embeddings().weight.data[min(own)] = torch.inf
    targets = run(model, requests, SITES["jeep"], SETTINGS)
    assert [target.finite for target in targets] == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "gptj"])
def test_low_precision_stays_close(architecture, dtype, byte_level, facts, prefixes):
    exact = EditableModel(random_network(architecture), byte_level)
    rough = EditableModel(random_network(architecture, dtype), byte_level)
    requests = requests_of(byte_level, facts, prefixes)[:2]
    settings = Optimization(steps=3)
    for one, other in zip(
        run(exact, requests, SITES["memit"], settings),
        run(rough, requests, SITES["memit"], settings),
        strict=True,
    ):
        assert other.finite
        assert (one.states - other.states).norm() / one.states.norm() < 0.05
        assert abs(one.losses[0] - other.losses[0]) < 0.05 * one.losses[0]
