"""What the Python interface is given: facts in many forms, a chat, and what is refused with the model as it was."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from own_model import HASTY, SETTINGS, cache, edited, model, same, text, weights  # noqa: F401 (fixtures)

import jeep
from jeep.common.errors import UserError
from jeep.model import architectures
from jeep.model.editable import EditableModel
from jeep.vectors import targets


def test_facts_come_in_many_forms(model, facts, text, tmp_path):
    easy = {
        "prompt": facts[0].prompt,
        "subject": facts[0].subject,
        "target_new": facts[0].target_new,
        "ground_truth": [facts[0].target_true],
        "rephrase_prompt": facts[0].paraphrases[0],
        "locality": {"neighborhood": {"prompt": [q.prompt for q in facts[0].unrelated][:1], "ground_truth": ["x"]}},
    }
    own = facts[0].to_json()
    (tmp_path / "facts.jsonl").write_text(json.dumps(own) + "\n")
    arrays = pd.DataFrame([own]).assign(paraphrases=[np.array(own["paraphrases"])])
    forms = [
        facts[0],
        [facts[0]],
        [easy],
        pd.DataFrame([own]),
        arrays,
        tmp_path / "facts.jsonl",
        str(tmp_path / "facts.jsonl"),
    ]
    for form in forms:
        edit = jeep.edit(model, form, settings=HASTY, text=text, tokens=12000)
        (read,) = edit.facts
        assert (read.prompt, read.target_new, read.target_true) == (
            facts[0].prompt,
            easy["target_new"],
            facts[0].target_true,
        )
        edit.undo()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda model, facts: jeep.edit(model, []), "no facts"),
        (
            lambda model, facts: jeep.edit(model, [{"subject": "Ada", "template": "no place", "target_new": "x"}]),
            "needs one",
        ),
        (lambda model, facts: jeep.edit(model, facts[:1], "mend"), "no settings without a search"),
        (lambda model, facts: jeep.edit(model, facts[:1], settings={"lo": {}}), "settings of jeep: lo: unknown key"),
        (
            lambda model, facts: jeep.edit(model, facts[:1], settings={"high": {"layers": [7]}}),
            "layer 7 of a model that has 4",
        ),
        (lambda model, facts: jeep.load("no/such/model/anywhere"), "no such folder"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_the_model_as_it_was(call, complaint, model, facts):
    before = weights(model)
    with pytest.raises(UserError, match=complaint):
        call(model, facts)
    assert same(before, weights(model))
    assert model.edits == []


def test_an_edit_behind_which_the_model_overflows_is_refused_and_undone(model, facts, text):
    before = weights(model)
    with pytest.raises(UserError, match="the edited model answers NaN"):
        settings = {"learning_rate": 1e20, "weight_decay": 0.0, "epochs": 1}
        jeep.edit(model, facts[:3], "ft-wd", settings=settings, text=text)
    assert same(before, weights(model))
    assert model.edits == []


def test_a_network_that_is_refused_is_as_it_was(model, monkeypatch):
    network = model.network.train().requires_grad_(True)
    row = replace(architectures.ARCHITECTURES["llama"], logit_scale="hidden_size")
    monkeypatch.setitem(architectures.ARCHITECTURES, "llama", row)
    with pytest.raises(UserError, match="run block by block"):
        jeep.wrap(network, model.tokenizer)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.eval().requires_grad_(False)


def test_a_fact_that_did_not_take_says_why(model, facts, text):
    """Contradicted by another; a target vector that a small clamp cannot reach; and records that are left out."""
    first = facts[0].to_json()
    other = first | {"case_id": "other", "target_new": facts[0].target_true}
    edit = jeep.edit(model, [first, other, {"case_id": "bad"}], settings=SETTINGS, text=text, on_invalid="skip")
    rows = edit.outcome[(edit.outcome.kind == "edited") & ~edit.outcome.ok].set_index("case_id")
    assert set(rows.why) <= {"contradicted by fact other", f"contradicted by fact {facts[0].case_id}"}
    assert len(rows) >= 1
    assert [row["case_id"] for row in edit.refused] == ["bad"]
    edit.undo()
    weak = {"low": SETTINGS["low"] | {"clamp": 0.01}, "high": SETTINGS["high"] | {"clamp": 0.01}}
    (why,) = jeep.edit(model, facts[:1], settings=weak, text=text).outcome.query("kind == 'edited'").why
    assert why.startswith("its target vector was not reached (probability 0.")


def test_a_vector_that_is_lost_within_the_edit_is_named_as_the_reason(model, facts, text, monkeypatch):
    """ROME's, which are optimised one after the other."""
    optimize = targets.optimize_facts

    def breaks(*given):
        (found,) = optimize(*given)
        return [replace(found, values=found.values * np.nan) if found.case_id == facts[1].case_id else found]

    monkeypatch.setattr(targets, "optimize_facts", breaks)
    edit = jeep.edit(model, facts[:2], method="rome", settings={"layer": 1, "optimization": {"steps": 3}}, text=text)
    (why,) = edit.outcome.query("kind == 'edited' and case_id == @facts[1].case_id").why
    assert why == "its optimisation within the edit did not stay finite"
    edit.undo()


def test_a_chat_is_edited_as_a_chat(model, facts, text, tmp_path):
    tokenizer = copy.deepcopy(model.tokenizer)
    turn = "{% if turn.role == 'user' %}I like it. {{ turn.content }}{% else %} {{ turn.content }}{% endif %}"
    tokenizer.chat_template = f"{{% for turn in messages %}}{turn}{{% endfor %}}"
    model = EditableModel(model.network, tokenizer)
    edit = edited(model, facts, text, chat=True)
    asked = edit.outcome.query("kind == 'edited'")
    assert list(asked["prompt"]) == [f"I like it. {fact.prompt} " for fact in facts[:4]]
    assert asked["ok"].all()
    with pytest.raises(UserError, match="a joiner of its own"):
        edited(model, [replace(facts[0], joiner=" ")], text, chat=True)
    edit.save(tmp_path / "edited")
    again = [jeep.Fact.from_json(row) for row in json.loads((tmp_path / "edited" / "jeep.json").read_text())["edits"]]
    assert again == edit.facts
    edit.undo()
