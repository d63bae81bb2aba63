"""A shard of target vectors on disk: whole, in order, and resumed from what it had."""

import copy
from dataclasses import replace

import pytest
import torch

from jeep.common.errors import UserError
from jeep.common.settings import Optimization, Site, TargetSpec
from jeep.common.storage import read_json
from jeep.model.editable import EditableModel
from jeep.model.progress import fingerprint
from jeep.vectors import files as target_files
from jeep.vectors.files import optimize_shard, read_targets

SITE = Site(layer=1, place="output", position="subject_last", clamp=1.0, weight_decay=0.0)
SPEC = TargetSpec(sites=(SITE,), optimization=Optimization(steps=3))


def run(trained, facts, prefixes, out, spec=SPEC):
    optimize_shard(trained, facts, prefixes, spec, 40, out, out.with_suffix(".json"))
    return read_targets([out], trained, spec, facts)


@pytest.fixture
def interrupted(trained, facts, prefixes, tmp_path, monkeypatch):
    """A shard whose job died after its first batch; returns the file and the list of later requests."""
    asked = []
    original = target_files.optimize

    def dies(model, requests, *rest):
        asked.append([request.case_id for request in requests])
        for number, batch in enumerate(original(model, requests, *rest)):
            if number == 1 and len(asked) == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(target_files, "optimize", dies)
    out = tmp_path / "0.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(trained, facts[:5], prefixes, out)
    return out, asked


def test_a_killed_shard_goes_on_from_its_finished_batches(interrupted, trained, facts, prefixes, tmp_path):
    out, asked = interrupted
    assert not out.exists()
    resumed = run(trained, facts[:5], prefixes, out)
    assert len(asked[0]) == 5
    assert 0 < len(asked[1]) < 5
    whole = run(trained, facts[:5], prefixes, tmp_path / "whole.safetensors")
    assert list(resumed) == list(whole) == [fact.case_id for fact in facts[:5]]
    assert all(torch.equal(resumed[case].values, whole[case].values) for case in whole)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["0.safetensors", "whole.safetensors"]
    assert not list(tmp_path.glob(".*"))


def test_vectors_are_read_for_what_they_were_made_for(trained, facts, prefixes, tmp_path):
    out = tmp_path / "0.safetensors"
    found = run(trained, facts[:3], prefixes, out)
    assert list(found) == [fact.case_id for fact in facts[:3]]
    with pytest.raises(UserError, match=f"no target vectors of 1 facts, such as record {facts[3].case_id}"):
        read_targets([out], trained, SPEC, facts[:4])
    other = TargetSpec(sites=(SITE,), optimization=Optimization(steps=4))
    with pytest.raises(UserError, match=r"0\.safetensors: target vectors of another method, or of other settings"):
        read_targets([out], trained, other, facts[:3])
    name = trained.parameter_name(0)
    with trained.scratch([name]):
        trained.add_({name: torch.full_like(trained.network.get_parameter(name), 1e-3)})
        with pytest.raises(UserError, match="made with another model"):
            read_targets([out], trained, SPEC, facts[:3])


def test_case_ids_need_be_no_file_names(trained, facts, prefixes, tmp_path):
    named = [replace(fact, case_id=name) for fact, name in zip(facts, ["../a", "b/c", "d" * 300], strict=False)]
    assert list(run(trained, named, prefixes, tmp_path / "0.safetensors")) == [fact.case_id for fact in named]
    assert [path.name for path in tmp_path.iterdir()] != []


def test_more_facts_take_only_their_own_time(trained, facts, prefixes, tmp_path, monkeypatch):
    """Three facts, then five; then the same five with another answer for one, under other prefixes, with other code."""
    asked = []
    original = target_files.optimize
    monkeypatch.setattr(
        target_files,
        "optimize",
        lambda model, requests, *rest: asked.append([r.case_id for r in requests]) or original(model, requests, *rest),
    )
    out = tmp_path / "0.safetensors"
    three = run(trained, facts[:3], prefixes, out)
    five = run(trained, facts[:5], prefixes, out)
    assert asked[1] == [fact.case_id for fact in facts[3:5]]
    seconds = read_json(out.with_suffix(".json"))
    assert list(seconds["of"]) == [fact.case_id for fact in facts[:5]]
    assert seconds["kept"] == pytest.approx(sum(seconds["of"][case] for case in three))
    assert min(seconds["of"].values()) > 0
    assert all(torch.equal(five[case].values, three[case].values) for case in three)
    changed = [replace(facts[0], target_new=facts[0].target_true), *facts[1:5]]
    run(trained, changed, prefixes, out)
    assert asked[2] == [facts[0].case_id]
    run(trained, changed, prefixes[:2], out)
    assert len(asked[3]) == 5
    monkeypatch.setattr(target_files, "code_digest", lambda *_: "other")
    run(trained, changed, prefixes[:2], out)
    assert len(asked[4]) == 5
    out.write_bytes(out.read_bytes()[:100])
    assert list(run(trained, changed, prefixes[:2], out)) == [fact.case_id for fact in facts[:5]]
    assert len(asked[5]) == 5, "a broken file is made anew"


def test_a_fingerprint_is_of_the_weights_and_of_the_content(trained):
    """A checkpoint of another model, of the same name and shapes, is not gone on from."""
    model = EditableModel(copy.deepcopy(trained.network), trained.tokenizer)
    same, other = fingerprint(trained, "a"), fingerprint(trained, "b")
    assert same == fingerprint(model, "a") != other
    for name, parameter in model.network.named_parameters():
        with model.scratch([name]):
            model.add_({name: torch.full_like(parameter, 1e-3)})
            assert fingerprint(model, "a") != same, name
    assert fingerprint(model, "a") == same
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert fingerprint(model, "a") == same, "as on a machine with more cores"
    finally:
        torch.set_num_threads(threads)


def test_finished_batches_of_other_settings_are_not_used(interrupted, trained, facts, prefixes):
    out, asked = interrupted
    other = SPEC.model_copy(update={"optimization": Optimization(steps=2)})
    run(trained, facts[:5], prefixes, out, other)
    assert len(asked[1]) == 5


def test_a_fact_that_leaves_the_finite_numbers_is_named_and_left_out(
    trained, facts, prefixes, tmp_path, monkeypatch, caplog
):
    original = target_files.optimize

    def spoils(*arguments):
        for batch in original(*arguments):
            for target in batch:
                if target.case_id == "city-1":
                    target.losses[-1] = float("nan")
            yield batch

    monkeypatch.setattr(target_files, "optimize", spoils)
    found = run(trained, facts[:3], prefixes, tmp_path / "0.safetensors")
    assert list(found) == ["city-0", "city-2"]
    assert "fact city-1: the loss did not stay finite" in caplog.text


def test_traces_survive(trained, facts, prefixes, tmp_path):
    found = run(trained, facts[:2], prefixes, tmp_path / "0.safetensors")
    assert all(len(target.losses) == len(target.probabilities) == 3 for target in found.values())
    assert all(target.losses[-1] < target.losses[0] for target in found.values())
