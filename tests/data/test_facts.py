"""Readers and what they say of bad records and bad files."""

import re

import pytest
from conftest import DATA
from samples import COUNTERFACT, EASYEDIT, GOOD, ZSRE, only

from jeep.common.errors import UserError
from jeep.data.facts import Fact, InvalidFact, load_facts
from jeep.data.formats import read_facts


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


def test_zsre_asks_its_unrelated_question_with_a_question_mark():
    (*_, fact) = (record for record in read_facts(DATA / "records/zsre.json", "zsre") if isinstance(record, Fact))
    assert fact.subject == "C++ (language)"
    assert fact.template == "Who made {}?"
    assert fact.unrelated[0].prompt == "nq question: who wrote “Emma”?"
