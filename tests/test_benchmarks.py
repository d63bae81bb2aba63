"""The benchmark's counts of operations, and its table in the README."""

import io

import pandas as pd
import pytest
import torch
from conftest import ROOT
from project import write_config
from tiny import random_network, train_tiny

from benchmarks import covariance_tokens, gpu, memory, scale
from benchmarks.operations import Needed, spent
from benchmarks.report import BEGIN, END, table, write_report
from jeep.common.errors import UserError
from jeep.common.settings import Optimization, Site
from jeep.common.storage import read_json, write_json, write_jsonl
from jeep.config.config import load_config
from jeep.config.needs import Sizes
from jeep.measure.evaluate import evaluate, items
from jeep.model.editable import EditableModel
from jeep.model.tokens import Request, encode
from jeep.vectors.targets import optimize
from jeep.writing.covariance import covariances

SITES = (Site(layer=1, place="output", position="subject_last", clamp=1.0, weight_decay=0.5),)


@pytest.fixture
def model(byte_level):
    return EditableModel(random_network("llama"), byte_level)


def test_a_matrix_product_is_counted():
    assert spent(lambda: torch.ones(3, 5) @ torch.ones(5, 7)) == 2 * 3 * 5 * 7


def test_no_more_is_spent_than_a_little_over_what_is_needed(model, facts, prefixes):
    """The need is counted from the formulas, what is spent by PyTorch: neither can drift from the other unseen."""
    needed = Needed(model)
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts[:6]]
    rows = [encode(model.tokenizer, fact.prompt) for fact in facts[:6]]
    runs = {
        "targets": (
            lambda: list(optimize(model, requests, SITES, Optimization(steps=4), 4096)),
            needed.targets(requests, SITES, 4),
        ),
        "covariance": (
            lambda: covariances(model, rows, [(1, "mlp"), (2, "mlp")], 4096),
            needed.covariance(rows, [1, 2]),
        ),
        "evaluation": (
            lambda: evaluate(model, facts[:6], "counterfact", 4096),
            needed.evaluation(list(items(facts[:6], "counterfact"))),
        ),
    }
    for name, (run, need) in runs.items():
        assert 0.95 < spent(run) / need < 1.6, name


def test_the_table_in_the_readme_is_of_the_results():
    text = (ROOT / "README.md").read_text()
    shown = text.split(BEGIN)[1].split(END)[0].strip()
    assert shown == table(ROOT / "benchmarks/results/latest.json")


def test_a_readme_without_a_place_for_the_table_is_one_line(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="no place for the table"):
        write_report(ROOT / "benchmarks/results/latest.json", tmp_path / "README.md")


def test_the_paper_is_counted_without_its_weights(byte_level, facts, prefixes, tmp_path, monkeypatch):
    """Sizes by hand: GPT-J has 6.05·10⁹ parameters; eight of its W_O are edited, each with 16 384² of covariance."""
    byte_level.save_pretrained(tmp_path / "tokenizer")
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in facts[:2]))
    write_json(tmp_path / "prefixes.json", prefixes)
    demands = [mark.replace("benchmark", "demands") for mark in (BEGIN, END)]
    (tmp_path / "scale.md").write_text("\n".join([BEGIN, END, *demands]))
    arguments = [
        "--tokenizer",
        "tokenizer",
        "--facts",
        "facts.jsonl",
        "--prefixes",
        "prefixes.json",
        "--out",
        "scale.md",
    ]
    command = ["scale", "--config", str(ROOT / "config/paper.yaml"), "--hf", "gptj=gptj", *arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", command)
    assert scale.main() == 0
    first, second = (tmp_path / "scale.md").read_text().split(demands[0])
    rows = [[cell.strip() for cell in line.split("|")[2:7]] for line in first.splitlines()]
    disk = {row[0]: float(row[3]) for row in rows[3:-3] if len(row) == 5 and row[0]}
    assert disk["model"] == 24.2
    assert disk["covariances"] == 8.6
    asked = {line.split("|")[2].strip(): line for line in second.splitlines()[3:-1]}
    held = 3000 + 4 * 6050.9 * 1.3 + 16384**2 * (8 * 8 + 12) / 1e6  # eight sums in float64; the pass in float32
    assert int(asked["covariance"].split("|")[3]) == pytest.approx(held, rel=1e-3)


@pytest.mark.pipeline
def test_jobs_hold_less_than_they_ask_for(tmp_path, monkeypatch):
    """The commands of four rules, one behind the other, each in a process of its own; narrow models."""
    (tmp_path / "page.md").write_text("\n".join(mark.replace("benchmark", "memory") for mark in (BEGIN, END)))
    command = "memory --small --models llama --places 1 --facts 6 --records 2 --out found.json --page page.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", command.split())
    assert memory.main() == 0
    rows = read_json(tmp_path / "found.json")
    assert [row["job"] for row in rows] == ["covariance", "targets", "edit", "evaluate"]
    for row in rows:
        assert 100 < row["measured_mb"] < row["asked_mb"], row
    assert (tmp_path / "page.md").read_text().count("| llama, 2 layers") == 4


