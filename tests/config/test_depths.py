"""Layers that no model has are refused before the first job."""

import json
import re
from functools import reduce
from operator import getitem

import pytest
from conftest import ROOT

from jeep.common.errors import UserError
from jeep.config.config import load_config, parse_config
from jeep.config.depths import check_layers, depth_of
from jeep.config.plan import Plan
from jeep.data.sources import PathSource


def asked(**changes):
    """The shipped configuration's plan, with changes."""
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    return Plan(parse_config(raw | changes))


def model_at(folder, config):
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return PathSource(kind="path", path=folder)


@pytest.mark.parametrize(
    ("config", "depth"),
    [({"num_hidden_layers": 4}, 4), ({"n_layer": 6}, 6), ({"layers": 4}, None), ([1], None), ("{", None)],
)
def test_a_models_depth_is_read_from_its_folder(tmp_path, config, depth):
    assert depth_of(model_at(tmp_path, config)) == depth


def test_nothing_is_known_of_a_folder_that_is_not_there(tmp_path):
    assert depth_of(PathSource(kind="path", path=tmp_path / "none")) is None


def test_the_shipped_configuration_names_layers_that_are_there():
    check_layers(asked())


def test_a_layer_that_a_model_does_not_have_is_named_with_its_method(tmp_path):
    model_at(tmp_path, {"num_hidden_layers": 4})
    models = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)["models"]
    models["smollm2-135m"]["source"] = {"kind": "path", "path": str(tmp_path)}
    with pytest.raises(UserError, match=r"methods\.[\w-]+ for smollm2-135m/[\w-]+: layer \d+ of a model that has 4"):
        check_layers(asked(models=models))


@pytest.mark.parametrize(
    ("part", "change", "complaint"),
    [
        ("space.gptj-nano.memit", {"region.layers": [[98, 99]]}, "tuning.space.gptj-nano.memit: layer 99 of a model"),
        ("space.gptj-nano.ft-wd", {"layer": [99]}, "tuning.space.gptj-nano.ft-wd: layer 99 of a model that has"),
        ("space.gptj-nano.mend", {"layers": [[97, 98, 99]]}, "tuning.space.gptj-nano.mend: layer 99 of a model that"),
        ("space.gptj-nano.rome", {"layer": [99]}, "tuning.space.gptj-nano.rome: layer 99 of a model that has"),
        ("regions.gptj-nano.layers", {"high.layers": [[98, 99]]}, "tuning.regions.gptj-nano: layer 99 of a model that"),
        (
            "space.gptj-nano.memit",
            {"region.layers": [[1, 99]]},
            "tuning.space.gptj-nano.memit: region: layers must be consecutive",
        ),
    ],
)
def test_what_a_search_cannot_try_is_named(part, change, complaint):
    tuning = load_config(ROOT / "config" / "config.yaml").tuning.model_dump(mode="json", exclude_none=True)
    reduce(getitem, part.split("."), tuning).update(change)
    with pytest.raises(UserError, match=re.escape(complaint)):
        check_layers(asked(tuning=tuning))
