"""The configuration files that are shipped, their documentation, and the environments."""

import re
import tomllib

import pytest
import yaml
from conftest import ROOT

from jeep.common.errors import UserError
from jeep.common.settings import measured_batches
from jeep.config.config import load_config, parse_config
from jeep.config.docs import render
from jeep.editors import EDITORS, load_editor


@pytest.mark.parametrize("name", ["config", "paper"])
def test_shipped_configurations_are_valid(name):
    config = load_config(ROOT / "config" / f"{name}.yaml")
    without = ("ft-wd", "mend", "malmen", "ultraedit", "locft-bf")
    for model in config.experiment.models:
        for dataset in config.experiment.datasets:
            for method in config.experiment.methods[1:]:
                editor = config.editor(method, model, dataset)
                assert bool(editor.covariances) == (method not in without)


def test_the_papers_settings_of_jeep():
    """Appendix D.7: LLaMA on zsRE differs from Multi-CounterFact in γ*, λ′ and λ*."""
    config = load_config(ROOT / "config" / "paper.yaml")
    mcf, zsre = (config.editor("jeep", "llama", dataset) for dataset in ("mcf", "zsre"))
    assert (mcf.low.clamp, mcf.high.clamp, mcf.low.prior, mcf.high.prior) == (1, 0.25, 2500, 1000)
    assert (zsre.low.clamp, zsre.high.clamp, zsre.low.prior, zsre.high.prior) == (1, 0.7, 6000, 3000)
    assert mcf.covariances == tuple((layer, "mlp") for layer in (5, 6, 7, 8, 9, 10, 22, 23, 24))
    assert mcf.dtype == "float16"


def test_the_papers_precisions():
    """Appendix D: fp16 for JEEP on both models, for MEMIT and PMET on LLaMA; float32 for the rest."""
    config = load_config(ROOT / "config" / "paper.yaml")
    half = {("jeep", "gptj"), ("jeep", "llama"), ("memit", "llama"), ("pmet", "llama")}
    for model in config.experiment.models:
        for method in config.experiment.methods[1:]:
            precision = config.editor(method, model, "mcf").precision(config.models[model].dtype)
            assert precision == ("float16" if (method, model) in half else "float32")


@pytest.mark.parametrize("name", ["ft_wd", "mend", "malmen", "rome", "ultraedit"])
def test_what_float16_would_lose_is_not_lost(name):
    """Small changes and gradients by weights: never in a model's float16, and refused where asked for."""
    settings = {
        "ft_wd": {"layer": 0},
        "rome": {"layer": 0, "optimization": {"steps": 2}},
        "mend": {"layers": [0], "training": {"edits": 1}},
        "malmen": {"layers": [0], "training": {"edits": 1}},
        "ultraedit": {"layers": [0]},
    }[name]
    editor = load_editor(name, settings)
    assert [editor.precision(of) for of in ("float16", "bfloat16", "float32")] == ["float32", "bfloat16", "float32"]
    assert load_editor(name, settings | {"dtype": "bfloat16"}).precision("float32") == "bfloat16"
    with pytest.raises(ValueError, match="float16 loses this method's small changes"):
        load_editor(name, settings | {"dtype": "float16"})


def test_a_sweep_changes_one_setting_and_nothing_else():
    config = load_config(ROOT / "config" / "paper.yaml")
    base, half = (config.editor(name, "llama", "mcf") for name in ("jeep", "jeep-high.clamp-0.5"))
    assert half.high.clamp == 0.5
    assert half.model_copy(update={"high": base.high}) == base


def test_the_curves_edit_counts_are_the_papers():
    config = load_config(ROOT / "config" / "paper.yaml")
    counts = config.experiment.curve.counts("mcf", 10000)
    assert counts == [1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000]


