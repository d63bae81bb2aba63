"""Records of each format that several tests start from, and files of them."""

import json

from jeep.data.formats import read_facts

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


EASYEDIT = {"subject": "Ann", "prompt": "Ann lives in", "target_new": "Rome"}


BAD = {"case_id": "bad", "subject": "", "template": "{} is", "target_new": "b", "target_true": "c"}
GOOD = {"case_id": "good", "subject": "Paris", "template": "{} is", "target_new": "b", "target_true": "c"}


def write(tmp_path, rows, name="facts.json"):
    path = tmp_path / name
    lines = name.endswith("jsonl")
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path


def only(tmp_path, row, form):
    (fact,) = read_facts(write(tmp_path, [row], "f.jsonl" if form == "jsonl" else "f.json"), form)
    return fact