def test_what_was_measured_is_less_than_what_is_asked_for_and_stands_in_the_page():
    rows = read_json(ROOT / "benchmarks/results/memory.json")
    assert all(0.5 < row["measured_mb"] / row["asked_mb"] < 1 for row in rows), rows
    begin, end = (mark.replace("benchmark", "memory") for mark in (BEGIN, END))
    shown = (ROOT / "docs/scale.md").read_text().split(begin)[1].split(end)[0].strip()
    assert shown.startswith(memory.table(rows).rpartition("\n\n")[0])


def test_the_page_says_what_the_rules_ask_for_at_the_papers_scale():
    sizes = {"gptj": Sizes(6_050_882_784, 16_384, 4_096), "llama": Sizes(6_738_415_616, 11_008, 4_096)}
    begin, end = (mark.replace("benchmark", "demands") for mark in (BEGIN, END))
    shown = (ROOT / "docs/scale.md").read_text().split(begin)[1].split(end)[0].strip()
    assert shown == scale.asked(load_config(ROOT / "config/paper.yaml"), sizes)


def test_covariances_of_more_text_edit_the_same_facts(byte_level, facts, tmp_path, monkeypatch):
    """One row for each method and amount of text, the half-width beside Score, and a picture."""
    (tmp_path / "config").mkdir()
    write_config(tmp_path, lambda config: config["methods"]["jeep"].update(label="JEEP"))
    train_tiny("llama", byte_level).save(tmp_path / "tiny")
    write_jsonl(tmp_path / "facts.jsonl", (fact.to_json() for fact in facts[:5]))
    codes = torch.randint(33, 0x250, (300, 20), generator=torch.Generator().manual_seed(0))
    write_jsonl(tmp_path / "corpus.jsonl", ({"text": "".join(map(chr, row))} for row in codes.tolist()))
    (tmp_path / "page.md").write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.chdir(tmp_path)
    command = "covariance_tokens --config config/config.yaml --model tiny --dataset cities --checkpoint tiny"
    command += " --facts facts.jsonl --edits 4 --corpus corpus.jsonl --tokens 20 60 --out page.md --figure figure.png"
    monkeypatch.setattr("sys.argv", command.split())
    assert covariance_tokens.main() == 0
    table = pd.read_csv(io.StringIO((tmp_path / "page.md").read_text()), sep="|", comment="<", skipinitialspace=True)
    table = table.rename(columns=str.strip).iloc[1:]
    assert list(table["method"].str.strip()) == ["JEEP", "memit"] * 2
    assert list(table["tokens per input"].astype(float)) == [20, 20, 60, 60]
    assert set(table.columns) >= {"Score", "ES", "GS", "LS", "ci95"}
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_the_benchmark_of_a_card_measures_every_task_at_both_shapes(tmp_path, monkeypatch):
    command = ["gpu", "--small", "--layers", "3", "--facts", "1", "3", "--records", "2", "--tokens", "64"]
    command += ["--device", "cpu", "--dtypes", "float32", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    assert gpu.main() == 0
    found = read_json(tmp_path / "gpu-cpu.json")
    rows = pd.DataFrame(found["rows"])
    assert set(rows["model"]) == {"gptj", "llama"}
    for _, of_one in rows.groupby("model"):
        kinds = of_one["what"].str.partition(",")[0]
        assert kinds.value_counts().to_dict() == {"targets": 2, "closed form": 2, "covariances": 1, "evaluation": 1}
        one, three = of_one.loc[of_one["what"] == "targets", "operations_needed"]
        assert 2.5 < three / one <= 3, "three facts share their prefixes"
    assert (rows["seconds_low"] <= rows["seconds"]).all()
    assert set(found["rates"]) == {"float32", "float64"}
    text = (tmp_path / "gpu-cpu.md").read_text()
    assert text.splitlines()[-1].startswith("cpu, PyTorch ")
    assert text.count("\\*") == 5, "extrapolated: four rows, and what the star means"
