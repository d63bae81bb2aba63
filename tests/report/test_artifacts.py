"""The case study, the paper's numbers beside ours, its claims tested, the costs, and the report."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from jeep.common.errors import UserError
from jeep.common.storage import write_json
from jeep.data.facts import Fact, Question
from jeep.model.files import write_of
from jeep.report.case_study import begins_with, choose, generate, study, write_study
from jeep.report.comparison import write_comparison
from jeep.report.costs import write_costs
from jeep.report.document import write_report

LABELS = {"models": {"m": "The model"}, "datasets": {"d": "The set"}, "methods": {"jeep": "JEEP"}}


def records_of(method, efficacy, generalization=1.0, locality=1.0, **run):
    """Rows as the stage `evaluate` writes them, one prompt of each kind."""
    run = {"model": "m", "dataset": "d", "method": method, "seed": 0, "edits": len(efficacy)} | run
    values = {"ES": efficacy, "GS": generalization, "LS": locality}
    rows = [
        {"case_id": f"f{n}", "metric": metric, "number": 0, "value": float(np.broadcast_to(value, len(efficacy))[n])}
        for metric, value in values.items()
        for n in range(len(efficacy))
    ]
    return pd.DataFrame(rows).assign(**run)


def fact(name, **fields):
    known = {"subject": "Ada", "template": "{} speaks", "relation": "P103", "target_new": "Danish"}
    return Fact(case_id=name, **known | fields)


# Table 1


def test_the_case_is_the_first_edited_one_on_which_the_editors_differ():
    facts = [fact(f"f{n}") for n in range(4)]
    one = records_of("jeep", [0, 1, 1, 1], generalization=[1, 1, 1, 1])
    other = records_of("memit", [1, 1, 1, 1], generalization=[0, 1, 1, 0])
    assert choose(pd.concat([one, other]), facts).case_id == "f3", "f0 is not edited by both, f1 and f2 do not differ"
    one = records_of("jeep", [0, 0, 0, 0])
    assert choose(pd.concat([one, other]), facts).case_id == "f0", "none is edited by both: the most different"
    with pytest.raises(UserError, match="no results"):
        choose(pd.concat([one, other]), [fact("unknown")])


def test_answers_are_the_models_own_greedy_ones(trained, tmp_path):
    """Against transformers' own generation; and the model is as before."""
    model = trained
    known = fact(
        "rome",
        subject="Rome",
        template="{} is a city in",
        target_new="Italy",
        paraphrases=("The city of Rome lies in",),
        unrelated=(Question("Bonn is a city in", "Spain"),),
    )
    ids = model.tokenizer(known.prompt, return_tensors="pt").input_ids
    model.save(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    expected = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
    answer = model.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    said = answer.strip().partition("\n")[0]
    assert generate(model, known.prompt) == said

    known = replace(known, target_new=said)  # a tiny model may not stop behind the country
    name = model.parameter_name(0)
    weight = model.network.get_parameter(name)
    before = weight.clone()
    for method, factor in (("nothing", 0.0), ("broken", -1.0)):
        write_of(model.identity, tmp_path / f"{method}.safetensors", {name: factor * before}, {})
    deltas = {method: tmp_path / f"{method}.safetensors" for method in ("nothing", "broken")}
    table = study(model, known, deltas)
    assert weight.equal(before)
    right = table.set_index(["method", "kind"]).right
    assert right["nothing", "edited"]
    assert not right["nothing", "unrelated"], "it says Germany, which is not what this test calls wanted"
    write_study(table, "rome", LABELS, "The model", tmp_path / "table1.csv")
    text = (tmp_path / "table1.md").read_text()
    assert text.count("✗") == int((~table.right).sum())
    assert "Record rome" in text


def test_a_right_answer_begins_with_whole_words():
    assert begins_with("pound sterling", "Pound")
    assert begins_with("St. Louis, of course", "St. Louis")
    assert not begins_with("Cobalt is a metal", "Co")
    assert not begins_with("the pound", "pound")


# Beside the paper


def test_only_the_papers_models_and_data_are_compared(tmp_path):
    keys = {"artifact": "table2", "dataset": "zsre", "method": "jeep", "metric": "ES"}
    ours = [keys | {"model": "my-gptj", "value": 90.5, "ci95": 0.3}, keys | {"model": "other", "value": 1, "ci95": 1}]
    pd.DataFrame(ours).to_csv(tmp_path / "table2.csv", index=False)
    pd.DataFrame([keys | {"model": "gptj", "value": 91.0, "ci95": 0.2}]).to_csv(tmp_path / "reported.csv", index=False)
    names = {"models": {"my-gptj": "gptj"}, "datasets": {"zsre": "zsre"}}
    write_comparison([tmp_path / "table2.csv"], tmp_path / "reported.csv", names, tmp_path / "comparison.csv")
    (row,) = pd.read_csv(tmp_path / "comparison.csv").to_dict("records")
    assert (row["paper"], row["ours"], row["difference"]) == (91, 90.5, -0.5)
    write_comparison([tmp_path / "table2.csv"], tmp_path / "reported.csv", {}, tmp_path / "none.csv")
    assert pd.read_csv(tmp_path / "none.csv").empty
    assert "None of the models" in (tmp_path / "none.md").read_text()


def test_costs_are_sums_over_jobs_and_means_over_seeds(tmp_path):
    """The first of the jobs kept vectors of an earlier run, which took six seconds: they count; measuring does not."""
    jobs, paths = [], []
    for seed, kind, seconds, memory in [
        (0, "targets", 4, 1024),
        (0, "targets", 20, 2048),
        (0, "edit", 300, "-"),
        (1, "targets", 30, 512),
        (1, "edit", 500, 512),
        (0, "training", 7, 512),
    ]:
        paths.append(tmp_path / f"{len(paths)}.tsv")
        paths[-1].write_text(f"s\tmax_rss\n{seconds}\t{memory}\n")
        jobs.append(["d", "m", "jeep", seed, kind])
    kept = [tmp_path / f"{number}.json" for number in range(3)]
    for path, earlier in zip(kept, (6.0, 0.0, 0.0), strict=True):
        write_json(path, {"kept": earlier, "of": {}})
    took = [tmp_path / f"took{number}.json" for number in range(2)]
    for path, seconds in zip(took, (25.0, 45.0), strict=True):
        write_json(path, {"loading": 5.0, "5": 99.0, "10": seconds})
    reported = tmp_path / "reported.csv"
    pd.DataFrame(
        [{"artifact": "appendix_d", "dataset": "mcf", "model": "gptj", "method": "jeep", "metric": "hours", "value": 2}]
    ).to_csv(reported, index=False)
    names = {"models": {"m": "gptj"}, "datasets": {"d": "mcf"}}
    write_costs(jobs, paths, kept, took, 10, reported, names, LABELS, tmp_path / "costs.csv")
    (row,) = pd.read_csv(tmp_path / "costs.csv").to_dict("records")
    assert row["seconds_per_edit"] == 7  # of 60 and 80 seconds for 10 edits
    assert row["training_seconds"] == 7
    assert row["peak_gb"] == 2
    assert row["paper_seconds_per_edit"] == 0.72
    text = (tmp_path / "costs.md").read_text()
    assert "The set" in text
    assert "JEEP" in text


# The report


def test_the_report_has_its_tables_claims_figures_and_digests(tmp_path):
    claims = {"claim": "it works", "dataset": "d", "model": "m", "one": "jeep", "other": "memit", "statistic": "Score"}
    claims |= {"value": 1, "low": 0.5, "high": 2, "p": 0.03, "verdict": "supported", "corrected": "undecided"}
    ours = claims | {"claim": "Ours: it works too", "one": "ours", "verdict": "refuted", "corrected": "refuted"}
    pd.DataFrame([claims, ours]).to_csv(tmp_path / "claims.csv", index=False)
    (tmp_path / "table3.md").write_text("| the | table |\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/figure4.png").write_bytes(b"")
    (tmp_path / "facts.jsonl").write_text(json.dumps({"a": 1}))
    about = {"title": "A run", "edits": 2, "seeds": [0, 1], "models": {"m": "wheel"}, "datasets": {"d": "demo"}}
    write_report(
        about | {"presets": {"paper": ["jeep"]}},
        [tmp_path / "facts.jsonl"],
        [tmp_path / "table3.md"],
        [tmp_path / "figures/figure4.png"],
        tmp_path / "claims.csv",
        tmp_path / "REPORT.md",
    )
    text = (tmp_path / "REPORT.md").read_text()
    assert "1 supported." in text
    assert "all 1 comparisons by Holm's method: 1 undecided." in text
    paper, _, own = text.partition("Methods of ours, corrected for their own 1 comparisons:")
    assert "it works |" in paper
    assert "Ours" not in paper
    assert "| Ours: it works too | d | m | ours − memit |" in own
    assert "| the | table |" in text
    assert "](figures/figure4.png)" in text
    assert "sha256 f9d86028c6e0d64e" in text
    assert "seeds 0, 1" in text
