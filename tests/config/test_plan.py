"""What follows from a configuration: runs, what they share, and which methods the claims are about."""

import pytest
from conftest import ROOT

from jeep.common.errors import UserError
from jeep.config.config import load_config, parse_config
from jeep.config.experiment import Grid
from jeep.config.plan import Plan
from jeep.editors.jeep import Repair


def plan(name="config"):
    return Plan(load_config(ROOT / "config" / f"{name}.yaml"))


def roles(plan):
    return plan.roles(plan.compared, plan.experiment.ablations)


def renamed(config, names):
    """The same configuration with other names for methods, everywhere."""
    if isinstance(config, dict):
        return {names.get(key, key): renamed(value, names) for key, value in config.items()}
    if isinstance(config, list):
        return [renamed(value, names) for value in config]
    return names.get(config, config) if isinstance(config, str) else config


def test_methods_are_known_by_their_editors_and_settings_whatever_they_are_called():
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    own = roles(plan())
    assert own == {
        "jeep": "jeep",
        "memit": "memit",
        "low_high": [
            ["wo_high_delta_and_step3", "wo_low_delta_and_step2"],
            ["wo_step3", "wo_step2"],
        ],
        "added": {
            "ours": ["jeep-null", "jeep-stepwise", "memit-repair"],
            "later": ["alphaedit", "rect", "prune", "ultraedit", "locft-bf"],
        },
        "twins": [["jeep-null", "alphaedit", "history and null space"]],
    }
    names = {name: f"ours-{number}" for number, name in enumerate(own["low_high"][0] + own["low_high"][1])}
    names |= {"memit": "mass-editing"}
    for method in raw["methods"].values():
        method.pop("label", None)
        if method.get("editor") == "memit":
            method["editor"] = "MEMIT"
    raw = {**renamed(raw, names)}
    raw["methods"]["mass-editing"]["editor"] = "memit"
    for name in [name for name in raw["methods"] if name.startswith("jeep-high.clamp")]:
        del raw["methods"][name]
    found = roles(Plan(parse_config(raw)))
    assert found["memit"] == "mass-editing"
    assert found["low_high"] == [[names[name] for name in pair] for pair in own["low_high"]]


def test_a_variant_is_not_taken_for_its_method_and_a_grid_without_one_has_none():
    found = plan()
    grid = Grid(models=["gptj-nano"], datasets=["mcf-demo"], methods=["none", "wo_step2", "jeep", "pmet"])
    assert found.roles(grid, None) == {
        "jeep": "jeep",
        "memit": None,
        "low_high": [],
        "added": {"ours": [], "later": []},
        "twins": [],
    }
    curve = grid.model_copy(update={"methods": ["memit", "jeep"]})
    assert found.roles(grid, curve)["memit"] == "memit"
    assert found.roles(grid.model_copy(update={"models": []}))["low_high"] == []
    ours = grid.model_copy(update={"methods": ["jeep-repair", "none", "jeep"]})
    assert found.roles(ours)["added"] == {"ours": ["jeep-repair"], "later": []}
    assert found.roles(ours)["jeep"] == "jeep"
    later = grid.model_copy(update={"methods": ["none", "jeep-seq", "memit-seq", "rect"]})
    assert found.roles(later)["jeep"] is found.roles(later)["memit"] is None, "none of these is the paper's"


def test_a_method_with_two_regions_is_the_twin_of_one_with_the_same_terms():
    """Whatever else differs; a change that is made something else of behind the edit is no twin."""
    found = plan()
    names = ["none", "memit", "memit-seq", "alphaedit", "rect", "jeep", "jeep-null", "jeep-seq"]
    grid = Grid(models=["gptj-nano"], datasets=["mcf-demo"], methods=names)
    assert found.roles(grid)["twins"] == [
        ["jeep-seq", "memit-seq", "history"],
        ["jeep-null", "alphaedit", "history and null space"],
    ]
    assert found.roles(grid.model_copy(update={"methods": names[:5]}))["twins"] == []
    assert found.roles(grid)["added"] == {
        "ours": ["jeep-null", "jeep-seq"],
        "later": ["memit-seq", "alphaedit", "rect"],
    }


def test_what_does_something_else_besides_is_no_twin():
    """A prior beside the null space (BetaEdit), the other preset, a stop rule, a norm."""
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    raw["methods"] = {name: m for name, m in raw["methods"].items() if not name.startswith("jeep-high.")}
    for change in (
        {"region": {"prior": 3000}},
        {"preset": "release"},
        {"optimization": {"stop_right": {"steps": 2}}},
        {"anchor": True},
    ):
        raw["methods"]["other"] = {"extends": "alphaedit", "settings": change, "added": "later"}
        found = Plan(parse_config(raw))
        grid = Grid(models=["gptj-nano"], datasets=["mcf-demo"], methods=["other", "jeep-null"])
        assert found.roles(grid)["twins"] == [], change


