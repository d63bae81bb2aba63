"""The target-vector engine against the plain version: one request at a time, the whole model, every token."""

import copy
import math
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import KINDS, exact, random_network

from benchmarks.plain import target_vectors
from jeep.common.errors import UserError
from jeep.common.settings import Optimization, Relax, Site, StopRight
from jeep.model.editable import EditableModel
from jeep.model.stems import Stems
from jeep.model.tokens import Request
from jeep.vectors.suffixes import Problem
from jeep.vectors.targets import Target, _Descent, optimize, report_unusable, with_finite_targets

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


def relative_error(ours, plain):
    """The largest relative error of a row."""
    return float(((ours - plain).norm(dim=1) / plain.norm(dim=1)).max())


def run(model, requests, sites, settings, budget=4096):
    found = {t.case_id: t for batch in optimize(model, requests, sites, settings, budget) for t in batch}
    return [found[request.case_id] for request in requests]


@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_equals_the_plain_version(architecture, sites, byte_level, facts, prefixes):
    network = random_network(architecture, torch.float64)
    model = EditableModel(copy.deepcopy(network), byte_level)
    requests = requests_of(byte_level, facts, prefixes)[:2]
    for request, target in zip(requests, run(model, requests, sites, SETTINGS), strict=True):
        values, states, losses = target_vectors(network, request, sites, SETTINGS)
        assert len(target.losses) == len(losses)
        assert relative_error(torch.tensor([target.losses]).double(), torch.tensor([losses]).double()) < 1e-8
        assert relative_error(target.states, states) < 1e-8
        assert relative_error(target.values, values) < 1e-8


def test_a_long_answer_equals_the_plain_version(byte_level, facts, prefixes):
    """All its tokens but the last stand behind the prompt."""
    network = random_network("llama", torch.float64)
    fact = replace(facts[0], target_new="the old city of Rome, in Italy")
    request = Request.of(byte_level, fact, prefixes)
    assert len(request.answer) > 3
    (target,) = run(EditableModel(copy.deepcopy(network), byte_level), [request], SITES["jeep"], SETTINGS)
    values, _, losses = target_vectors(network, request, SITES["jeep"], SETTINGS)
    assert target.losses == pytest.approx(losses, rel=1e-8)
    assert relative_error(target.values, values) < 1e-8


def test_one_prompt_is_all_that_runs_where_nothing_else_is_asked_for(byte_level, facts):
    """No prefix but the empty one, and no KL."""
    network = random_network("llama", torch.float64)
    model = EditableModel(copy.deepcopy(network), byte_level)
    settings = SETTINGS.model_copy(update={"kl_factor": 0.0})
    request = Request.of(byte_level, facts[0], ["{}"])
    assert len(_Descent(model, [request], (LOW,), settings, Stems(model, [request.prompts])).problem.rows) == 1
    assert len(_Descent(model, [request], (LOW,), SETTINGS, Stems(model, [request.prompts])).problem.rows) == 2
    (target,) = run(model, [request], (LOW,), settings)
    values, _, losses = target_vectors(network, request, (LOW,), settings)
    assert target.losses == pytest.approx(losses, rel=1e-8)
    assert relative_error(target.values, values) < 1e-8


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", {"output": False, "mlp": False, "attention": True}),  # the MLP stands behind attention
        ("gptj", {"output": False, "mlp": False, "attention": False}),  # side by side
        ("olmo2", {"output": False, "mlp": True, "attention": True}),  # a norm stands behind either
    ],
)
def test_a_block_is_run_again_only_where_it_reads_delta(architecture, expected, byte_level, facts, prefixes):
    model = EditableModel(random_network(architecture), byte_level)
    requests = requests_of(byte_level, facts, prefixes)[:2]
    stems = Stems(model, [request.prompts for request in requests])
    for place, inside in expected.items():
        site = LOW.model_copy(update={"place": place})
        problem = Problem(model, requests, [site], stems, kl=True)
        assert problem.inside(site) is inside
        assert problem.begin == site.layer - inside


