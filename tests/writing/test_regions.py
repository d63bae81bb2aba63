"""Steps 2 and 3, the closed form and the covariances against plain computations."""

import copy

import pytest
import torch
from tiny import KINDS, random_network

from benchmarks import plain
from benchmarks.plain import read, write
from jeep.common.errors import UserError
from jeep.editors import load_editor
from jeep.model.editable import EditableModel
from jeep.model.tokens import Prompt, locate
from jeep.vectors.targets import Target
from jeep.vectors.task import Task
from jeep.writing import regions
from jeep.writing.covariance import covariances, sequences
from jeep.writing.regions import _close, write_regions
from jeep.writing.solve import closed_form_update
from jeep.writing.walk import LayerWalk, pooled

REGION = {"clamp": 1.0, "prior": 20.0}
OPTIMIZATION = {"steps": 2}


def editors(preset="paper"):
    return {
        "memit": load_editor(
            "memit",
            {
                "preset": preset,
                "optimization": OPTIMIZATION,
                "region": {**REGION, "layers": [0, 1], "spread": "even"},
            },
        ),
        "pmet": load_editor(
            "pmet",
            {
                "optimization": OPTIMIZATION,
                "region": {**REGION, "layers": [0, 1], "spread": "sqrt"},
                "write": "both",
            },
        ),
        "jeep-attention": load_editor(
            "jeep",
            {
                "optimization": OPTIMIZATION,
                "low": {**REGION, "layers": [0, 1], "spread": "sqrt"},
                "high": {**REGION, "layers": [2, 3], "spread": "even", "edited": "attention"},
            },
        ),
        "jeep": load_editor(
            "jeep",
            {
                "preset": preset,
                "optimization": OPTIMIZATION,
                "low": {**REGION, "layers": [0, 1], "spread": "sqrt"},
                "high": {**REGION, "layers": [2, 3], "spread": "even"},
            },
        ),
    }


def covariance_of(widths, layers=range(4)):
    """Any definite matrix for every W_O; `widths` by place."""
    generator = torch.Generator().manual_seed(3)
    samples = {
        (layer, place): torch.randn(width, 3 * width, generator=generator)
        for layer in layers
        for place, width in widths.items()
    }
    return {place: sample @ sample.T / sample.shape[1] for place, sample in samples.items()}


def test_closed_form_by_hand():
    """One key (1, 0), prior 1·I, residual (2, 4): Δ = r kᵀ (I + k kᵀ)⁻¹ = r (½, 0)."""
    change = closed_form_update(torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [0.0]]), torch.eye(2), 1.0)
    torch.testing.assert_close(change, torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64))


def test_closed_form_minimises_its_objective():
    """∂/∂Δ (‖Δ K − R‖² + λ tr Δ C Δᵀ) = 0, by autograd."""
    torch.manual_seed(0)
    keys, residuals = torch.randn(6, 4).double(), torch.randn(3, 4).double()
    covariance = torch.cov(torch.randn(6, 30).double())
    change = closed_form_update(residuals, keys, covariance, 5.0).requires_grad_()
    objective = ((change @ keys - residuals) ** 2).sum() + 5 * torch.trace(change @ covariance @ change.T)
    (gradient,) = torch.autograd.grad(objective, change)
    assert gradient.abs().max() < 1e-10


def test_a_singular_covariance_is_one_clear_line():
    with pytest.raises(UserError, match=r"not positive definite: collect it over more tokens"):
        closed_form_update(torch.ones(2, 1), torch.zeros(3, 1), torch.zeros(3, 3), 1.0)


def adds(network):
    """What a block of OLMo 2 or Granite adds to its state; None for blocks that add W_O's output."""
    if network.config.model_type == "granite":
        return lambda layer, place, output: 0.3 * output
    names = {"mlp": "post_feedforward_layernorm", "attention": "post_attention_layernorm"}
    if network.config.model_type == "olmo2":
        return lambda layer, place, output: network.model.layers[layer].get_submodule(names[place])(output)
    return None


