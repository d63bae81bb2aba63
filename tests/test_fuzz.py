"""Whatever a file of facts or a configuration holds, it is used or refused in one line.

JEEP_FUZZ=10000 tries as many of each; findings become cases of their own.
"""

import copy
import json
import os
import shutil
from itertools import islice

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import CONFIG
from samples import COUNTERFACT, EASYEDIT, GOOD, ZSRE
from tiny import random_network

from jeep.common.errors import UserError
from jeep.config.config import load_config
from jeep.config.depths import check_layers
from jeep.config.plan import Plan
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.loading import check_checkpoint, load_model
from jeep.model.selection import Asking, select

EXAMPLES = settings(
    max_examples=int(os.environ.get("JEEP_FUZZ", "60")),
    deadline=None,
    derandomize="JEEP_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FORMATS = ("counterfact", "zsre", "easyedit", "jsonl")
TEXT = st.one_of(
    st.text(max_size=12), st.sampled_from(["Paris", "{} lies in", "Paris lies in", " ", "<s>", "\ud800", "巴黎", "{}"])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
RECORDS = {
    "counterfact": COUNTERFACT,
    "zsre": ZSRE,
    "easyedit": EASYEDIT
    | {
        "ground_truth": ["Bonn"],
        "rephrase_prompt": "Ann's home is",
        "locality": {"n": {"prompt": ["Bob is"], "ground_truth": ["old"]}},
    },
    "jsonl": GOOD
    | {"paraphrases": ["Paris is in"], "unrelated": [{"prompt": "Rome is in", "answer": "Italy"}], "joiner": " "},
}


def places(value, path=()):
    """Every place inside a nested value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def put(value, path, new):
    """A copy of a nested value with something else at a place; without the place where `new` is ..."""
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value


@pytest.mark.parametrize("form", FORMATS)
@EXAMPLES
@given(data=st.data())
def test_facts(form, data, tmp_path, byte_level):
    record = RECORDS[form]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in places(record) if path]))
        record = put(record, path, data.draw(st.one_of(VALUES, st.just(...))))
    lines = form == "jsonl"
    text = json.dumps(record) if lines else json.dumps([record])
    (tmp_path / "facts").write_text(text)
    metrics = data.draw(st.sampled_from(["counterfact", "zsre"]))
    kept, skipped = select(tmp_path / "facts", form, metrics, Asking(byte_level), None, "skip")
    assert len(kept) + len(skipped) == 1
    assert all(isinstance(fact, Fact) for fact in kept)
    assert all("\n" not in row["reason"] for row in skipped)


@EXAMPLES
@given(content=st.binary(max_size=40))
def test_files(content, tmp_path, byte_level):
    (tmp_path / "facts").write_bytes(content)
    complaints = []
    for form in FORMATS:
        try:
            select(tmp_path / "facts", form, "zsre", Asking(byte_level), None, "skip")
        except UserError as error:
            complaints.append(str(error))
    assert not [text for text in complaints if "\n" in text]


@EXAMPLES
@given(data=st.data())
def test_configurations(data, tmp_path):
    config = CONFIG
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in places(config) if path]))
        config = put(config, path, data.draw(st.one_of(VALUES, st.just(...))))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=False))
    try:
        plan = Plan(load_config(tmp_path / "config.yaml"))
        list(plan.runs)
        check_layers(plan)
        for model in plan.experiment.models:
            plan.collected_places(model)
    except UserError as error:
        complaint = str(error)
    else:
        complaint = ""
    assert "\n" not in complaint.strip()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, byte_level):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    EditableModel(random_network("llama"), byte_level).save(folder)
    return folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@EXAMPLES
@given(data=st.data())
def test_models(name, data, tmp_path, checkpoint):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    content = json.loads((checkpoint / name).read_text())
    path = data.draw(st.sampled_from([path for path in islice(places(content), 200) if path]))
    (folder / name).write_text(json.dumps(put(content, path, data.draw(st.one_of(VALUES, st.just(...))))))
    try:
        check_checkpoint(folder)
        load_model(folder, device="cpu")
    except UserError as error:
        complaint = str(error)
    else:
        complaint = ""
    assert "\n" not in complaint.strip()