def test_a_data_set_may_take_the_settings_of_another():
    raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config = parse_config(raw)
    for method in ("memit", "jeep"):
        assert config.editor(method, "smollm2-135m", "mcf-all") == config.editor(method, "smollm2-135m", "mcf-demo")
    raw["methods"]["memit"]["overrides"]["smollm2-135m/mcf-all"] = {"region": {"prior": 7}}
    assert parse_config(raw).editor("memit", "smollm2-135m", "mcf-all").region.prior == 7, "its own come last"
    raw["datasets"]["mcf-all"]["settings_of"] = "nothing"
    with pytest.raises(UserError, match=r"datasets\.mcf-all\.settings_of.* names 'nothing'"):
        parse_config(raw)


def without_training(config):
    del config["training"]


def other_rank_for_one_set(config):
    config["methods"]["malmen"]["overrides"]["gptj/mcf"] = {"rank": 7}


def moved_without_a_probe(config):
    config["probe"]["models"] = ["gptj-nano"]


def large_on_the_main_grids_facts(config):
    config["experiment"]["large"]["datasets"] = ["mcf-demo"]
    config["experiment"]["large"]["edits"] = {"mcf-demo": [60]}


def moved_on_other_facts(config):
    config["tuning"]["regions"]["gptj-nano"]["dataset"] = "mcf-train"


def large_without_a_number(config):
    del config["experiment"]["large"]["edits"]["mcf-all"]


def curve_named(name):
    def change(config):
        curves = config["experiment"]["tradeoff"]["curves"]
        curves[name] = next(iter(curves.values()))

    return change


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("paper", without_training, "training: nothing for gptj, which methods.mend needs"),
        ("paper", other_rank_for_one_set, "methods.malmen: its hyper-network is trained once for gptj"),
        ("config", moved_without_a_probe, "tuning.regions names 'smollm2-135m', which probe.models does not"),
        ("config", large_on_the_main_grids_facts, "large: 'mcf-demo' is edited elsewhere too"),
        ("config", large_without_a_number, "experiment.large: .*edits: no number for 'mcf-all'"),
        ("config", curve_named("none"), r"experiment\.tradeoff\.curves: 'none' is a method's name"),
        ("config", curve_named("jeep"), r"experiment\.tradeoff\.curves: 'jeep' is a method's name"),
        ("config", curve_named("JEEP"), r"experiment\.tradeoff\.curves: 'JEEP' is a method's name"),
        ("config", moved_on_other_facts, "tuning.regions names 'mcf-train', which tuning.datasets does not define"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(name, change, complaint):
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    change(config)
    with pytest.raises(UserError, match=complaint):
        parse_config(config)


def test_the_documentation_of_the_configuration_is_up_to_date():
    assert (ROOT / "config" / "README.md").read_text(encoding="utf-8") == render(), (
        "run: python -m jeep.config.docs > config/README.md"
    )


@pytest.mark.parametrize(
    ("batches", "every", "expected"),
    [(5, 1, [1, 2, 3, 4, 5]), (10, 5, [1, 5, 10]), (5, 2, [1, 2, 4, 5]), (1, 3, [1]), (4, 9, [1, 4])],
)
def test_a_sequence_is_measured_after_its_first_batch_every_so_many_and_its_last(batches, every, expected):
    assert measured_batches(batches, every) == expected


def test_every_part_that_a_key_may_hold_is_documented():
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    types = re.findall(r"^\| `[^`]+` \| ((?:[^|]|\\\|)*) \|", page, re.MULTILINE)
    named = {word for text in types for word in re.findall(r"\b[A-Z][A-Za-z]+\b", text)} - {"Any", "Path"}
    assert len(named) > 20
    assert named <= set(re.findall(r"^###? (\w+)", page, re.MULTILINE))


def test_conda_has_the_requirements_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs" / "jeep.yaml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == project["dependencies"]
    harness = yaml.safe_load((ROOT / "envs" / "harness.yaml").read_text())
    (more,) = (entry["pip"] for entry in harness["dependencies"] if isinstance(entry, dict))
    assert more == pip + project["optional-dependencies"]["harness"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("seeds: [", "not valid YAML"), ("- a", "expected a mapping"), ("seeds: []", "seeds")],
)
def test_a_bad_file_is_one_line(tmp_path, text, complaint):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_every_editor_can_be_looked_up():
    for name in EDITORS:
        with pytest.raises(ValueError, match="Field required"):
            load_editor(name, {})