def test_easing_once_the_answer_is_right_equals_the_plain_version(trained, facts, prefixes):
    """PMET: the NLL counts a tenth while the answer is the argmax everywhere, and a small KL ends it."""
    network = exact(copy.deepcopy(trained.network))
    network.config._attn_implementation = "sdpa"
    model = EditableModel(copy.deepcopy(network), trained.tokenizer)
    sites = (LOW.model_copy(update={"clamp": 3.0, "weight_decay": 0.0}),)
    (request,) = requests_of(trained.tokenizer, facts, prefixes)[:1]
    optimization = {"steps": 12, "learning_rate": 0.05, "kl_factor": 0.5}
    eased = {}
    for stop in (1e-9, 1e9):
        settings = Optimization(**optimization, relax=Relax(stop_kl=stop))
        (target,) = run(model, [request], sites, settings)
        values, _, losses = target_vectors(network, request, sites, settings)
        assert len(target.losses) == len(losses)
        assert relative_error(torch.tensor([target.losses]).double(), torch.tensor([losses]).double()) < 1e-8
        assert relative_error(target.values, values) < 1e-8
        eased[stop] = losses
    (plain,) = run(model, [request], sites, Optimization(**optimization))
    first = len(eased[1e9]) - 1
    assert 0 < first < 11, "the answer becomes right in between"
    assert eased[1e-9][: first + 1] == pytest.approx(plain.losses[: first + 1])
    assert eased[1e-9][first + 1] != pytest.approx(plain.losses[first + 1])


@pytest.mark.parametrize("judged", ["all", "sampled"])
def test_being_right_often_enough_ends_it_as_in_the_plain_version(judged, trained, facts, prefixes):
    """ENCORE: steps in which the answer is the argmax everywhere are counted, behind the sampled prefixes or all."""
    network = exact(copy.deepcopy(trained.network))
    network.config._attn_implementation = "sdpa"
    model = EditableModel(copy.deepcopy(network), trained.tokenizer)
    sites = (LOW.model_copy(update={"clamp": 3.0, "weight_decay": 0.0}),)
    request, *_ = requests = requests_of(trained.tokenizer, facts, prefixes)[:6]
    optimization = {"steps": 20, "learning_rate": 0.05, "kl_factor": 0.5}
    lengths = []
    for steps in (1, 3):
        settings = Optimization(**optimization, stop_right=StopRight(steps=steps, prefixes=judged))
        targets = run(model, requests, sites, settings)
        values, _, losses = target_vectors(network, request, sites, settings)
        assert targets[0].losses == pytest.approx(losses, rel=1e-8)
        assert relative_error(targets[0].values, values) < 1e-8
        lengths.append([len(target.losses) for target in targets])
    assert min(lengths[0]) < 18, "some answer becomes right"
    assert all(other == min(20, max(other, one + 2)) for one, other in zip(*lengths, strict=True))
    free = run(model, requests, sites, Optimization(**optimization))
    assert all(len(target.losses) == 20 for target in free), "nothing else ends it"


def test_the_bare_prompt_counts_only_where_all_do(trained, facts, prefixes):
    """A fact that the model answers rightly behind the prefixes and not without them."""
    requests = requests_of(trained.tokenizer, facts, prefixes)
    problem = _Descent(trained, requests, (LOW,), SETTINGS, Stems(trained, [r.prompts for r in requests])).problem
    selection = problem.select(range(len(requests)))
    states, _ = selection.forward([torch.zeros(len(requests), 64)])
    logits = trained.logits(states[selection.answer_index])
    bare = [number for number, row in enumerate(r for r in problem.rows if r.answer) if row.stem == 0]
    right = logits.argmax(-1)
    selection.answers = right.clone()
    selection.answers[torch.isin(selection.answer_rows.groups, torch.tensor(bare))] += 1
    reading = selection.read(states, right=True)
    assert not reading.right.any()
    assert reading.right_sampled.all()


def test_the_stop_looks_at_the_whole_loss(trained, facts, prefixes):
    """Not at the NLL alone: weight decay holds the loss above it."""
    (request,) = requests_of(trained.tokenizer, facts, prefixes)[:1]
    settings = Optimization(steps=15, learning_rate=0.1, stop_loss=0.3)
    light, heavy = (LOW.model_copy(update={"clamp": 3.0, "weight_decay": decay}) for decay in (0.0, 5.0))
    (free,) = run(trained, [request], (light,), settings)
    assert len(free.losses) < 15
    assert free.losses[-1] < 0.3 <= min(free.losses[:-1])
    (held,) = run(trained, [request], (heavy,), settings)
    nll = [-math.log(probability) for probability in held.probabilities]
    below = [step for step, value in enumerate(nll) if value < 0.3]
    assert below, "the answer becomes probable all the same"
    assert len(held.losses) > below[0] + 1
    assert all(loss >= 0.3 for loss in held.losses[:-1])


