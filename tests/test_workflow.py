"""The DAG on tiny models: what runs, with what, and what is repeated."""

import json
import os
import re
import shutil

import pandas as pd
import pytest
import torch
from project import LATER, jobs, snakemake, write_config

from jeep.common.storage import read_jsonl, read_provenance, read_tensors
from jeep.config.config import load_config
from jeep.config.demands import Demands
from jeep.config.needs import Sizes
from jeep.config.plan import Plan
from jeep.launcher import targets_first

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


def test_targets_may_stand_behind_resources():
    """The command as people write it: Snakemake alone would read `all` as a resource."""
    assert targets_first("--cores 8 --resources gpu=4 all".split()) == "all --cores 8 --resources gpu=4".split()
    assert targets_first("-n --res a=1 b=2 all x --cores 2".split()) == "all x -n --res a=1 b=2 --cores 2".split()
    assert targets_first("all --cores 8".split()) == "all --cores 8".split()


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("--configfile a.yaml all", "all --configfile a.yaml"),
        ("--configfile a.yaml b.json results/x.csv -n", "results/x.csv --configfile a.yaml b.json -n"),
        ("--set-threads edit=4 all", "all --set-threads edit=4"),
        ("--set-resources edit:mem_mb=1 all", "all --set-resources edit:mem_mb=1"),
        ("--default-resources mem_mb=1 all", "all --default-resources mem_mb=1"),
        ("--config a=1 b={c: 2} all", "all --config a=1 b={c: 2}"),
        ("-C a=1 all tune", "all tune -C a=1"),
        ("--rerun-triggers mtime all", "all --rerun-triggers mtime"),
        ("--groups edit=g all", "all --groups edit=g"),
        ("--forcerun edit all", "--forcerun edit all"),  # both are names of rules: Snakemake's to decide
        ("-q all", "-q all"),  # one of its levels
        ("--configfile a.yaml -- all", "--configfile a.yaml -- all"),
        ("--configfile=a.yaml all", "--configfile=a.yaml all"),
        ("--configfile a.yaml results/probe/m/regions.json", "results/probe/m/regions.json --configfile a.yaml"),
        ("--cores 2 all --resources gpu=1 tune -n", "all tune --cores 2 --resources gpu=1 -n"),
    ],
)
def test_targets_may_stand_behind_any_list(typed, understood):
    def words(line):
        return line.replace("{c: 2}", "{c:2}").split()

    assert targets_first(words(typed)) == words(understood)


def test_run_again_it_does_nothing(done):
    assert "Nothing to be done" in snakemake(done, "all")[1]


def test_a_methods_settings_repeat_that_method_only(done):
    def closed_form(config):
        config["methods"]["memit"]["settings"]["region"]["prior"] = 30.0

    def optimization(config):
        config["methods"]["memit"]["settings"]["optimization"]["steps"] = 4

    try:
        write_config(done, closed_form)
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"edit": 1} | LATER
        write_config(done, optimization)
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"targets": 2, "edit": 1} | LATER
    finally:
        write_config(done)


def stamps(folder, pattern):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def test_a_new_layer_repeats_its_own_method_and_collects_that_layer_only(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["methods"]["memit"]["settings"]["region"].update(layers=[0, 1]))
    after = jobs(snakemake(folder, "-n", "all")[1])
    assert after == {"covariance_0_tiny": 1, "targets": 2, "edit": 1} | LATER
    before, edits = stamps(folder, "*.mlp.safetensors"), stamps(folder, "jeep/seed0/*.safetensors")
    snakemake(folder, "results/records/tiny/cities/memit/seed0.parquet")
    assert stamps(folder, "jeep/seed0/*.safetensors") == edits
    after = stamps(folder, "*.mlp.safetensors")
    assert {path.name for path in after.keys() - before.keys()} == {"1.mlp.safetensors"}
    assert {path: after[path] for path in before} == before
    assert jobs(snakemake(folder, "-n", "all")[1]) == LATER
    write_config(folder, lambda c: c["statistics"]["default"].update(tokens=3000))
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert again["edit"] == 4, "another sample of text is another covariance, of every edit"


def test_another_text_is_read_again_and_another_way_to_load_a_model_repeats_what_loads_one(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    options = folder / "jeep/stages/options.py"
    text = options.read_text()
    options.write_text(text.replace("device or self.device", "device or str(self.device)"))
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert {"covariance_0_tiny", "targets", "edit", "evaluate", "prefixes"} <= again.keys()
    assert "facts" not in again
    options.write_text(text)
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"title": "", "text": "One more."}) + "\n")
    again = jobs(snakemake(folder, "-n", "all")[1])
    assert {name: again[name] for name in ("corpus", "covariance_0_tiny", "edit")} == {
        "corpus": 1,
        "covariance_0_tiny": 1,
        "edit": 4,
    }
    (folder / "results/covariance/tiny/0.mlp.safetensors").write_bytes(b"broken")
    assert jobs(snakemake(folder, "-n", "all")[1])["covariance_0_tiny"] == 1