# A configuration that extends another


@pytest.fixture
def mine(tmp_path):
    """A file of ten lines for a model of one's own."""

    def write(**changes):
        text = {
            "extends": str(ROOT / "config" / "config.yaml"),
            "models": {"mine": {"source": {"kind": "path", "path": "models/mine"}, "device": "cpu"}},
            "methods": {"jeep": {"overrides": {"mine": JEEP}}},
            "experiment": {"models": ["mine"], "datasets": ["mcf-demo"], "methods": ["none", "jeep"], "edits": 5},
        }
        (tmp_path / "mine.yaml").write_text(
            yaml.safe_dump({k: v for k, v in (text | changes).items() if v is not None})
        )
        return tmp_path / "mine.yaml"

    return write


JEEP = {"low": {"layers": [1], "clamp": 1, "prior": 2}, "high": {"layers": [2], "clamp": 0.1, "prior": 2}}


def test_what_is_named_is_inherited_and_what_is_run_is_said_anew(mine):
    base, config = load_config(ROOT / "config" / "config.yaml"), load_config(mine())
    assert set(config.models) == {*base.models, "mine"}
    assert (config.corpus, config.statistics, config.datasets) == (base.corpus, base.statistics, base.datasets)
    assert config.experiment.models == ["mine"]
    assert config.experiment.curve is config.experiment.sweep is config.experiment.large is None
    assert config.probe is config.tuning is None
    assert config.editor("jeep", "mine", "mcf-demo").low.layers == (1,)
    assert config.editor("memit", "gptj-nano", "mcf-demo") == base.editor("memit", "gptj-nano", "mcf-demo")
    assert config.editor("jeep", "mine", "mcf-demo").optimization == base.editor(
        "jeep", "gptj-nano", "mcf-demo"
    ).optimization.model_copy(update={"learning_rate": 0.5, "stop_probability": None})


def test_a_source_of_another_kind_replaces_the_one_there_was(mine):
    changes = {
        "corpus": {"source": {"kind": "path", "path": "text.jsonl"}},
        "models": {"smollm2-135m": {"source": {"kind": "path", "path": "models/other"}}},
    }
    config = load_config(mine(experiment=None, methods=None, **changes))
    assert str(config.corpus.source.path) == "text.jsonl"
    assert str(config.models["smollm2-135m"].source.path) == "models/other"
    assert config.models["smollm2-135m"].label == "SmolLM2 (135M)"


def test_without_an_experiment_of_its_own_all_that_is_run_is_inherited(mine):
    base = load_config(ROOT / "config" / "config.yaml")
    config = load_config(mine(experiment=None, seeds=[3]))
    assert config.seeds == [3]
    assert (config.experiment, config.probe, config.tuning) == (base.experiment, base.probe, base.tuning)


def test_one_may_extend_one_that_extends(mine, tmp_path):
    first = mine()
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"extends": str(first), "token_budget": 77}))
    config = load_config(tmp_path / "more.yaml")
    assert (config.token_budget, config.experiment.models) == (77, ["mine"])
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump({"extends": str(tmp_path / "loop.yaml")}))
    (tmp_path / "near.yaml").write_text(yaml.safe_dump({"extends": "mine.yaml", "seeds": [5]}))
    assert load_config(tmp_path / "near.yaml").seeds == [5], "from the folder of the file that extends"
    for wrong in (["a.yaml"], str(tmp_path)):
        with pytest.raises(UserError):
            load_config(mine(extends=wrong))
    mine()
    with pytest.raises(UserError, match="extends itself"):
        load_config(tmp_path / "loop.yaml")
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        load_config(mine(extends="none.yaml"))


def test_another_folder_for_results_leaves_sources_where_they_are(mine, tmp_path, monkeypatch):
    path = mine(workdir="runs/mine")
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    assert config.models["mine"].source.path == tmp_path / "models/mine"
    assert str(load_config(mine()).models["mine"].source.path) == "models/mine"