def test_a_sequence_needs_its_facts_covariances_and_eigenvectors():
    """Of all batches together, however few facts are edited at once."""
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    raw["methods"] = {name: m for name, m in raw["methods"].items() if not name.startswith("jeep-")}
    grid = {"models": ["gptj-nano"], "datasets": ["mcf-demo"], "methods": ["none", "alphaedit"]}
    raw["experiment"] = {**grid, "methods": ["none", "ft-wd"], "edits": 5}
    raw.pop("tuning")
    alone = Plan(parse_config(raw))
    raw["experiment"]["sequence"] = grid | {"batches": 3, "edits": 40}
    found = Plan(parse_config(raw))
    assert (alone.facts_needed("gptj-nano", "mcf-demo"), found.facts_needed("gptj-nano", "mcf-demo")) == (5, 120)
    assert alone.places("gptj-nano") == []
    assert found.places("gptj-nano") == [(0, "mlp")]
    runs = [(run.method, run.seed) for run in found.sequence_runs("sequence")]
    assert runs == [("none", 0), ("alphaedit", 0)]
    assert found.sequence_runs("long_sequence") == []
    assert [run.method for run in found.runs] == ["none", "ft-wd"], "a sequence is no edit at once"


def test_a_search_whose_space_leaves_out_layers_needs_those_in_the_settings():
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    raw["methods"] = {name: m for name, m in raw["methods"].items() if not name.startswith("jeep-high.clamp")}
    raw["tuning"]["space"]["gptj-nano"] = {"memit": {"region.prior": [1, 2]}, "jeep": {"low.layers": [[0], [1]]}}
    raw["methods"]["memit"]["settings"]["region"] |= {"layers": [2], "clamp": 1}
    raw["methods"]["jeep"]["settings"]["low"] |= {"clamp": 1, "prior": 1}
    raw["methods"]["jeep"]["settings"]["high"] |= {"layers": [4], "clamp": 1, "prior": 1}
    found = Plan(parse_config(raw))
    assert found.searched_places("gptj-nano", "memit", "mcf-demo") == [(2, "mlp")]
    assert found.searched_places("gptj-nano", "jeep", "mcf-demo") == [(0, "mlp"), (1, "mlp"), (4, "mlp")]


def test_further_methods_have_rows_where_they_are_run():
    found = plan()
    rows = found.table("table3")
    assert rows.models == ["smollm2-135m", "gptj-nano"]
    assert rows.methods == [*found.experiment.methods, "locft-bf", "jeep-null", "jeep-stepwise", "memit-repair"]
    where = {run.method: set() for run in found.runs_of(rows)}
    assert len(set(found.runs_of(rows))) == len(found.runs_of(rows)), "also those that another target has"
    for run in found.runs_of(rows):
        where[run.method].add(run.model)
    assert where["locft-bf"] == where["jeep-null"] == {"gptj-nano"}
    assert where["jeep"] == where["alphaedit"] == set(rows.models)


def test_memit_repair_is_memit_as_it_was_chosen_with_the_high_region_of_jeep():
    found = plan()
    for model in found.experiment.models:
        for dataset in found.experiment.datasets:
            memit, jeep, repair = (found.editor(method, model, dataset) for method in ("memit", "jeep", "memit-repair"))
            assert (repair.target_spec, repair.prefixes) == (memit.target_spec, memit.prefixes), "they share vectors"
            assert repair.low == memit.region
            assert repair.high.model_copy(update={"repair": None}) == jeep.high
            assert repair.high.repair == Repair()
            assert not repair.together


def test_further_methods_are_of_the_experiments_models_and_data():
    raw = load_config(ROOT / "config" / "config.yaml").model_dump(mode="json", exclude_none=True)
    raw["experiment"]["more"]["datasets"] = ["mcf-dev"]
    with pytest.raises(UserError, match="more: 'mcf-dev' is none of the experiment's datasets"):
        parse_config(raw)


def test_the_unedited_model_is_evaluated_once_and_others_under_every_seed():
    found = plan("paper")
    seeds = {run.method: set() for run in found.runs}
    for run in found.runs:
        seeds[run.method].add(run.seed)
    assert seeds.pop("none") == {0}
    assert set(map(tuple, map(sorted, seeds.values()))) == {(0, 1, 2)}


def test_ablations_share_the_target_vectors_of_their_method():
    found = plan()
    owners = {name: found.target_owner("gptj-nano", "mcf-demo", name) for name in found.experiment.ablations.methods}
    assert owners["even_spread_step2"] == owners["wo_step2"] == owners["wo_step3"] == "jeep"
    assert owners["separate_optimization"] == owners["wo_high_delta_and_step3"] != "jeep"


def test_the_places_asked_for_are_those_of_runs_and_of_searches():
    found = plan()
    collected = {who: set(places) for who, places in found.collected_places("smollm2-135m").items()}
    assert collected["runs"] == set(found.places("smollm2-135m"))
    assert collected["searches"].isdisjoint(collected["runs"]), "each is collected once"
    assert any(place == "attention" for _, place in found.places("gptj-nano")), "an ablation edits attention"
    assert {(layer, "mlp") for layer in (6, 7, 8, 18)} <= collected["runs"]
    assert {(layer, "mlp") for layer in (0, 15, 26, 28)} <= collected["searches"], "of regions that are moved, too"
    assert found.searched_places("smollm2-135m", "mend", "mcf-demo+zsre-demo") == [], (
        "a hyper-network needs no covariance"
    )
    assert found.searched_places("smollm2-135m", "rome", "mcf-demo") == [(layer, "mlp") for layer in (6, 8, 10)]
    assert plan("paper").collected_places("gptj") == {"runs": plan("paper").places("gptj"), "searches": []}