@pytest.mark.parametrize("method", ["memit", "jeep", "pmet", "jeep-attention"])
@pytest.mark.parametrize("architecture", KINDS)
def test_write_equals_the_plain_version(architecture, method, byte_level, facts, prefixes):
    network = random_network(architecture)
    model = EditableModel(copy.deepcopy(network), byte_level)
    editor = editors()[method]
    chosen = facts[:3]
    torch.manual_seed(2)
    values = [torch.randn(len(editor.sites), 32) for _ in chosen]
    covariance = covariance_of(
        {place: model.projection(0, place).weight.numel() // 32 for place in ("mlp", "attention")}
    )
    targets = [Target(f.case_id, v, v, [1.0], [0.5]) for f, v in zip(chosen, values, strict=True)]
    before = {name: value.clone() for name, value in model.network.state_dict().items()}

    ours = write_regions(model, Task(chosen, prefixes, 40, targets, covariance), editor.placements, pool="mean")

    prompts = [[locate(byte_level, fact, prefix) for prefix in prefixes] for fact in chosen]
    expected_changes = write(
        network, prompts, values, editor.placements, covariance, transposed=architecture == "gpt2", adds=adds(network)
    )
    assert set(ours) == {model.parameter_name(*place) for place in expected_changes}
    for (layer, place), change in expected_changes.items():
        expected = model.as_stored(layer, change, place).float()
        error = (ours[model.parameter_name(layer, place)] - expected).norm() / expected.norm()
        assert error < 1e-3, layer
    assert all(torch.equal(before[name], value) for name, value in model.network.state_dict().items())


def test_release_pools_half_the_bare_key(byte_level, facts, prefixes):
    """Keys of the released code: ½ bare + ½ mean of the sampled prefixes'."""
    model = EditableModel(random_network("llama"), byte_level)
    fact, covariance = facts[0], covariance_of({"mlp": 64})
    value = torch.ones(1, 32)
    editor = load_editor("memit", {"optimization": OPTIMIZATION, "region": {**REGION, "layers": [1], "spread": "even"}})
    rows = [locate(byte_level, fact, prefix) for prefix in prefixes]
    where = [prompt.subject_last for prompt in rows]
    keys = read(model_network(), [prompt.ids for prompt in rows], 1, "mlp", where, inputs=True)
    key = (keys[0] + (keys[1] + keys[2]) / 2) / 2
    (state,) = read(model_network(), [rows[0].ids], 1, "output", where[:1])
    target = Target(fact.case_id, value, value, [1.0], [0.5])
    task = Task([fact], prefixes, 40, [target], covariance)
    (ours,) = write_regions(model, task, editor.placements, pool="half_bare").values()
    expected = closed_form_update((value[0] - state)[:, None], key[:, None], covariance[1, "mlp"], 20.0)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-5)


def test_keys_are_pooled_by_hand():
    """Two facts of three prefixes; with the bare prompt alone there is nothing else to pool."""
    keys = torch.tensor([[2.0, 4.0, 6.0, 0.0, 3.0, 9.0]])
    assert pooled(keys, 3, "mean").tolist() == [[4, 4]]
    assert pooled(keys, 3, "half_bare").tolist() == [[(2 + 5) / 2, (0 + 6) / 2]]
    for pool in ("mean", "half_bare"):
        assert torch.equal(pooled(keys, 1, pool), keys)


def test_tokens_behind_the_last_position_that_is_read_are_not_run(byte_level, facts, prefixes, monkeypatch):
    """A low region ends with the subject; a high one with the prompt."""
    model = EditableModel(random_network("llama"), byte_level)
    whole = [[locate(byte_level, fact, prefix) for prefix in prefixes] for fact in facts[:3]]
    given = []

    class Watched(LayerWalk):
        def __init__(self, model, prompts, token_budget):
            given.append(prompts)
            super().__init__(model, prompts, token_budget)

    monkeypatch.setattr(regions, "LayerWalk", Watched)
    for method in ("memit", "jeep"):
        editor = editors()[method]
        targets = [
            Target(f.case_id, v, v, [1.0], [0.5]) for f in facts[:3] for v in [torch.ones(len(editor.sites), 32)]
        ]
        task = Task(facts[:3], prefixes, 2048, targets, covariance_of({"mlp": 64}))
        write_regions(model, task, editor.placements, pool="mean")
    low, high = given
    assert low == [[Prompt(p.ids[: p.subject_last + 1], p.subject_last) for p in fact] for fact in whole]
    assert high == whole
    assert all(p.subject_last < p.prediction for fact in whole for p in fact)


