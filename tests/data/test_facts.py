"""Readers and what they say of bad records and bad files."""

import json
import re

import pytest
from conftest import DATA

from jeep.__main__ import main
from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import Fact, InvalidFact, load_facts
from jeep.data.formats import read_facts
from jeep.model.selection import select

COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} lies in",
        "relation_id": "P17",
        "subject": "Paris",
        "target_new": {"str": "Italy"},
        "target_true": {"str": "France"},
    },
    "paraphrase_prompts": ["Where is Paris? In"],
    "neighborhood_prompts": ["Lyon lies in"],
}
ZSRE = {
    "subject": "Ann",
    "src": "Who is Annie's friend Ann?",
    "rephrase": "Ann is whose friend?",
    "answers": ["Bob", "Rob"],
    "loc": "nq question: who sang",
    "loc_ans": "Cher",
}


def write(tmp_path, rows, name="facts.json"):
    path = tmp_path / name
    lines = name.endswith("jsonl")
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path


def only(tmp_path, row, form):
    (fact,) = read_facts(write(tmp_path, [row], "f.jsonl" if form == "jsonl" else "f.json"), form)
    return fact


def test_counterfact(tmp_path):
    fact = only(tmp_path, COUNTERFACT, "counterfact")
    assert (fact.case_id, fact.prompt, fact.target_new, fact.target_true) == (
        "7",
        "Paris lies in",
        "Italy",
        "France",
    )
    assert [(q.prompt, q.answer) for q in fact.unrelated] == [("Lyon lies in", "France")]


def test_zsre_takes_the_subject_as_a_whole_word(tmp_path):
    fact = only(tmp_path, ZSRE, "zsre")
    assert fact.template == "Who is Annie's friend {}?"
    assert fact.target_new == "Bob"
    assert (fact.unrelated[0].prompt, fact.unrelated[0].answer) == ("nq question: who sang?", "Cher")


EASYEDIT = {"subject": "Ann", "prompt": "Ann lives in", "target_new": "Rome"}


@pytest.mark.parametrize(
    ("more", "field", "value"),
    [
        ({"ground_truth": ["Bonn"]}, "target_true", "Bonn"),
        ({"ground_truth": None}, "target_true", None),
        ({"rephrase_prompt": "Ann's home is in"}, "paraphrases", ("Ann's home is in",)),
        ({"rephrase": ["Home of Ann:", "Ann's town:"]}, "paraphrases", ("Home of Ann:", "Ann's town:")),
        ({"locality_prompt": "Bob is", "locality_ground_truth": "old"}, "unrelated", (("Bob is", "old"),)),
        (
            {"locality": {"Forgetfulness": [{"prompt": "Ann was", "ground_truth": "shy"}]}},
            "unrelated",
            (("Ann was", "shy"),),
        ),
        (
            {
                "locality": {
                    "Relation_Specificity": [{"prompt": "Ann is", "ground_truth": [["a poet", "poet"], ["old"]]}]
                }
            },
            "unrelated",
            (("Ann is", "a poet"),),
        ),
        (
            {
                "locality": {
                    "neighborhood": {"prompt": ["Bob is", "Cy is"], "ground_truth": ["old", ["young", "a boy"]]}
                }
            },
            "unrelated",
            (("Bob is", "old"), ("Cy is", "young")),
        ),
        ({"locality": {}, "portability": {"Reasoning": [{"prompt": "x", "ground_truth": "y"}]}}, "unrelated", ()),
    ],
)
def test_the_names_of_easyedit_and_of_knowedit(tmp_path, more, field, value):
    """Its files write answers as a text, a list, or a list of lists of names."""
    fact = only(tmp_path, EASYEDIT | more, "easyedit")
    assert (fact.template, fact.target_new) == ("{} lives in", "Rome")
    found = getattr(fact, field)
    assert (tuple((q.prompt, q.answer) for q in found) if field == "unrelated" else found) == value


def test_knowedits_wikibio(tmp_path):
    row = {"concept": "ann lee", "text": "A passage about ann lee. Ann Lee was a poet.", "labels": "She lived in Rome."}
    fact = only(tmp_path, row, "easyedit")
    assert (fact.template, fact.target_new) == ("A passage about {}. Ann Lee was a poet.", "She lived in Rome.")


