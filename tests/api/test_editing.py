"""The Python interface on tiny models that know the cities: facts in, an edit out, and everything back."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TEXT, train_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

import jeep
from jeep.api import editing, statistics
from jeep.common.errors import UserError
from jeep.data.choices import Choice
from jeep.measure.drift import held_out_windows
from jeep.model import architectures
from jeep.model.editable import EditableModel
from jeep.model.windows import windows

SETTINGS = {
    "low": {"layers": [0], "clamp": 2.0, "prior": 0.2},
    "high": {"layers": [2], "clamp": 2.0, "prior": 0.2},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An assets cache of the test's own."""
    folder = tmp_path_factory.mktemp("assets")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(folder))
    return folder


@pytest.fixture
def text():
    """Every byte occurs, so that the keys of the lowest layer, which depend on the token alone, span their space."""
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(33, 0x250, (20,), generator=generator) for _ in range(600)]
    return ["".join(map(chr, row.tolist())) for row in codes] + TEXT


@pytest.fixture
def model(byte_level):
    """A tiny LLaMA; blocks of the other kind have their tests in `editors`."""
    trained = train_tiny("llama", byte_level)
    yield trained
    while trained.edits:
        trained.edits[-1].undo()


HASTY = SETTINGS | {"optimization": {"steps": 2}}
"""Where it does not matter whether the facts take."""


def weights(model):
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def edited(model, facts, text, **more):
    return jeep.edit(model, facts[:4], **{"settings": SETTINGS, "text": text, "tokens": 12000} | more)


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