def test_the_trace_says_what_was_changed_and_what_is_left(byte_level, facts, prefixes):
    """Figure 3's numbers by plain reads: ‖Δ‖/‖W‖ of each layer, the mean ‖v − h‖ before and after each update."""
    network = random_network("llama")
    model = EditableModel(copy.deepcopy(network), byte_level)
    editor = editors()["jeep"]
    torch.manual_seed(2)
    targets = [Target(f.case_id, v, v, [1.0], [0.5]) for f in facts[:3] for v in [torch.randn(2, 32)]]
    task = Task(facts[:3], prefixes, 2048, targets, covariance_of({"mlp": 64}))
    changes = write_regions(model, task, editor.placements, pool="mean")
    prompts = [locate(byte_level, fact) for fact in facts[:3]]

    def residual(placement):
        where = [prompt.position(placement.position) for prompt in prompts]
        states = read(network, [p.ids for p in prompts], placement.layers[-1], placement.measured, where)
        goals = torch.stack([target.values[placement.site] for target in targets])
        return float((goals - states).norm(dim=1).mean())

    steps = [(placement, layer) for placement in editor.placements for layer in placement.layers]
    assert [(s["layer"], s["position"]) for s in task.trace] == [(layer, p.position) for p, layer in steps]
    for step, (placement, layer) in zip(task.trace, steps, strict=True):
        name = model.parameter_name(layer)
        weight = network.get_parameter(name)
        assert step["residual_before"] == pytest.approx(residual(placement), rel=1e-4)
        assert step["relative_change"] == pytest.approx(float(changes[name].norm() / weight.norm()), rel=1e-5)
        weight.data.add_(changes[name])
        assert step["residual_after"] == pytest.approx(residual(placement), rel=1e-4)


def test_the_residual_behind_a_layer_is_that_before_its_regions_next():
    """By hand: two W_O of the same layers, and another region behind them; one region ends, the others go on."""
    first, other = editors()["pmet"].placements  # attention's and the MLP's
    steps = [(0, "attention", 9.0), (0, "mlp", 8.0), (1, "attention", 5.0), (1, "mlp", 4.0)]
    trace = [{"layer": n, "edited": e, "position": "subject_last", "residual_before": r} for n, e, r in steps]
    trace.append({"layer": 2, "edited": "mlp", "position": "prediction", "residual_before": 7.0})
    _close(trace, other, torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
    assert [step.get("residual_after") for step in trace] == [None, 4.0, None, (5 + 1) / 2, None]
    _close(trace, first, torch.tensor([[2.0]]))
    assert [step.get("residual_after") for step in trace] == [5.0, 4.0, 2.0, 3.0, None]


def test_a_walk_in_low_precision_reads_in_float32(byte_level, facts, prefixes):
    prompts = [[locate(byte_level, fact, prefix) for prefix in prefixes] for fact in facts[:4]]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        walk = LayerWalk(EditableModel(random_network("llama", dtype), byte_level), prompts, token_budget=30)
        walk.advance(1)
        found[dtype] = (walk.keys("prediction"), walk.values(2, "output", "prediction"))
        assert {read.dtype for read in found[dtype]} == {torch.float32}
        assert {state.dtype for state in walk.states} == {dtype}, "states are kept as they are"
    for exact, rough in zip(*found.values(), strict=True):
        assert 0 < (exact - rough).norm() / exact.norm() < 0.1


def model_network():
    return random_network("llama")


def test_a_walk_sees_what_was_changed_below(byte_level, facts, prefixes):
    model = EditableModel(random_network("gptj"), byte_level)
    prompts = [[locate(byte_level, fact, prefix) for prefix in prefixes] for fact in facts[:4]]
    walk = LayerWalk(model, prompts, token_budget=16)
    walk.advance(1)
    name = model.parameter_name(1)
    with model.scratch([name]):
        model.add_({name: torch.full_like(model.network.get_parameter(name), 0.05)})
        walk.advance(3)
        fresh = LayerWalk(model, prompts, token_budget=1000)
        fresh.advance(3)
        torch.testing.assert_close(walk.keys("prediction"), fresh.keys("prediction"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_covariances_in_one_pass_equal_plain_ones(architecture, byte_level):
    network = random_network(architecture)
    model = EditableModel(copy.deepcopy(network), byte_level)
    texts = ["Paris is a city in France.", "The city of Rome lies in Italy, not in Spain.", "Bonn"]
    rows = list(sequences(byte_level, texts, length=9, tokens=100))
    assert max(map(len, rows)) <= 9
    ours = covariances(model, rows, [(3, "mlp"), (1, "attention"), (1, "mlp")], token_budget=12)
    assert list(ours) == [(3, "mlp"), (1, "attention"), (1, "mlp")]
    for place, matrix in ours.items():
        torch.testing.assert_close(matrix, plain.covariance(network, rows, *place), rtol=1e-4, atol=1e-6)


def test_sequences_stop_at_the_token_count(byte_level):
    assert sum(map(len, sequences(byte_level, ["a city in France"] * 50, 5, 23))) == 23