@pytest.mark.parametrize(
    ("form", "row", "change", "reason"),
    [
        ("zsre", ZSRE, {"subject": "Eve"}, "subject 'Eve' is not in its prompt"),
        ("zsre", ZSRE, {"answers": []}, "no answer"),
        ("zsre", ZSRE, {"answers": [""]}, "empty target_new"),
        ("zsre", ZSRE, {"loc_ans": " "}, "empty unrelated prompt or answer"),
        ("counterfact", COUNTERFACT, {"paraphrase_prompts": [""]}, "empty paraphrase"),
        ("jsonl", {"case_id": 1, "subject": "A", "template": "A is", "target_new": "b"}, {}, "needs one {}"),
        ("jsonl", {"case_id": 1, "subject": "A", "template": "{} {}", "target_new": "b"}, {}, "needs one {}"),
        ("jsonl", {"case_id": 1, "subject": "A", "template": "{} is"}, {}, "target_new"),
        ("jsonl", {"case_id": 1, "subject": "A", "template": "{}", "target_new": "b", "x": 1}, {}, "'x'"),
    ],
)
def test_a_bad_record_says_which_and_why(tmp_path, form, row, change, reason):
    fact = only(tmp_path, row | change, form)
    assert isinstance(fact, InvalidFact)
    assert reason in str(fact)
    assert str(fact).startswith("record ")
    assert "\n" not in str(fact)


def test_what_joins_is_the_records_or_the_data_sets(tmp_path, byte_level):
    rows = [COUNTERFACT, COUNTERFACT | {"case_id": 8, "joiner": ""}]
    kept, _ = select(write(tmp_path, rows), "counterfact", "counterfact", byte_level, None, "error", ": ")
    assert [fact.joiner for fact in kept] == [": ", ""]
    assert [Fact.from_json(json.loads(json.dumps(fact.to_json()))) for fact in kept] == kept
    kept, _ = select(write(tmp_path, rows[:1]), "counterfact", "counterfact", byte_level, None, "error")
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
        select(path, "counterfact", "counterfact", sentencepiece, None, "error")


def test_a_token_across_the_end_of_a_prompt_names_the_record(tmp_path, byte_level):
    rewrite = COUNTERFACT["requested_rewrite"] | {"target_new": {"str": "is lies"}}
    row = COUNTERFACT | {"joiner": "", "requested_rewrite": rewrite, "paraphrase_prompts": ["The city Par"]}
    with pytest.raises(UserError, match=r"record 7: no token ends where the prompt does \('The city Par\|is lies'\)"):
        select(write(tmp_path, [row]), "counterfact", "counterfact", byte_level, None, "error")


def test_a_missing_field_is_named(tmp_path):
    row = {key: value for key, value in COUNTERFACT.items() if key != "paraphrase_prompts"}
    assert str(only(tmp_path, row, "counterfact")) == "record 7: missing field 'paraphrase_prompts'"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [('[{"case_id": 1', "not valid JSON"), ('{"a": 1}', "expected a JSON list of records, found dict")],
)
def test_a_bad_file_is_one_line(tmp_path, content, complaint):
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(UserError, match=complaint) as error:
        list(read_facts(path, "counterfact"))
    assert "\n" not in str(error.value)