def test_shards_of_the_text_give_the_same_covariances(fresh, done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    write_config(folder, lambda c: c["statistics"]["default"].update(shards=3))
    files = [f"results/covariance/tiny/{layer}.mlp.safetensors" for layer in (0, 2)]
    snakemake(folder, *files)
    for path in (done / "results/covariance/tiny").glob("*.safetensors"):
        ((name, whole),) = read_tensors(path)[0].items()
        torch.testing.assert_close(read_tensors(folder / path.relative_to(done))[0][name], whole)
    assert not list(folder.rglob("parts/*.safetensors"))


def test_more_edits_optimise_the_new_target_vectors_only(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["experiment"].update(edits=10))
    _, output = snakemake(folder, "results/records/tiny/cities/memit/seed0.parquet")
    assert jobs(output) == {"facts": 1, "targets": 2, "edit": 1}
    logs = [path.read_text() for path in sorted(folder.glob("logs/targets/tiny/cities/memit/seed0/*.log"))]
    assert all("60%" in log and "5/5" in log for log in logs), "three of five were there"


def test_changes_of_weights_go_when_they_are_measured_and_come_back_for_a_checkpoint(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    write_config(folder, lambda c: c["editing"].update(keep_deltas=False))
    for path in ("results/records.parquet", "results/records/tiny/cities/memit/seed0.parquet"):
        (folder / path).unlink()
    assert jobs(snakemake(folder, "results/records.parquet")[1]) == {"edit": 1, "collect": 1}
    assert not list(folder.glob("results/deltas/tiny/cities/memit/**/*.safetensors"))
    assert "edit" not in jobs(snakemake(folder, "-n", "all")[1])
    checkpoint = "results/checkpoints/tiny/cities/memit/seed0"
    assert jobs(snakemake(folder, "-n", f"{checkpoint}/6")[1]) == {"edit": 1, "apply_edit": 1}
    status, output = snakemake(folder, "-n", f"{checkpoint}/7", check=False)
    assert status != 0
    assert "tiny/cities/memit is edited with 1, 6 facts, not with 7: set experiment.edits" in output


def test_a_first_look_is_of_runs_that_the_experiment_has(done):
    assert jobs(snakemake(done, "-n", "quick")[1]) == {"quick_look": 1, "quick": 1}
    snakemake(done, "quick")
    table = pd.read_csv(done / "results/quick.csv").set_index(["method", "metric"])["value"]
    records = pd.read_parquet(done / "results/records.parquet")
    first = records.query("edits == 6 and metric == 'ES' and case_id in ['city-0', 'city-1']")
    for method in ("none", "jeep"):
        assert table[method, "ES"] == round(100 * first[first["method"] == method]["value"].mean(), 1)
    text = (done / "results/quick.md").read_text()
    assert "6 facts edited at once, measured on the first 2" in text
    assert text.count("is a city in") == 1


def test_a_message_repeats_nothing_and_a_template_the_report_alone(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    source = folder / "jeep/writing/solve.py"
    text = source.read_text()
    assert "is not positive definite: " in text
    source.write_text(text.replace("is not positive definite: ", "cannot be inverted: "))
    assert "Nothing to be done" in snakemake(folder, "-n", "all")[1]
    template = folder / "jeep/report/report.md.jinja"
    template.write_text(template.read_text() + "\nThe end.\n")
    assert jobs(snakemake(folder, "-n", "all")[1]) == {"report": 1, "all": 1}


def test_a_methods_code_repeats_that_method_and_a_comment_nothing(done):
    source = done / "jeep/editors/memit.py"
    text = source.read_text()
    stamp = source.stat()
    try:
        source.write_text(f"# a comment\n\n{text}")
        assert "Nothing to be done" in snakemake(done, "-n", "all")[1]
        source.write_text(text + "\nSEEN = True\n")
        after = jobs(snakemake(done, "-n", "all")[1])
        assert after == {"edit": 1} | LATER
    finally:
        source.write_text(text)
        os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_another_way_to_measure_repeats_all_that_measures(done, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(done, folder)
    source = folder / "jeep/measure/evaluate.py"
    source.write_text(source.read_text() + "\nSEEN = True\n")
    after = jobs(snakemake(folder, "-n", "all")[1])
    assert (after["edit"], after["evaluate"]) == (4, 1)


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
