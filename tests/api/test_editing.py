"""The Python interface on tiny models that know the cities: facts in, an edit out, and everything back."""

import json

import numpy as np
import pytest
import torch
from own_model import HASTY, SETTINGS, cache, edited, model, same, text, weights  # noqa: F401 (fixtures)
from transformers import AutoModelForCausalLM, AutoTokenizer

import jeep
from jeep.api import editing, statistics
from jeep.common.errors import UserError
from jeep.data.choices import Choice
from jeep.measure.drift import held_out_windows
from jeep.model.windows import windows


def test_the_outcome_tells_of_every_prompt_before_and_after(model, facts, text):
    edit = edited(model, facts, text)
    table = edit.outcome
    prompts = [p for fact in facts[:4] for p in (fact.prompt, *fact.paraphrases, *(q.prompt for q in fact.unrelated))]
    assert list(table.prompt) == prompts
    own = table[table.kind == "edited"].set_index("case_id")
    assert not own.said_before.any()
    assert own.ok.all()
    assert own.said_after.all()
    assert (own.p_after > own.p_before).all()
    assert set(own.why) == {""}
    assert "4 of 4 facts took (0 before)" in str(edit)
    kept = table[table.kind == "unrelated"]
    assert (kept.ok == (kept.said_after | ~kept.said_before)).all()


def test_what_it_says_is_what_greedy_decoding_gives(model, facts, text):
    """Against transformers' own generation on the network that was wrapped, edited."""
    edit = edited(model, facts, text)
    for row in edit.outcome.itertuples():
        ids = model.tokenizer(row.prompt, return_tensors="pt").input_ids
        found = model.network.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert model.tokenizer.decode(found).strip().startswith(row.answer) == row.said_after


def test_an_edit_can_be_undone_applied_again_and_for_a_while(model, facts, text):
    before = weights(model)
    edit = edited(model, facts, text)
    after = weights(model)
    assert not same(before, after)
    edit.undo()
    assert same(before, weights(model))
    edit.undo()
    with edit:
        assert same(after, weights(model))
    assert same(before, weights(model))
    with pytest.raises(RuntimeError), edit:
        raise RuntimeError
    assert same(before, weights(model))
    edit.apply()
    later = edited(model, facts[4:], text)
    with pytest.raises(UserError, match="undo that one first"):
        edit.undo()
    later.undo()
    edit.undo()
    assert same(before, weights(model))


def test_a_wrapped_network_is_given_back_as_it_came(model, facts, text):
    network = model.network
    network.train()
    norm = next(name for name, _ in network.named_parameters() if "norm" in name or "ln_f" in name)
    network.get_parameter(norm).requires_grad_(True)
    before = weights(model)
    with jeep.wrap(network, model.tokenizer) as wrapped:
        edited(wrapped, facts, text)
        assert not same(before, weights(wrapped))
        assert not network.training
    assert same(before, weights(model))
    assert network.training
    assert [name for name, p in network.named_parameters() if p.requires_grad] == [norm]
    network.eval().requires_grad_(False)


def test_a_saved_edit_is_an_ordinary_checkpoint_that_says_what_was_done(model, facts, text, tmp_path, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ messages[0].content }}")
    model.save(tmp_path / "own")
    (tmp_path / "own/LICENSE").write_text("free")
    (tmp_path / "own/pytorch_model.bin").write_text("other weights")
    generation = json.loads((tmp_path / "own/generation_config.json").read_text()) | {"temperature": 0.3}
    (tmp_path / "own/generation_config.json").write_text(json.dumps(generation))  # without do_sample: many hub models
    model = jeep.load(tmp_path / "own", device="cpu")
    edit = edited(model, facts, text)
    edit.undo()
    before = weights(model)
    edit.save(tmp_path / "edited")
    assert same(before, weights(model))
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "edited")
    for fact in facts[:4]:
        ids = tokenizer(fact.prompt, return_tensors="pt").input_ids
        found = network.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert tokenizer.decode(found).strip().startswith(fact.target_new)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "hello"
    assert json.loads((tmp_path / "edited/generation_config.json").read_text()) == generation
    assert (tmp_path / "edited/LICENSE").read_text() == "free"
    assert not (tmp_path / "edited/pytorch_model.bin").exists()
    about = json.loads((tmp_path / "edited/jeep.json").read_text())
    assert about["method"] == "jeep"
    assert about["settings"]["low"] == {"spread": "sqrt", **SETTINGS["low"]}
    assert [row["case_id"] for row in about["edits"]] == [fact.case_id for fact in facts[:4]]
    assert about["took"] == 4


OTHERS = [
    {"subject": name, "template": "{} is in", "relation": "country", "target_new": "x"} for name in ("Oslo", "Rome")
]


def test_what_reaches_neighbours_is_told_and_may_be_spared(model, facts, text):
    """Rome stands in a prompt that measures: Oslo is the neighbour."""
    plain, spared = (
        edited(model, facts, text, neighbours=OTHERS, settings=SETTINGS | {"high": SETTINGS["high"] | high})
        for high in ({}, {"neighbours": {"form": "mean"}})
    )
    assert [step["position"] for step in plain.trace] == ["subject_last", "prediction"]
    assert spared.trace[1]["leak"] < 1e-3 < plain.trace[1]["leak"]
    spared.undo()
    plain.undo()


