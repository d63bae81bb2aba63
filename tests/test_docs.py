"""What the README and docs/adding.md tell a user to write, written and run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from huggingface_hub import cached_assets_path
from project import CONFIG, environment, make_project, snakemake
from tiny import city_facts, random_network

from jeep.__main__ import app
from jeep.api.statistics import WIKIPEDIA
from jeep.common.nested import merge
from jeep.common.storage import write_jsonl
from jeep.data.facts import Question, dump_facts, load_facts
from jeep.model.editable import EditableModel
from jeep.model.loading import load_model
from jeep.report.case_study import generate
from jeep.stages import STAGES

PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
LAUNCH = "import jeep.launcher; jeep.launcher.main()"


def blocks(path, language):
    """The code blocks of a Markdown file in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


@pytest.mark.slow
def test_editing_ones_own_model_works_as_the_readme_says_it(smollm2, byte_level, tmp_path):
    """Its record, configuration and commands, to the letter; in the folder that it names as the model is SmolLM2."""
    folder = tmp_path / "project"
    make_project(folder, byte_level)
    smollm2.save(folder / "models/mine")
    (fact,), (configuration,) = blocks("README.md", "json"), blocks("README.md", "yaml")
    (folder / "facts.jsonl").write_text(fact)
    (folder / "mine.yaml").write_text(configuration)
    shutil.copy(ROOT / "config/config.yaml", folder / "config")
    (commands,) = (block for block in blocks("README.md", "") if "--configfile mine.yaml" in block)
    for command in commands.strip().splitlines():
        done = subprocess.run(
            command, shell=True, cwd=folder, capture_output=True, text=True, env=environment(folder), check=False
        )
        assert done.returncode == 0, (command, done.stderr[-4000:])
    (row,) = load_facts(folder / "facts.jsonl")
    records = pd.read_parquet(folder / "mine/results/records.parquet").set_index(["method", "metric"]).value
    assert records["none", "ES"].item() == 0
    assert records["jeep", "ES"].item() == 1
    edited = load_model(folder / "mine/results/checkpoints/mine/facts/jeep/seed0/1", device="cpu")
    assert generate(edited, row.prompt).startswith(row.target_new)


def snakemake_lines():
    """Every line of README and docs that calls Snakemake, without what it says behind #."""
    for path in PAGES:
        for text in re.findall(r"^```\w*\n(.*?)^```$", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL):
            for line in text.splitlines():
                if line.startswith("snakemake "):
                    yield pytest.param(line.partition(" #")[0].strip(), id=f"{path}: {line[:60]}")


