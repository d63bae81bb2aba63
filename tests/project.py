"""A small project of its own: the pipeline's files with a tiny model, facts and corpus."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from tiny import city_facts, train_tiny

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "rules", "jeep", "profiles", "envs", "report", "config")


def region(layers, **settings):
    return {"layers": layers, "clamp": 2.0, "prior": 20.0, "spread": "even", "weight_decay": 0.0} | settings


CONFIG = {
    "seeds": [0],
    "token_budget": 512,
    "editing": {"shards": 2, "keep_deltas": True},
    "corpus": {"source": {"kind": "path", "path": "corpus.jsonl"}},
    "statistics": {"default": {"tokens": 4000, "length": 32}},
    "models": {"tiny": {"source": {"kind": "path", "path": "tiny"}, "device": "cpu"}},
    "datasets": {
        "cities": {
            "source": {"kind": "path", "path": "cities.jsonl"},
            "metrics": "counterfact",
            "on_invalid": "skip",
        }
    },
    "methods": {
        "memit": {
            "editor": "memit",
            "settings": {"optimization": {"steps": 5}, "region": region([0])},
        },
        "jeep": {
            "editor": "jeep",
            "settings": {"optimization": {"steps": 5}, "low": region([0]), "high": region([2])},
        },
    },
    "experiment": {
        "models": ["tiny"],
        "datasets": ["cities"],
        "methods": ["none", "memit", "jeep"],
        "edits": 6,
        "case_study": {"model": "tiny", "dataset": "cities", "methods": ["memit", "jeep"]},
        "quick": {"model": "tiny", "dataset": "cities", "methods": ["none", "jeep"], "answers": 1},
        "curve": {"models": ["tiny"], "datasets": ["cities"], "methods": ["memit", "jeep"], "points": 1},
        "sweep": {
            "models": ["tiny"],
            "datasets": ["cities"],
            "method": "jeep",
            "setting": "high.prior",
            "values": [5, 80],
        },
    },
}

# What is made of MEMIT's results: everything but the sweep, which is of JEEP alone.
LATER = {
    "collect": 1, "table": 1, "series": 1, "series_figure": 1, "case_study": 1, "costs": 1, "comparison": 1,
    "claims": 1, "report": 1, "all": 1,
}  # fmt: skip


def write_config(folder, change=None):
    config = json.loads(json.dumps(CONFIG))
    if change:
        change(config)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))


def snakemake(folder, *arguments, check=True):
    command = [sys.executable, "-c", "import jeep.launcher; jeep.launcher.main()"]
    command += ["--cores", "2", "--resources", "gpu=2", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(folder), check=False)
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output[-4000:]
    return done.returncode, output


def environment(folder):
    """The copy's own package, and python as the rules call it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder), "PATH": path, "HF_HUB_OFFLINE": "1"}


def jobs(output):
    """Count of jobs by rule, from a dry run's statistics."""
    if "Job stats:" not in output:
        return {}
    lines = output.split("Job stats:")[1].splitlines()[3:]
    rows = [line.split() for line in lines]
    return {row[0]: int(row[1]) for row in rows[: next(i for i, row in enumerate(rows) if row[:1] == ["total"])]}


def make_project(folder, tokenizer):
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    train_tiny("llama", tokenizer).save(folder / "tiny")
    rows = [fact.to_json() for fact in city_facts()]
    rows.insert(1, rows[0] | {"case_id": "broken", "subject": ""})
    (folder / "cities.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(0)
    # Every byte occurs, so that the keys of the lowest layer, which depend on the token alone, span their space.
    texts = ["".join(chr(code) for code in torch.randint(33, 0x250, (20,))) for _ in range(300)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"title": "", "text": text}) + "\n" for text in texts))
    write_config(folder)