def test_neighbours_that_are_wanted_are_asked_for_before_anything_is_computed(model, facts, text, monkeypatch):
    monkeypatch.setattr(editing, "optimize_facts", lambda *_: pytest.fail("hours are gone"))
    sparing = SETTINGS | {"high": SETTINGS["high"] | {"neighbours": {"form": "mean"}}}
    with pytest.raises(UserError, match="a region spares neighbours, and none are given"):
        edited(model, facts, text, settings=sparing)
    with pytest.raises(UserError, match="no subject is left for neighbours"):
        edited(model, facts, text, settings=sparing, neighbours=OTHERS[1:])


def test_covariances_are_estimated_once_and_kept(model, facts, text, cache, monkeypatch):
    passes = []
    original = statistics.estimate
    monkeypatch.setattr(statistics, "estimate", lambda *a: passes.append(a[2]) or original(*a))
    edited(model, facts, text, settings=HASTY).undo()
    edited(model, facts, text, settings=HASTY).undo()
    assert passes == [[(0, "mlp"), (2, "mlp")]]
    first = edited(model, facts, text, settings=HASTY | {"low": HASTY["low"] | {"layers": [1]}})
    assert passes[1:] == [[(1, "mlp")]]
    edited(model, facts[4:], text, settings=HASTY)
    assert len(passes) == 2, "of the model before its first edit, whatever is in force"
    assert first.in_force
    edited(model, facts[4:], text[:590], settings=HASTY).undo()
    assert len(passes) == 3
    assert statistics.cache_folder() == cache / "jeep"


@pytest.mark.parametrize("method", ["memit", "pmet", "rome", "ft-wd"])
def test_every_method_without_training_has_settings(method, model, facts, text):
    edit = jeep.edit(model, facts[:2], method, text=text, tokens=12000)
    assert edit.outcome.query("kind == 'edited'").p_after.sum() > edit.outcome.query("kind == 'edited'").p_before.sum()


def test_the_probe_says_where_jeep_writes(model, facts, text, monkeypatch):
    asked = []
    monkeypatch.setattr(
        editing, "propose_regions", lambda found, **sizes: asked.append(found) or {"low": [1], "high": [3]}
    )
    edit = edited(model, facts, text, settings={"low": {"clamp": 2.0}}, regions="probe")
    assert set(asked[0]["case_id"]) == {fact.case_id for fact in facts[:4]}
    assert (edit.settings["low"]["layers"], edit.settings["high"]["layers"]) == ([1], [3])
    assert edit.settings["low"]["clamp"] == 2.0
    edit.undo()
    monkeypatch.setattr(editing, "propose_regions", lambda found, **sizes: {"low": [1], "high": []})
    with pytest.raises(UserError, match="the probe proposes no high region on these 4 facts"):
        edited(model, facts, text, regions="probe")


def test_what_else_an_edit_changes_is_asked_of_the_model_before_and_after(model, facts, text, tmp_path):
    """The text is what the covariances have left; the plain way is transformers' own loss."""
    edit = edited(model, facts, text, tokens=2000)
    sums = [Choice("1 + 1 =", ("2", "3"), 0), Choice("1 + 2 =", ("2", "3"), 1)]
    table = edit.damage(tokens=1000, tasks={"sums": sums}).set_index("metric")
    assert edit.in_force
    assert table.loc["kl", "difference"] > 0
    assert table.loc["kl", "low"] <= table.loc["kl", "difference"] <= table.loc["kl", "high"]
    assert table.loc["ES_p", "after"] > table.loc["ES_p", "before"]
    assert table.loc["LS_g", "before"] == 100
    assert table.loc["sums", "units"] == 2
    held_out = held_out_windows(model, edit.sample, 1000, 128)
    with torch.no_grad():
        after = [float(model.network(torch.tensor([w]), labels=torch.tensor([w])).loss) for w in held_out]
    assert table.loc["nll", "after"] == pytest.approx(np.mean(after), rel=1e-3)
    page = edit.report(tmp_path / "page.html").read_text()
    assert "What else has changed" in page
    assert "sums" in page
    edit.undo()
    assert edit.damage(tokens=1000).set_index("metric").loc["kl", "difference"] == pytest.approx(
        table.loc["kl", "difference"], rel=1e-4
    )
    assert not edit.in_force


def test_text_of_ones_own_is_read_from_its_beginning(model, facts, text):
    edit = edited(model, facts, text, tokens=2000)
    own = ["Paris is a city in France. " * 20]
    table = edit.damage(own, tokens=500).set_index("metric")
    window = windows(model.tokenizer, own, min(128, model.positions), 500)
    assert table.loc["kl", "units"] == len(window)
    with pytest.raises(UserError, match="window"):
        edit.damage(["Too short."])
    assert edit.in_force
