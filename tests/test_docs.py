"""What the README and docs/adding.md tell a user to write, written and run."""

import json
import re
import shutil

import pandas as pd
import pytest
import yaml
from conftest import ROOT, city_facts
from project import CONFIG, make_project, snakemake

from jeep.config import merge

CHECKPOINT = "results/checkpoints/mine/facts/jeep/seed0/6"


def blocks(path, language):
    """The code blocks of a Markdown file in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def own(tmp_path_factory, byte_level):
    """A project with the README's model and facts and the method of docs/adding.md, run to its end."""
    folder = tmp_path_factory.mktemp("own") / "project"
    make_project(folder, byte_level)
    (fact,) = blocks("README.md", "json")
    others = [json.dumps(city.to_json()) for city in city_facts()[:5]]
    (folder / "facts.jsonl").write_text("\n".join([fact.strip(), *others]))
    (noise,) = blocks("docs/adding.md", "python")
    (folder / "jeep/editors/noise.py").write_text(noise)
    table = folder / "jeep/editors/__init__.py"
    table.write_text(table.read_text().replace("EDITORS = (", 'EDITORS = ("noise", '))
    config = {key: value for key, value in CONFIG.items() if key != "experiment"}
    (own_part,) = blocks("README.md", "yaml")
    for text in (*blocks("docs/adding.md", "yaml"), own_part):
        config = merge(config, yaml.safe_load(text))
    config["models"]["mine"]["source"]["path"] = "tiny"
    config["experiment"]["methods"].append("noise")
    config["experiment"]["edits"] = 6  # not 500
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    snakemake(folder, "--configfile", "mine.yaml", "--", "all", CHECKPOINT)
    yield folder
    shutil.rmtree(folder)


def test_ones_own_model_facts_and_method_are_in_the_table(own):
    table = pd.read_csv(own / "results/tables/table3.csv")
    assert list(table.method.unique()) == ["none", "jeep", "noise"]
    assert set(table.model) == {"mine"}
    assert "Noise" in (own / "results/tables/table3.md").read_text()


def test_the_edited_checkpoint_is_there(own):
    assert (own / CHECKPOINT / "config.json").is_file()


@pytest.mark.parametrize("path", ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))])
def test_what_a_page_links_to_is_there(path):
    page = ROOT / path
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http", "results/")):
            assert (page.parent / target).exists(), target
