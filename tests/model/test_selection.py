"""Which records are used with a tokenizer and a metric, and what is said of the others."""

import copy
import json
import re

import pytest
from conftest import DATA
from samples import BAD, COUNTERFACT, GOOD, write
from tiny import random_network

from jeep.__main__ import main
from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import Fact
from jeep.model.bounds import Bounds
from jeep.model.editable import EditableModel
from jeep.model.selection import Asking, checked, select, sort_out


def test_what_joins_is_the_records_or_the_data_sets(tmp_path, byte_level):
    rows = [COUNTERFACT, COUNTERFACT | {"case_id": 8, "joiner": ""}]
    kept, _ = select(
        write(tmp_path, rows), "counterfact", "counterfact", Asking(byte_level, joiner=": "), None, "error"
    )
    assert [fact.joiner for fact in kept] == [": ", ""]
    assert [Fact.from_json(json.loads(json.dumps(fact.to_json()))) for fact in kept] == kept
    kept, _ = select(write(tmp_path, rows[:1]), "counterfact", "counterfact", Asking(byte_level), None, "error")
    assert kept[0].joiner is None
    assert "joiner" not in kept[0].to_json()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"joiner": 1}, "joiner is no text: 1"),
        (
            {"requested_rewrite": COUNTERFACT["requested_rewrite"] | {"target_new": {"str": " France"}}},
            "the new answer is the true one: ' France'",
        ),
        (
            {"requested_rewrite": COUNTERFACT["requested_rewrite"] | {"target_new": {"str": "Italy</s>"}}},
            "the special token </s> is written in an answer of",
        ),
        ({"paraphrase_prompts": ["<s> Where is Paris? In"]}, "the tokenizer adds the <s> that"),
    ],
)
def test_a_text_that_tokens_do_not_follow_is_refused(tmp_path, sentencepiece, change, reason):
    path = write(tmp_path, [COUNTERFACT | change])
    with pytest.raises(UserError, match=reason):
        select(path, "counterfact", "counterfact", Asking(sentencepiece), None, "error")


def test_a_token_across_the_end_of_the_edited_prompt_leaves_the_others(tmp_path, byte_level):
    bad = GOOD | {"case_id": "bad", "template": "{} and the city Par", "target_new": "is lies", "joiner": ""}
    kept, skipped = select(write(tmp_path, [bad, GOOD], "f.jsonl"), "jsonl", "zsre", Asking(byte_level), None, "skip")
    assert [fact.case_id for fact in kept] == ["good"]
    assert [row["case_id"] for row in skipped] == ["bad"]
    assert "no token ends where the prompt does" in skipped[0]["reason"]


def test_a_token_across_the_end_of_a_prompt_names_the_record(tmp_path, byte_level):
    rewrite = COUNTERFACT["requested_rewrite"] | {"target_new": {"str": "is lies"}}
    row = COUNTERFACT | {"joiner": "", "requested_rewrite": rewrite, "paraphrase_prompts": ["The city Par"]}
    with pytest.raises(UserError, match=r"record 7: no token ends where the prompt does \('The city Par\|is lies'\)"):
        select(write(tmp_path, [row]), "counterfact", "counterfact", Asking(byte_level), None, "error")


def test_on_invalid_error_stops_with_the_records_name(tmp_path, byte_level):
    path = write(tmp_path, [BAD, GOOD], "f.jsonl")
    with pytest.raises(UserError, match="record bad: empty subject"):
        select(path, "jsonl", "counterfact", Asking(byte_level), None, "error")


def test_on_invalid_skip_lists_the_record_with_its_reason(tmp_path, byte_level):
    path = write(tmp_path, [BAD, GOOD, GOOD, GOOD | {"case_id": "x", "target_true": None}], "f.jsonl")
    kept, skipped = select(path, "jsonl", "counterfact", Asking(byte_level), None, "skip")
    assert [fact.case_id for fact in kept] == ["good"]
    assert [(row["case_id"], row["reason"][:20]) for row in skipped] == [
        ("bad", "empty subject"),
        ("good", "its case id occurs t"),
        ("x", "no target_true, whic"),
    ]


def test_too_few_usable_facts_are_an_error_behind_the_list_of_the_others(tmp_path, byte_level, capsys):
    EditableModel(random_network("gptj"), byte_level).save(tmp_path / "model")
    path = write(tmp_path, [GOOD, GOOD | {"case_id": "bad", "subject": " "}], "f.jsonl")
    command = ["facts", "--input", str(path), "--format", "jsonl", "--metrics", "counterfact", "--limit", "2"]
    command += [
        "--model",
        str(tmp_path / "model"),
        "--on-invalid",
        "skip",
        "--skipped",
        str(tmp_path / "skipped.jsonl"),
    ]
    assert main([*command, "--out", str(tmp_path / "out.jsonl")]) == 2
    complaint = "1 usable facts, 2 are needed (1 skipped, such as record bad: empty subject)"
    assert complaint in capsys.readouterr().err
    assert list(read_jsonl(tmp_path / "skipped.jsonl")) == [{"case_id": "bad", "reason": "empty subject"}]
    assert not (tmp_path / "out.jsonl").exists()