def test_a_broken_line_is_numbered(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text('{"case_id": 1, "subject": "A", "template": "{}", "target_new": "b"}\n{"case')
    with pytest.raises(UserError, match=r"facts.jsonl, line 2: not valid JSON"):
        load_facts(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(read_facts(tmp_path / "none.json", "zsre"))


BAD = {"case_id": "bad", "subject": "", "template": "{} is", "target_new": "b", "target_true": "c"}
GOOD = {"case_id": "good", "subject": "Paris", "template": "{} is", "target_new": "b", "target_true": "c"}


def test_on_invalid_error_stops_with_the_records_name(tmp_path, byte_level):
    path = write(tmp_path, [BAD, GOOD], "f.jsonl")
    with pytest.raises(UserError, match="record bad: empty subject"):
        select(path, "jsonl", "counterfact", byte_level, None, "error")


def test_on_invalid_skip_lists_the_record_with_its_reason(tmp_path, byte_level):
    path = write(tmp_path, [BAD, GOOD, GOOD, GOOD | {"case_id": "x", "target_true": None}], "f.jsonl")
    kept, skipped = select(path, "jsonl", "counterfact", byte_level, None, "skip")
    assert [fact.case_id for fact in kept] == ["good"]
    assert [(row["case_id"], row["reason"][:20]) for row in skipped] == [
        ("bad", "empty subject"),
        ("good", "its case id occurs t"),
        ("x", "no target_true, whic"),
    ]


def test_too_few_usable_facts_are_an_error_behind_the_list_of_the_others(tmp_path, byte_level, capsys):
    byte_level.save_pretrained(tmp_path / "model")
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
    byte_level.save_pretrained(tmp_path / "model")
    path = write(tmp_path, [GOOD, GOOD | {"case_id": "other", "target_new": "Peru"}], "f.jsonl")
    command = ["facts", "--input", str(path), "--format", "jsonl", "--metrics", "counterfact"]
    command += ["--model", str(tmp_path / "model"), "--skipped", str(tmp_path / "s"), "--out", str(tmp_path / "o")]
    assert main(command) == 0
    assert f"record other: contradicted by record {GOOD['case_id']}" in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target_new": None}, "target_new is null"),
        ({"target_new": 42}, "target_new is no text: 42"),
        ({"target_new": ["France"]}, "target_new is no text: \\['France'\\]"),
        ({"subject": 1}, "subject is no text: 1"),
        ({"relation": 1}, "relation is no text: 1"),
        ({"paraphrases": "Where is Paris? In"}, "paraphrases is no list: 'Where is Paris\\? In'"),
        ({"paraphrases": [None]}, "paraphrases is null"),
        ({"unrelated": {"prompt": "x", "answer": "y"}}, "unrelated is no list"),
        ({"unrelated": ["x"]}, "unrelated holds no prompt and answer: 'x'"),
        ({"unrelated": [{"prompt": "x"}]}, "missing field 'answer'"),
        ({"unrelated": [{"prompt": "x", "answer": 3}]}, "answer of unrelated is no text: 3"),
        ({"paraphrase": []}, "unknown field 'paraphrase' \\(known: subject,"),
        ({"subject": "\ud800"}, "subject holds half a character"),
        ({"joiner": 1}, "joiner is no text: 1"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path, change, reason):
    fact = only(tmp_path, GOOD | change, "jsonl")
    assert isinstance(fact, InvalidFact)
    assert re.match(reason, fact.reason), fact.reason


def test_zsres_answers_may_be_one_text(tmp_path):
    assert only(tmp_path, ZSRE | {"answers": "France"}, "zsre").target_new == "France"


@pytest.mark.parametrize("content", ["text", 3, None])
def test_what_is_no_object_is_named(tmp_path, content):
    fact = only(tmp_path, content, "jsonl")
    assert fact.reason == f"not an object: {content!r}"


def test_the_first_facts_are_taken(tmp_path, byte_level):
    path = write(tmp_path, [GOOD | {"case_id": str(n)} for n in range(5)], "f.jsonl")
    kept, _ = select(path, "jsonl", "counterfact", byte_level, 2, "error")
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
    kept, skipped = select(RECORDS / name, form, metrics, byte_level, None, "skip")
    assert [fact.case_id for fact in kept] == usable
    assert [record["case_id"] for record in skipped] == list(reasons)
    for record, reason in zip(skipped, reasons.values(), strict=True):
        assert reason in record["reason"]
    with pytest.raises(UserError, match=f"{name}: record {next(iter(reasons))}: "):
        select(RECORDS / name, form, metrics, byte_level, None, "error")


def test_zsre_asks_its_unrelated_question_with_a_question_mark():
    (*_, fact) = (record for record in read_facts(RECORDS / "zsre.json", "zsre") if isinstance(record, Fact))
    assert fact.subject == "C++ (language)"
    assert fact.template == "Who made {}?"
    assert fact.unrelated[0].prompt == "nq question: who wrote “Emma”?"
