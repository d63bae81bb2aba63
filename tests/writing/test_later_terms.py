"""Terms of the closed form that came after the paper, by their own papers' formulas and by identities."""

import pytest
import torch
from editing import SETTINGS
from pydantic import ValidationError
from tiny import random_network

from benchmarks.plain import read
from jeep.common.errors import UserError
from jeep.common.settings import NullSpace, Region
from jeep.common.storage import write_tensors
from jeep.editors import load_editor
from jeep.model.editable import EditableModel
from jeep.model.tokens import locate
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task
from jeep.writing.null_space import Eigenvectors, read_eigenvectors, write_eigenvectors
from jeep.writing.regions import write_regions
from jeep.writing.solve import closed_form_update


@pytest.fixture
def problem():
    """Residuals (3, 4), keys (6, 4), a covariance of 6 inputs, keys of a batch before (6, 5); in float64."""
    generator = torch.Generator().manual_seed(0)
    residuals, keys, text, old = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (6, 4), (6, 30), (6, 5))
    )
    return residuals, keys, text @ text.T / 30, old


def low_space(covariance, count):
    """The eigenvectors of the smallest eigenvalues, as singular vectors."""
    return torch.linalg.svd(covariance).Vh[len(covariance) - count :].T


def test_a_batch_after_another_with_history_is_both_at_once(problem):
    """Recursive least squares: with K₁ remembered, Δ₁ + Δ₂ is the update of both batches together."""
    residuals, keys, covariance, old = problem
    first = torch.arange(15, dtype=torch.float64).reshape(3, 5).sin()
    one = closed_form_update(first, old, covariance, 2.0)
    two = closed_form_update(residuals - one @ keys, keys, covariance, 2.0, history=old @ old.T)
    both = closed_form_update(torch.cat([first, residuals], 1), torch.cat([old, keys], 1), covariance, 2.0)
    torch.testing.assert_close(one + two, both)
    forgetful = closed_form_update(residuals - one @ keys, keys, covariance, 2.0)
    assert not torch.allclose(one + forgetful, both, rtol=0.01)


def test_the_norm_is_part_of_what_is_least(problem):
    """∂/∂Δ (‖ΔK − R‖² + λ tr ΔCΔᵀ + ν‖Δ‖²) = 0, by autograd (ENCORE)."""
    residuals, keys, covariance, _ = problem
    change = closed_form_update(residuals, keys, covariance, 5.0, ridge=3.0).requires_grad_()
    objective = ((change @ keys - residuals) ** 2).sum() + 5 * (change @ covariance @ change.T).trace()
    (gradient,) = torch.autograd.grad(objective + 3 * (change**2).sum(), change)
    assert gradient.abs().max() < 1e-10


def test_alphaedit_is_its_papers_formula(problem):
    """Δ = R KᵀP (K_pK_pᵀP + KKᵀP + μI)⁻¹, solved as the released code does: unsymmetric, in all d_in dimensions."""
    residuals, keys, covariance, old = problem
    basis = low_space(covariance, 4)
    projection = basis @ basis.T
    right = (old @ old.T + keys @ keys.T) @ projection + 10 * torch.eye(6, dtype=torch.float64)
    expected = residuals @ keys.T @ projection @ torch.linalg.inv(right)
    ours = closed_form_update(residuals, keys, covariance, 0.0, ridge=10.0, history=old @ old.T, basis=basis)
    torch.testing.assert_close(ours, expected)
    outside = torch.linalg.svd(basis.T).Vh[4:].T
    assert (ours @ outside).norm() < 1e-10 < ours.norm(), "nothing of a key outside the space is read"