def test_facts_that_contradict_one_another_are_named(tmp_path, byte_level, caplog):
    EditableModel(random_network("gptj"), byte_level).save(tmp_path / "model")
    path = write(tmp_path, [GOOD, GOOD | {"case_id": "other", "target_new": "Peru"}], "f.jsonl")
    command = ["facts", "--input", str(path), "--format", "jsonl", "--metrics", "counterfact"]
    command += ["--model", str(tmp_path / "model"), "--skipped", str(tmp_path / "s"), "--out", str(tmp_path / "o")]
    assert main(command) == 0
    assert f"record other: contradicted by record {GOOD['case_id']}" in caplog.text


def test_the_first_facts_are_taken(tmp_path, byte_level):
    path = write(tmp_path, [GOOD | {"case_id": str(n)} for n in range(5)], "f.jsonl")
    kept, _ = select(path, "jsonl", "counterfact", Asking(byte_level), 2, "error")
    assert [fact.case_id for fact in kept] == ["0", "1"]
    assert isinstance(kept[0], Fact)


# The recorded files: what a reader meets in each format.

RECORDS = DATA / "records"
FOUND = {
    "counterfact.json": (
        "counterfact",
        ["0", "1", "5", "6"],
        {
            "2": "the prompt needs one {} for the subject",
            "3": "the prompt needs one {} for the subject",
            "4": "empty subject",
            "7": "empty target_new",
            "8": "missing field 'paraphrase_prompts'",
            "0": "its case id occurs twice",
            "10": "not an object: 'not a record'",
        },
    ),
    "zsre.json": (
        "zsre",
        ["0", "1", "4"],
        {
            "2": "the subject 'Ann Lee' is not in its prompt",
            "3": "no answer",
            "5": "empty subject",
            "6": "empty unrelated prompt or answer",
            "7": "empty target_new",
            "8": "missing field 'src'",
        },
    ),
    "facts.jsonl": (
        "jsonl",
        ["a", "1"],
        {
            "7": "the prompt needs one {} for the subject",
            "8": "the prompt needs one {} for the subject",
            "9": "no target_true",
            "10": "unknown field 'paraphrase'",
            "11": "missing field 'answer'",
            "a": "its case id occurs twice",
        },
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_can_be_used_is_used_and_the_rest_is_named_with_its_reason(name, byte_level):
    form, usable, reasons = FOUND[name]
    metrics = "zsre" if form == "zsre" else "counterfact"
    kept, skipped = select(RECORDS / name, form, metrics, Asking(byte_level), None, "skip")
    assert [fact.case_id for fact in kept] == usable
    assert [record["case_id"] for record in skipped] == list(reasons)
    for record, reason in zip(skipped, reasons.values(), strict=True):
        assert reason in record["reason"]
    with pytest.raises(UserError, match=f"{name}: record {next(iter(reasons))}: "):
        select(RECORDS / name, form, metrics, Asking(byte_level), None, "error")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"template": "{}" + "xq" * 30}, r"a text of \d+ tokens: the model takes 40"),
        ({"template": "{}" + "xq" * 8}, None),
        ({"template": "{}" + "xq" * 12}, r"a text of 4\d tokens: the model takes 40"),  # with a prefix
        ({"paraphrases": ["Lyon" + "xq" * 12]}, None),
        ({"paraphrases": ["Lyon" + "xq" * 30]}, r"a text of \d+ tokens: the model takes 40"),
        ({"paraphrases": ["Lyon <new> in"]}, "token VOCABULARY has no embedding: the model has VOCABULARY"),
    ],
)
def test_what_the_model_does_not_take_is_named(byte_level, change, reason):
    tokenizer = copy.deepcopy(byte_level)
    added = tokenizer.add_tokens(["<new>"])
    asking = Asking(tokenizer, Bounds(positions=40, embeddings=len(tokenizer) - added))
    _, refused = sort_out(checked([Fact.from_json(GOOD | change)], None, asking))
    if reason is None:
        assert not refused
    else:
        assert re.fullmatch(reason.replace("VOCABULARY", str(asking.bounds.embeddings)), refused[0]["reason"])


def test_a_models_bounds_are_its_configurations(byte_level, tmp_path):
    model = EditableModel(random_network("gptj"), byte_level)
    model.save(tmp_path)
    assert Bounds.in_folder(tmp_path) == model.bounds
    assert model.bounds.embeddings == model.network.get_input_embeddings().weight.shape[0]
    with pytest.raises(UserError, match="no-such-folder"):
        Bounds.in_folder(tmp_path / "no-such-folder")


def test_a_text_that_the_model_does_not_take_is_no_index_error(byte_level):
    model = EditableModel(random_network("gpt2"), byte_level)
    with pytest.raises(UserError, match=f"the model takes {model.bounds.positions}"):
        model.pack([[1] * (model.bounds.positions + 1)])
    with pytest.raises(UserError, match=f"the model takes {model.bounds.positions}"):
        model.pack([[1]], starts=[model.bounds.positions])
    with pytest.raises(UserError, match="token 99999 has no embedding"):
        model.pack([[1, 99999]])
