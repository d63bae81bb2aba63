"""The DAG on tiny models: what runs, and with what."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
from project import jobs, snakemake, write_config

from jeep.common.storage import read_jsonl, read_provenance
from jeep.config.config import load_config
from jeep.config.demands import Demands
from jeep.config.needs import Sizes
from jeep.config.plan import Plan

PROBE = {
    "models": ["tiny"], "dataset": "cities", "prompts": 3, "norm": True, "example": 1,
    "retrieval": {"backend": "rank-bm25", "paragraphs": 5},
    "fact_lists": {"source": {"kind": "knowledge-base"}, "candidates": 5},
}  # fmt: skip


def test_the_table_has_the_papers_columns(done):
    table = pd.read_csv(done / "results/tables/table3.csv")
    assert list(table.columns) == ["artifact", "dataset", "model", "method", "metric", "value", "ci95", "sd_seeds"]
    assert set(table.method) == {"none", "memit", "jeep"}
    assert list(table.metric[:4]) == ["Score", "ES", "GS", "LS"]
    scores = table.set_index(["method", "metric"]).value
    assert scores["jeep", "ES"] > scores["none", "ES"]
    for suffix in (".md", ".tex"):
        assert "jeep" in (done / "results/tables/table3").with_suffix(suffix).read_text()


def test_evaluation_holds_every_record_of_every_run_once(done):
    records = pd.read_parquet(done / "results/records.parquet")
    efficacy = records[(records.metric == "ES") & (records.edits == 6)]
    methods = ("none", "memit", "jeep", "jeep-high.prior-5", "jeep-high.prior-80")
    assert efficacy.groupby("method").case_id.nunique().to_dict() == dict.fromkeys(methods, 6)
    assert not efficacy.duplicated(["method", "case_id"]).any()


def test_skipped_records_are_listed_with_the_reason(done):
    skipped = (done / "results/facts/tiny/cities.skipped.jsonl").read_text()
    assert json.loads(skipped) == {"case_id": "broken", "reason": "empty subject"}


def test_a_first_look_is_of_runs_that_the_experiment_has(done):
    assert jobs(snakemake(done, "-n", "quick")[1]) == {"quick_look": 1, "quick": 1}
    snakemake(done, "quick")
    keys = ["method", "metric"]
    values = pd.read_csv(done / "results/quick.csv").set_index(keys)["value"]
    whole = pd.read_csv(done / "results/tables/table3.csv").set_index(keys)["value"]
    assert {method for method, _ in values.index} == {"none", "jeep"}
    pd.testing.assert_series_equal(values, whole.loc[values.index])
    text = (done / "results/quick.md").read_text()
    assert "6 facts edited at once, all measured" in text
    assert text.count("is a city in") == 1


def test_a_search_moves_one_region_and_keeps_the_other(done):
    def moved(config):
        regions = {"method": "jeep", "dataset": "cities", "facts": 3, "layers": {"low.layers": [[1], [0, 1]]}}
        config["probe"] = PROBE
        protocol = {"facts": 3, "draws": 1, "variants": 1, "finalists": 1}
        config["tuning"] = {"datasets": {"cities": "cities"}, "protocol": protocol, "space": {}}
        config["tuning"] |= {"regions": {"tiny": regions}}

    try:
        write_config(done, moved)
        snakemake(done, "placement")
    finally:
        write_config(done)
    _, *found = read_jsonl(done / "results/tuning/tiny/cities/jeep-low.layers.jsonl")
    drawn = [trial["settings"] for trial in found]
    assert sorted(map(str, drawn)) == sorted(str({"low.layers": layers}) for layers in ([0], [1], [0, 1]))
    assert (done / "results/figures/placement-tiny.png").is_file()


@pytest.mark.pipeline
def test_large_edits_more_facts_with_the_same_settings_and_is_no_part_of_all(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)

    def larger(config):
        config["datasets"]["cities-all"] = config["datasets"]["cities"] | {"settings_of": "cities"}
        config["methods"]["jeep"]["overrides"] = {"tiny/cities": {"low": {"prior": 30.0}}}
        config["methods"]["jeep"]["settings"]["low"].pop("prior")
        grid = {"models": ["tiny"], "datasets": ["cities-all"], "methods": ["none", "memit", "jeep"]}
        config["experiment"]["large"] = grid | {"edits": {"cities-all": [10, 14]}}

    write_config(folder, larger)
    assert not any("large" in rule for rule in jobs(snakemake(folder, "-n", "all")[1]))
    snakemake(folder, "large")
    table = pd.read_csv(folder / "results/tables/large.csv")
    assert set(zip(table.method, table.x, strict=True)) == {(m, x) for m in ("none", "memit", "jeep") for x in (10, 14)}
    claims = pd.read_csv(folder / "results/large/claims.csv")
    assert {"Tables 2, 3: JEEP has the greatest Score", "Figure 4: JEEP's lead over MEMIT grows"} <= set(claims.claim)
    assert (folder / "results/figures/large.pdf").is_file()


def with_neighbours(config):
    """Places that nobody edits, variants that spare them or repair, and curves of these."""
    config["datasets"]["cities"]["neighbours"] = {"dataset": "villages", "subjects": 3}
    config["datasets"]["villages"] = {"source": {"kind": "path", "path": "villages.jsonl"}, "metrics": "zsre"}
    for name, high in (("repair", {"repair": {"margin": 0.5}}), ("neighbours", {"neighbours": {"form": "mean"}})):
        config["methods"][f"jeep-{name}"] = {"extends": "jeep", "added": "ours", "settings": {"high": high}}
    experiment = config["experiment"]
    experiment["methods"] += ["jeep-repair", "jeep-neighbours"]
    margins = {"method": "jeep-repair", "setting": "high.repair.margin", "values": [0, 2]}
    where = {"models": ["tiny"], "datasets": ["cities"]}
    experiment["tradeoff"] = where | {"methods": ["none", "jeep"], "curves": {"margin": margins}}


def with_a_moved_region(config):
    """The same, and a search that moves the high region."""
    with_neighbours(config)
    moved = {"method": "jeep", "dataset": "cities", "facts": 3, "layers": {"high.layers": [[1], [3], [2, 3]]}}
    protocol = {"facts": 3, "draws": 1, "variants": 1, "finalists": 0}
    config["probe"] = PROBE
    config["tuning"] = {"datasets": {"cities": "cities"}, "protocol": protocol, "space": {}, "regions": {"tiny": moved}}


@pytest.mark.pipeline
def test_neighbours_are_drawn_spared_and_shown(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    fact = {"template": "{} lies in", "relation": "country", "target_new": "Norway"}
    names = ["Paris", "Tromsø", "Bergamo", "Molde", "Alta", "Hamar"]
    rows = [fact | {"case_id": name, "subject": name} for name in names]
    (folder / "villages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_config(folder, with_neighbours)
    snakemake(folder, "all", "tradeoff_curves")
    write_config(folder, with_a_moved_region)
    snakemake(folder, "placement")
    results = folder / "results"
    subjects = json.loads((results / "neighbours/tiny/cities/seed0.json").read_text())
    assert len(subjects["country"]) == 3
    assert set(subjects["country"]) < set(names[1:]), "Paris is edited"
    for method in ("memit", "jeep", "jeep-repair", "jeep-neighbours"):
        trace = read_provenance(results / f"deltas/tiny/cities/{method}/seed0/6.safetensors")["trace"]
        assert all(step["leak"] > 0 for step in trace)
        assert all(("gain_neighbours" in step) == (step["position"] == "prediction") for step in trace)
    claims = pd.read_csv(results / "claims.csv")
    assert not claims[~claims.claim.str.startswith("Ours: ")][["one", "other"]].isin(["jeep-repair"]).any(axis=None)
    curve = pd.read_csv(results / "tables/tradeoff.csv")
    assert curve.query("curve == 'margin'").x.unique().tolist() == [0, 2]
    foretold = pd.read_csv(results / "tuning/tiny/leaks.csv")
    assert set(foretold.layer) == {0, 1, 2, 3}
    assert set(foretold.position) == {"subject_last", "prediction"}
    for name in ("leak", "tradeoff", "leak-tiny", "placement-tiny"):
        assert (results / f"figures/{name}.png").is_file()


def test_an_edited_checkpoint_is_an_ordinary_one(done):
    from transformers import AutoModelForCausalLM

    target = "results/checkpoints/tiny/cities/jeep/seed0/6"
    snakemake(done, target)
    edited = AutoModelForCausalLM.from_pretrained(done / target).state_dict()
    original = AutoModelForCausalLM.from_pretrained(done / "tiny").state_dict()
    changed = {name for name in original if not torch.equal(original[name], edited[name])}
    assert changed == {"model.layers.0.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"}


def test_a_job_is_given_what_its_model_and_its_facts_ask_for(fresh):
    def asking(config):
        config["models"]["tiny"]["device"] = "balanced:2"
        config["datasets"]["cities"]["chat"] = True

    try:
        write_config(fresh, asking)
        _, output = snakemake(fresh, "-n", "-p", "all")
    finally:
        write_config(fresh)
    assert set(re.findall(r"gpu=(\d+)", output)) == {"2"}
    assert "--on-invalid skip --chat" in output
    assert "--device balanced:2" in output


def test_a_job_asks_for_what_the_table_of_the_docs_says(fresh, tmp_path):
    """The largest memory and the minutes of each rule's jobs: as Snakemake has them, and as benchmarks.scale does."""
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    shutil.copytree(folder / "tiny", folder / "results/models/tiny")  # before it is there, nothing is known of its jobs
    config = folder / "results/models/tiny/config.json"  # of a model whose matrices are larger than what is rounded
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 3000}))
    _, output = snakemake(folder, "-n", "--", "all", "results/checkpoints/tiny/cities/jeep/seed0/6")
    found = {}
    for rule, resources in re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)", output, re.MULTILINE):
        asked = {name: int(value) for name, value in re.findall(r"(mem_mb|runtime)=(\d+)", resources)}
        found.setdefault(re.sub("_0_tiny$", "", rule), set()).add((asked.get("mem_mb"), asked.get("runtime")))
    sizes = Sizes.of(folder / "results/models/tiny")
    rows = Demands(Plan(load_config(folder / "config/config.yaml"))).table({"tiny": sizes})
    table = {row["rule"]: (row["mem_mb"], row["runtime"]) for row in rows}
    assert table.keys() == {"prefixes", "covariance", "targets", "edit", "evaluate", "apply_edit"}
    assert {rule: max(found[rule]) for rule in table} == table
    assert len(set(table.values())) == 4