def test_betaedit_is_its_papers_formula(problem):
    """Δ = R KᵀP (P(KKᵀ + K_pK_pᵀ + λ₁C)P + λ₂I)⁻¹P, of any space: after a refresh it is none of C's own."""
    residuals, keys, covariance, old = problem
    basis = torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)).Q
    projection = basis @ basis.T
    inner = projection @ (keys @ keys.T + old @ old.T + 7 * covariance) @ projection + 2 * torch.eye(6).double()
    expected = residuals @ keys.T @ projection @ torch.linalg.inv(inner) @ projection
    ours = closed_form_update(residuals, keys, covariance, 7.0, ridge=2.0, history=old @ old.T, basis=basis)
    torch.testing.assert_close(ours, expected)


def test_the_limits_of_alphaedit(problem):
    """All eigenvectors: without history ridge regression; with a prior and no ridge MEMIT-seq."""
    residuals, keys, covariance, old = problem
    every = low_space(covariance, 6)
    ridge = residuals @ keys.T @ torch.linalg.inv(keys @ keys.T + 10 * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(closed_form_update(residuals, keys, covariance, 0.0, ridge=10.0, basis=every), ridge)
    seq = closed_form_update(residuals, keys, covariance, 7.0, history=old @ old.T)
    torch.testing.assert_close(
        closed_form_update(residuals, keys, covariance, 7.0, history=old @ old.T, basis=every), seq
    )


def test_emmet_is_memit_with_a_small_prior(problem):
    """R (KᵀC⁻¹K + εI)⁻¹ KᵀC⁻¹, with equality where ε → 0."""
    residuals, keys, covariance, _ = problem
    inverse = torch.linalg.inv(covariance)
    gram = keys.T @ inverse @ keys + 0.1 * torch.eye(4, dtype=torch.float64)
    expected = residuals @ torch.linalg.inv(gram) @ keys.T @ inverse
    torch.testing.assert_close(closed_form_update(residuals, keys, covariance, 0.1), expected)
    exact = closed_form_update(residuals, keys, covariance, 1e-9)
    torch.testing.assert_close(exact @ keys, residuals, rtol=1e-6, atol=1e-6)


def test_what_spares_neighbours_is_counted_inside_the_space_too(problem):
    """Δ M = 0 and Δ = Δ U₀U₀ᵀ hold together; spared keys weigh there as they do outside."""
    residuals, keys, covariance, old = problem
    basis = low_space(covariance, 5)
    change = closed_form_update(residuals, keys, covariance, 2.0, basis=basis, fixed=old[:, :2])
    assert (change @ old[:, :2]).norm() < 1e-9 < change.norm()
    torch.testing.assert_close(change @ basis @ basis.T, change)
    one, other = (
        closed_form_update(residuals, keys, covariance, 2.0, basis=basis, **terms)
        for terms in ({"spared": old}, {"history": old @ old.T})
    )
    torch.testing.assert_close(one, other)


def test_eigenvectors_are_kept_by_threshold_or_by_share():
    covariance = torch.diag(torch.tensor([4.0, 0.01, 1.0, 0.001]))
    found = Eigenvectors.of(covariance)
    assert found.values.tolist() == pytest.approx([0.001, 0.01, 1, 4])
    low = found.kept(NullSpace(threshold=0.02))
    assert low.abs().argmax(0).tolist() == [3, 1], "the columns of the two smallest"
    assert torch.equal(low, found.kept(NullSpace(keep=0.5)))
    assert found.kept(NullSpace(keep=1)).shape == (4, 4)
    with pytest.raises(UserError, match=r"no eigenvalue of this covariance is below 1e-05 \(the smallest is 0.001\)"):
        found.kept(NullSpace(threshold=1e-5))
    with pytest.raises(UserError, match=r"0\.1 of 4 eigenvectors is none"):
        found.kept(NullSpace(keep=0.1))


def test_settings_that_say_nothing_or_too_much():
    for settings in ({}, {"threshold": 0.1, "keep": 0.5}):
        with pytest.raises(ValidationError, match="needs either threshold or keep"):
            NullSpace(**settings)
    region = {"layers": [1], "clamp": 1, "spread": "even", "prior": 0}
    with pytest.raises(ValidationError, match="prior: 0 needs a ridge"):
        Region(**region)
    assert Region(**region, ridge=1).prior == 0


def test_alphaedits_presets_differ_and_a_share_replaces_the_threshold():
    def region(**settings):
        own = {"layers": [1], "clamp": 1, "spread": "even"} | settings.pop("region", {})
        return load_editor("alphaedit", {"optimization": {"steps": 2}, "region": own, **settings}).region

    paper, release = region(), region(preset="release")
    assert (paper.prior, paper.ridge, paper.null_space, paper.history) == (0, 1, NullSpace(threshold=0.01), True)
    assert (release.prior, release.ridge, release.null_space) == (0, 10, NullSpace(threshold=0.02))
    shared = region(preset="release", region={"null_space": {"keep": 0.7}, "ridge": 3, "prior": 3000})
    assert (shared.prior, shared.ridge, shared.null_space) == (3000, 3, NullSpace(keep=0.7))
    beta = region(preset="release", region={"null_space": {"refresh": 1000}, "prior": 3000})
    assert (beta.prior, beta.null_space) == (3000, NullSpace(threshold=0.02, refresh=1000)), "BetaEdit"
    with pytest.raises(ValidationError, match="AlphaEdit needs one"):
        region(region={"null_space": None})


def written(editor, model, facts, prefixes, covariance, **given):
    targets = optimize_facts(model, facts, prefixes, editor.target_spec, 2048)
    return write_regions(model, Task(facts, prefixes, 2048, targets, covariance, **given), editor.placements, "mean")


def editor_with(name="memit", **region):
    return load_editor(name, SETTINGS[name] | {"region": SETTINGS[name]["region"] | region})


def test_a_written_change_lies_in_the_space(trained, facts, prefixes, covariance, tmp_path):
    """With eigenvectors from a file, and decomposed on the spot: the same to rounding."""
    editor = editor_with(null_space={"keep": 0.6})
    own = written(editor, trained, facts[:3], prefixes, covariance)
    files = []
    for layer in (0, 1):
        name = f"{layer}.mlp"
        matrix, file = tmp_path / f"{name}.covariance", tmp_path / f"{name}.safetensors"
        write_tensors(matrix, {name: covariance[layer, "mlp"]}, {"model": trained.identity})
        write_eigenvectors(matrix, file)
        files.append(file)
    known = read_eigenvectors(files, trained)
    given = written(editor, trained, facts[:3], prefixes, covariance, eigenvectors=known)
    free = written(editor_with(), trained, facts[:3], prefixes, covariance)
    for layer in (0, 1):
        name = trained.parameter_name(layer)
        outside = known[layer, "mlp"][1][:, round(0.6 * len(covariance[layer, "mlp"])) :]
        torch.testing.assert_close(given[name], own[name], rtol=1e-3, atol=1e-6)
        assert (own[name] @ outside).norm() < 1e-3 * own[name].norm()
        assert (free[name] @ outside).norm() > 0.1 * free[name].norm()


def test_eigenvectors_of_another_model_are_refused(byte_level, tmp_path):
    write_tensors(tmp_path / "c", {"0.mlp": torch.eye(4)}, {"model": "another"})
    write_eigenvectors(tmp_path / "c", tmp_path / "e")
    with pytest.raises(UserError, match="made with another model"):
        read_eigenvectors([tmp_path / "e"], EditableModel(random_network("llama"), byte_level))


def keys_of(model, facts, prefixes, layer, position):
    """Mean key of each fact at a layer, one prompt at a time through the plain network."""
    rows = []
    for fact in facts:
        prompts = [locate(model.tokenizer, fact, prefix) for prefix in prefixes]
        where = [prompt.position(position) for prompt in prompts]
        ids = [prompt.ids[: place + 1] for prompt, place in zip(prompts, where, strict=True)]
        rows.append(read(model.network, ids, layer, "mlp", where, inputs=True).mean(0))
    return torch.stack(rows, 1)


def test_the_history_of_every_region_grows_by_the_keys_of_the_edited_model(trained, facts, prefixes, covariance):
    """Both of JEEP's regions, each at its own position; a region without a history keeps nothing."""
    low, high = SETTINGS["jeep"]["low"], SETTINGS["jeep"]["high"]
    editor = load_editor("jeep", SETTINGS["jeep"] | {"low": low | {"history": True}, "high": high | {"history": True}})
    task = Task(facts[:2], prefixes, 2048, covariance=covariance)
    memory = editor.remember(trained, task)
    assert set(memory) == {"facts", "history.0.mlp", "history.1.mlp", "history.2.mlp"}
    places = {0: "subject_last", 1: "subject_last", 2: "prediction"}
    again = editor.remember(trained, Task(facts[2:5], prefixes, 2048, covariance=covariance, memory=memory))
    assert int(again["facts"]) == 5
    for layer, position in places.items():
        keys = keys_of(trained, facts[:5], prefixes, layer, position)
        torch.testing.assert_close(memory[f"history.{layer}.mlp"], keys[:, :2] @ keys[:, :2].T, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(again[f"history.{layer}.mlp"], keys @ keys.T, rtol=1e-3, atol=1e-4)
    assert load_editor("jeep", SETTINGS["jeep"]).remember(trained, task) == {}
    only_low = load_editor("jeep", SETTINGS["jeep"] | {"low": low | {"history": True}})
    assert set(only_low.remember(trained, task)) == {"facts", "history.0.mlp", "history.1.mlp"}


def test_history_protects_what_was_written(trained, facts, prefixes, covariance):
    """The batch before keeps more of its values where its keys are remembered."""
    lost = {}
    for history in (False, True):
        editor = editor_with(history=history)
        one = written(editor, trained, facts[:4], prefixes, covariance)
        with trained.edited(one):
            before = keys_of(trained, facts[:4], prefixes, 0, "subject_last")
            memory = editor.remember(trained, Task(facts[:4], prefixes, 2048, covariance=covariance))
            two = written(editor, trained, facts[4:8], prefixes, covariance, memory=memory)
        lost[history] = float((two[trained.parameter_name(0)] @ before).norm() / two[trained.parameter_name(0)].norm())
    assert lost[True] < 0.7 * lost[False]


def test_the_space_is_taken_anew_whenever_so_many_facts_are_full(trained, facts, prefixes, covariance):
    """Of (Σ kkᵀ/N + λC)/(λ + 1), N facts so far: at the fourth fact, not at the second, and not again at the sixth."""
    width = len(covariance[0, "mlp"])
    steep = torch.diag(torch.cat([torch.full((width // 2,), 1e-4), torch.full((width - width // 2,), 10.0)]))
    covariance = {where: steep for where in covariance}
    space = {"threshold": 1e-3, "refresh": 4}
    editor = editor_with("memit", prior=2.0, ridge=1.0, history=True, null_space=space)
    memory, bases = {}, []
    for first in (0, 2, 4):
        task = Task(facts[first : first + 2], prefixes, 2048, covariance=covariance, memory=memory)
        memory = editor.remember(trained, task)
        bases.append(memory.get("basis.0.mlp"))
    assert bases[0] is None
    assert bases[1] is bases[2]
    keys = keys_of(trained, facts[:4], prefixes, 0, "subject_last").double()
    mixed = (keys @ keys.T / 4 + 2 * steep.double()) / 3
    rank = int((torch.linalg.eigvalsh(mixed) < 1e-3).sum())
    assert rank < width // 2, "the facts' keys have left the space"
    assert bases[1].shape == (width, rank)
    overlap = torch.linalg.svdvals(low_space(mixed, rank).T @ bases[1].double())
    assert overlap.min() > 0.99, "the same space"
    task = Task(facts[6:8], prefixes, 2048, covariance=covariance, memory=memory)
    change = written(editor, trained, facts[6:8], prefixes, covariance, memory=memory)[trained.parameter_name(0)]
    assert (change - change @ bases[1] @ bases[1].T).norm() < 1e-3 * change.norm(), task.facts[0].case_id