@pytest.mark.parametrize("name", ["llama", "gptj", "gpt2"])
def test_equals_the_plain_version_in_float32(name, byte_level, facts, prefixes):
    network = random_network(name)
    model = EditableModel(copy.deepcopy(network), byte_level)
    requests = requests_of(byte_level, facts, prefixes)
    for request, target in zip(requests, run(model, requests, SITES["jeep"], SETTINGS), strict=True):
        values, _, losses = target_vectors(network, request, SITES["jeep"], SETTINGS)
        assert len(target.losses) == len(losses)
        assert relative_error(target.values, values) < 1e-3


def test_a_result_does_not_depend_on_its_batch(trained, facts, prefixes):
    requests = requests_of(trained.tokenizer, facts, prefixes)
    settings = Optimization(steps=12, stop_probability=0.6)
    together = run(trained, requests, SITES["jeep"], settings)
    alone = run(trained, requests, SITES["jeep"], settings, budget=1)
    assert len({len(target.losses) for target in together}) > 1, "requests should stop at different steps"
    for one, other in zip(together, alone, strict=True):
        assert len(one.losses) == len(other.losses)
        assert relative_error(one.values, other.values) < 1e-3


def test_when_memory_runs_out_batches_shrink_and_results_stay(trained, facts, prefixes, monkeypatch, caplog):
    """A device with room for 40 tokens of suffixes at a time."""
    requests = requests_of(trained.tokenizer, facts, prefixes)
    whole = run(trained, requests, SITES["jeep"], SETTINGS)
    enough, largest = EditableModel.run, []

    def small(model, states, packing, first, last):
        if packing.repeated and len(states) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        largest.append(len(states) if packing.repeated else 0)
        return enough(model, states, packing, first, last)

    monkeypatch.setattr(EditableModel, "run", small)
    shrunk = run(trained, requests, SITES["jeep"], SETTINGS)
    assert max(largest) > 10
    assert "out of memory: the token budget is lowered to" in caplog.text
    for one, other in zip(whole, shrunk, strict=True):
        assert relative_error(one.values, other.values) < 1e-3


def test_a_single_request_that_does_not_fit_is_one_clear_line(trained, facts, prefixes, monkeypatch):
    def never(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    requests = requests_of(trained.tokenizer, facts, prefixes)[:1]
    monkeypatch.setattr(_Descent, "run", never)
    with pytest.raises(UserError, match="out of memory with a single sequence of"):
        run(trained, requests, SITES["jeep"], SETTINGS)


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
    stops = SETTINGS.model_copy(update={"stop_loss": 1e-9, "stop_probability": 0.999, "relax": Relax()})
    for settings in (SETTINGS, stops):
        targets = run(model, requests, SITES["jeep"], settings)
        assert [target.finite for target in targets] == [True, False, True]
        assert [len(target.losses) for target in targets] == [6, 1, 6], "it is given up at once"


def test_what_is_not_finite_is_named_and_left_out(facts, caplog):
    """A vector or a loss, NaN or infinite; probabilities do not count."""
    one, nan, inf = torch.ones(1, 2), torch.tensor([[1.0, torch.nan]]), float("inf")
    given = [(one, [1.0, 2.0], 0.5), (nan, [1.0], 0.5), (one, [1.0, inf], 0.5), (one, [1.0], float("nan"))]
    targets = [
        Target(fact.case_id, values, one, losses, [probability])
        for fact, (values, losses, probability) in zip(facts, given, strict=False)
    ]
    kept, found = with_finite_targets(facts[:4], targets)
    assert kept == [facts[0], facts[3]]
    assert found == [targets[0], targets[3]]
    report_unusable(targets)
    assert caplog.messages == [f"fact city-{n}: the loss did not stay finite; it is left out" for n in (1, 2)]
    with pytest.raises(ValueError, match="shorter"):
        with_finite_targets(facts[:4], targets[:3])


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler")
def test_compiled_blocks_give_the_same(trained, facts, prefixes):
    """Also where a site inside a block hooks it: the compiled version would not see the hook."""
    requests = requests_of(trained.tokenizer, facts, prefixes)
    compiled = EditableModel(trained.network, trained.tokenizer, compiled=True)
    for sites in (SITES["jeep"], SITES["jeep-release"]):
        plain_blocks = run(trained, requests, sites, SETTINGS)
        for one, other in zip(plain_blocks, run(compiled, requests, sites, SETTINGS), strict=True):
            assert relative_error(one.values, other.values) < 1e-3


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