@pytest.mark.slow
def test_one_edits_ones_own_model_in_python_and_by_a_command_as_the_readme_says_it(smollm2, tmp_path):
    smollm2.save(tmp_path / "models/mine")
    (tmp_path / "facts.jsonl").write_text(blocks("README.md", "json")[0])
    (python,) = blocks("README.md", "python")
    (command,) = (block for block in blocks("README.md", "") if block.startswith("jeep edit-facts"))
    (row,) = load_facts(tmp_path / "facts.jsonl")
    environ = environment(ROOT) | {"HF_ASSETS_CACHE": str(tmp_path / "assets")}
    for call in ([sys.executable, "-c", python], shlex.split(command)):
        shutil.rmtree(tmp_path / "edited", ignore_errors=True)
        done = subprocess.run(call, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        assert generate(load_model(tmp_path / "edited", device="cpu"), row.prompt).startswith(row.target_new)
    assert "1 of 1 facts took" in done.stderr
    assert row.prompt in (tmp_path / "report.html").read_text()


@pytest.mark.pipeline
def test_editing_ones_own_model_works_as_its_page_says_it(byte_level, tmp_path):
    """All commands and examples of docs/own-model.md but the gated model's, on a model that knows nothing."""
    (tmp_path / "models").mkdir()
    model = EditableModel(random_network("llama"), byte_level)
    model.save(tmp_path / "models/mine")
    (tmp_path / "facts.jsonl").write_text(blocks("README.md", "json")[0])
    asked = [prompt for fact in city_facts() for prompt in (fact.prompt, *fact.paraphrases)]
    says = tuple(
        Question(prompt, text) for prompt in asked if (text := generate(model, prompt, 1)).isprintable() and text
    )
    (tmp_path / "development.jsonl").write_text(dump_facts(replace(each, unrelated=says) for each in city_facts()[:8]))
    environ = environment(ROOT) | {"HF_ASSETS_CACHE": str(tmp_path / "assets")}
    codes = torch.randint(33, 0x250, (300, 20), generator=torch.Generator().manual_seed(0))
    texts = cached_assets_path("jeep", "texts", assets_dir=tmp_path / "assets")
    write_jsonl(
        texts / f"{WIKIPEDIA.package}-{WIKIPEDIA.version}.jsonl",
        ({"text": "".join(map(chr, row))} for row in codes.tolist()),
    )
    commands = [
        line for block in blocks("docs/own-model.md", "") for line in block.splitlines() if line.startswith("jeep ")
    ]
    assert [shlex.split(command)[1] for command in commands] == ["check-facts", "tune", "edit-facts"]
    shown = ""
    for call in [
        *map(shlex.split, commands),
        *([sys.executable, "-c", code] for code in blocks("docs/own-model.md", "python")),
    ]:
        done = subprocess.run(call, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (call, done.stderr[-4000:])
        shown += done.stdout + done.stderr
    assert "all 1 records can be edited" in shown
    assert "of 24 drawn ones the best had" in shown
    assert shown.count("of 1 facts took") == 3
    tuned = json.loads((tmp_path / "tuned.json").read_text())
    assert "settings" not in tuned
    assert len(pd.read_csv(tmp_path / "tuned.csv")) == 24 + 3


def jeep_lines():
    """Every line of README and docs that calls `jeep`."""
    for path in PAGES:
        for text in re.findall(r"^```\w*\n(.*?)^```$", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL):
            for line in text.replace("\\\n", " ").splitlines():
                command = re.sub(r"^\w+=\S+ ", "", line)
                if command.startswith("jeep "):
                    yield pytest.param(command, id=f"{path}: {line[:60]}")


@pytest.mark.parametrize("line", jeep_lines())
def test_every_line_that_calls_jeep_is_understood_as_it_stands(line, tmp_path, monkeypatch):
    (tmp_path / "tuned.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    command, bound, unused = app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
    assert command in STAGES
    assert bound.arguments
    assert not unused


@pytest.fixture(scope="module")
def clone(tmp_path_factory, byte_level):
    """As a fresh clone, with the README's own configuration and a model of the name that it has there."""
    folder = tmp_path_factory.mktemp("clone") / "project"
    make_project(folder, byte_level)
    shutil.copy(ROOT / "config/config.yaml", folder / "config")
    (configuration,) = blocks("README.md", "yaml")
    (folder / "mine.yaml").write_text(configuration)
    shutil.copytree(folder / "tiny", folder / "models/mine")
    config = folder / "models/mine/config.json"  # of a model with all the layers that the page names
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 32}))
    (folder / "facts.jsonl").write_text(blocks("README.md", "json")[0])
    return folder


@pytest.mark.parametrize("line", snakemake_lines())
def test_every_snakemake_line_is_understood_as_it_stands(line, clone):
    command = shlex.split(line)[1:]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, *command, "-n"],
        cwd=clone, env=environment(clone), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "Job stats:" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory, byte_level):
    """A project with the method of docs/adding.md, run to its end."""
    folder = tmp_path_factory.mktemp("own") / "project"
    make_project(folder, byte_level)
    (noise,) = blocks("docs/adding.md", "python")
    (folder / "jeep/editors/noise.py").write_text(noise)
    table = folder / "jeep/editors/__init__.py"
    table.write_text(table.read_text().replace("EDITORS = (", 'EDITORS = ("noise", '))
    experiment = {"models": ["tiny"], "datasets": ["cities"], "methods": ["none", "jeep", "noise"], "edits": 6}
    config = {**CONFIG, "experiment": experiment}
    (*_, method) = blocks("docs/adding.md", "yaml")
    (folder / "mine.yaml").write_text(yaml.safe_dump(merge(config, yaml.safe_load(method))))
    snakemake(folder, "--configfile", "mine.yaml", "--", "all")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.pipeline
def test_ones_own_method_is_in_the_table(own):
    table = pd.read_csv(own / "results/tables/table3.csv")
    assert list(table.method.unique()) == ["none", "jeep", "noise"]
    assert "Noise" in (own / "results/tables/table3.md").read_text()


@pytest.mark.parametrize("path", PAGES)
def test_what_a_page_links_to_is_there(path):
    page = ROOT / path
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http", "results/")):
            assert (page.parent / target).exists(), target
