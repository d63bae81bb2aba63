"""What else edits change as the pipeline asks it: from the files of released data sets to a table and a figure."""

import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from project import jobs, snakemake, write_config
from tiny import city_facts

pytestmark = pytest.mark.pipeline

FILES = ("results/tables/damage.csv", "results/tables/damage.md", "results/figures/damage.png", "results/claims.csv")
RUN = "results/damage/tiny/cities/seed0.parquet"


def damaged(config, methods=("none", "memit")):
    config["datasets"]["cities"] |= {
        name: {"kind": "path", "path": f"{name}.json"} for name in ("topics", "references", "chains")
    }
    config["experiment"]["damage"] = {
        "models": ["tiny"],
        "datasets": ["cities"],
        "methods": list(methods),
        "numbers": {"cities": [6]},
        "tasks": {"colours": {"kind": "path", "path": "colours.jsonl"}},
        "harness": {"tasks": ["colours_local"], "folder": "tasks", "limit": 4},
        "amounts": {"facts": 4, "texts": 2, "tokens": 200, "window": 16, "questions": 3, "chains": 3},
    }


def write_questions(folder):
    """CounterFact's records, its snippets and a record of MQuAKE, of the project's facts."""
    facts = city_facts()
    topics = [
        {
            "case_id": fact.case_id,
            "generation_prompts": [f"{fact.subject} is"],
            "requested_rewrite": {"relation_id": "P17", "target_new": {"id": "Q38"}},
        }
        for fact in facts
    ]
    references = [{"relation_id": "P17", "target_id": "Q38", "samples": [{"text": "Rome is a city in Italy."}]}]
    edit = {
        "prompt": facts[0].template,
        "subject": facts[0].subject,
        "relation_id": "P17",
        "target_new": {"str": facts[0].target_new},
        "target_true": {"str": "France"},
        "question": "Where is it?",
    }
    other = edit | {"subject": "Atlantis"}
    chain = {"questions": ["Of which?"], "new_answer": "Rome", "new_answer_alias": [], "answer": "Paris"}
    chains = [
        {"case_id": n, "requested_rewrite": edits, "answer_alias": [], **chain}
        for n, edits in enumerate(([edit], [edit, other]))
    ]
    for name, content in {"topics": topics, "references": references, "chains": chains}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    colours = [{"text": "Grass is", "choices": ["green", "red"], "label": 0}] * 5
    (folder / "tasks").mkdir()
    for path in (folder / "colours.jsonl", folder / "tasks" / "colours.jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in colours))
    task = {
        "task": "colours_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "tasks/colours.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
    }
    (folder / "tasks" / "colours_local.yaml").write_text(yaml.safe_dump(task))


@pytest.fixture(scope="module")
def asked(done, tmp_path_factory):
    """A project whose edits were asked what else they change."""
    folder = tmp_path_factory.mktemp("damage") / "project"
    shutil.copytree(done, folder)
    write_questions(folder)
    write_config(folder, damaged)
    snakemake(folder, "--", *FILES)
    return folder


def test_everything_is_asked_of_every_edit(asked):
    rows = pd.read_parquet(asked / RUN)
    assert list(dict.fromkeys(rows["kind"])) == ["generation", "writing", "text", "task", "multi_hop"]
    assert set(rows["method"]) == {"memit"}
    counts = rows.groupby("metric")["unit"].nunique()
    assert counts[["ES_g", "fluency", "consistency", "colours"]].tolist() == [4, 2, 2, 3]
    assert counts["MH"] == 1, "the other chain needs a fact that is not edited"
    assert counts["kl"] == 200 // 16
    texts = pd.read_parquet(asked / RUN.replace(".parquet", ".texts.parquet"))
    assert set(texts["metric"]) == {"ES_g", "GS_g", "LS_g", "composition"}
    abilities = pd.read_parquet(asked / "results/abilities/tiny/cities/seed0.parquet")
    assert abilities[["kind", "metric"]].drop_duplicates().to_numpy().tolist() == [["ability", "colours_local"]]
    assert len(abilities) == 4


def test_the_harness_is_asked_again_where_its_data_have_changed(asked, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(asked, folder)
    assert "abilities" not in jobs(snakemake(folder, "-n", "--", FILES[0])[1])
    path = folder / "tasks" / "colours.jsonl"
    path.write_text(path.read_text().replace("green", "blue"))
    assert {"abilities": 1, "damage_table": 1}.items() <= jobs(snakemake(folder, "-n", "--", FILES[0])[1]).items()


def test_table_claims_and_figure_follow(asked):
    table = pd.read_csv(asked / FILES[0])
    assert set(table["method"]) == {"memit"}
    assert {"Score", "ES_g", "perplexity", "kl", "colours", "colours_local", "MH", "ES_a"} <= set(table["metric"])
    rows = pd.read_parquet(asked / RUN)
    kl = table.set_index("metric").loc["kl", "difference"]
    assert kl == pytest.approx(rows[rows["metric"] == "kl"]["value"].mean(), rel=1e-4)
    assert kl > 0
    assert "4 facts answered freely" in (asked / FILES[1]).read_text()
    assert (asked / FILES[2]).stat().st_size > 10_000


def test_one_more_method_is_asked_alone(asked, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(asked, folder)
    write_config(folder, lambda config: damaged(config, ("none", "memit", "jeep")))
    assert "edit" not in jobs(snakemake(folder, "-n", "--", RUN)[1])
    snakemake(folder, "--", RUN)
    log = (folder / "logs/damage/tiny/cities/seed0.log").read_text()
    assert len(re.findall(r"task: asking", log)) == 1
    before, after = (pd.read_parquet(each / RUN) for each in (asked, folder))
    pd.testing.assert_frame_equal(before, after[after["method"] == "memit"])
    assert set(after["method"]) == {"memit", "jeep"}
