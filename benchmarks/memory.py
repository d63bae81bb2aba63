"""Peak memory of jobs beside what they ask for: `python -m benchmarks.memory`, minutes on a CPU, nothing downloaded.

Models are random, of GPT-J 6B's and LLaMA 7B's layers, but few of them. Each job is a process of its own and the
command of its rule; beside its peak stands what the rule asks a cluster for (jeep/config/demands.py).
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.gpu import SMALL
from benchmarks.report import replace_table
from jeep.common.errors import UserError
from jeep.common.places import place_name
from jeep.common.settings import UNEDITED
from jeep.common.storage import write_json, write_jsonl
from jeep.config import needs
from jeep.config.config import Config, parse_config
from jeep.config.demands import Demands
from jeep.config.needs import Sizes
from jeep.config.plan import Plan

DEPTH = {"gptj": "n_layer", "llama": "num_hidden_layers"}
WORDS = [f"word{number}" for number in range(400)]
DTYPE = "bfloat16"
LENGTH = 512
"""Tokens of a text."""
PROMPTS = 10
"""Unrelated prompts of a record of CounterFact; it has two paraphrases beside them."""


def make_checkpoint(kind: str, layers: int, small: bool, folder: Path) -> None:
    """A random model of a kind's layers, with a tokenizer of made-up words."""
    changes = (SMALL[kind] if small else {}) | {DEPTH[kind]: layers}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **changes), dtype=getattr(torch, DTYPE))
    network.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)


def phrase(draw: random.Random, words: int) -> str:
    """Made-up words."""
    return " ".join(draw.choices(WORDS, k=words))


def made_up_facts(count: int) -> Iterator[dict[str, Any]]:
    """Records of CounterFact's form, about different subjects."""
    draw = random.Random(0)
    for number in range(count):
        subject = f"{WORDS[number % len(WORDS)]} {WORDS[number // len(WORDS)]} {phrase(draw, 1)}"
        new, true = draw.sample(WORDS, 2)
        yield {
            "case_id": str(number),
            "subject": subject,
            "template": f"{{}} {phrase(draw, 4)}",
            "target_new": new,
            "target_true": true,
            "paraphrases": [f"{subject} {phrase(draw, 5)}" for _ in range(2)],
            "unrelated": [{"prompt": phrase(draw, 7), "answer": true} for _ in range(PROMPTS)],
        }


@dataclass(frozen=True)
class Work:
    """A model's shape, and how much is done with it."""

    kind: str
    layers: int
    places: int
    """W_O that are edited, the topmost ones."""
    facts: int
    prompts: int
    """Under which each is written."""
    records: int
    """Measured."""
    small: bool


def configuration(work: Work) -> Config:
    """MEMIT, as a configuration says it."""
    layers = list(range(work.layers - work.places, work.layers))
    region = {"layers": layers, "clamp": 1, "prior": 1000, "spread": "even", "weight_decay": 0.5}
    settings = {"prefixes": [f"{work.prompts - 1}x5"], "optimization": {"steps": 1}, "region": region}
    raw = {
        "seeds": [0],
        "token_budget": 8192,
        "corpus": {"source": {"kind": "path", "path": "corpus.jsonl"}},
        "statistics": {"default": {}},
        "models": {"model": {"source": {"kind": "path", "path": "model"}, "dtype": DTYPE, "device": "cpu"}},
        "datasets": {"facts": {"source": {"kind": "path", "path": "facts.jsonl"}, "metrics": "counterfact"}},
        "methods": {"memit": {"editor": "memit", "settings": settings}},
        "experiment": {"models": ["model"], "datasets": ["facts"], "methods": ["none", "memit"], "edits": work.facts},
    }
    return parse_config(raw)


def commands(config: Config, records: int) -> dict[str, list[str]]:
    """The command of each job, in their order; a later one reads what an earlier one wrote."""
    editor = Plan(config).editor("memit", "model", "facts")
    names = [place_name(place) for place in editor.covariances]
    common = f"--model model --dtype {DTYPE} --device cpu --token-budget {config.token_budget}".split()
    facts = [*common, "--facts", "facts.jsonl", "--prefixes", "prefixes.json"]
    files = [f"covariance/{name}.safetensors" for name in names]
    settings = ["--editor", "memit", "--settings", editor.model_dump_json(exclude_none=True)]
    spec = editor.target_spec.model_dump_json()
    measured = ["--facts", "facts.jsonl", "--metrics", "counterfact", "--edits", str(records)]
    return {
        "covariance": ["covariance", *common, "--corpus", "corpus.jsonl", "--places", *names, "--out", "covariance"],
        "targets": ["targets", *facts, "--spec", spec, "--out", "vectors"],
        "edit": ["edit", *facts, "--targets", "vectors", "--covariance", *files, *settings, "--out", "edit"],
        "evaluate": ["evaluate", *common, *measured, "--out", "records.parquet"],
    }


def peak(command: Sequence[str], folder: Path) -> float:
    """The most memory, in megabytes, that a stage held at once. Raises UserError where it fails."""
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, "-m", "jeep", *command], cwd=folder, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{command[0]} failed: {log.read_text(encoding='utf-8').strip().splitlines()[-1]}")
    return usage.ru_maxrss * 1024 / 1e6


def texts(sizes: Sizes) -> int:
    """How many texts span the inputs of a W_O: some more tokens than there are inputs."""
    return math.ceil(1.25 * sizes.inputs / LENGTH)


def prepare(work: Work, folder: Path) -> Sizes:
    """What the jobs read: a model, text, facts, prefixes. The model's sizes."""
    model = folder / "model"
    # In a process that ends: what a parent has held counts for its children.
    arguments = (work.kind, work.layers, work.small, model)
    making = multiprocessing.get_context("spawn").Process(target=make_checkpoint, args=arguments)
    making.start()
    making.join()
    sizes = Sizes.of(model)
    draw = random.Random(1)
    write_jsonl(folder / "corpus.jsonl", ({"text": phrase(draw, LENGTH)} for _ in range(texts(sizes))))
    write_jsonl(folder / "facts.jsonl", made_up_facts(work.facts))
    write_json(folder / "prefixes.json", ["{}", *(f"{phrase(draw, 5)} {{}}" for _ in range(work.prompts - 1))])
    return sizes


def measure(work: Work, folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each job: what it held, and what it asks for, in megabytes."""
    sizes, config = prepare(work, folder), configuration(work)
    demands = Demands(Plan(config))
    jobs = {
        "covariance": (
            f"{texts(sizes) * LENGTH} tokens, {work.places} W_O",
            demands.covariance(sizes, "model", work.places),
        ),
        "targets": (f"{work.facts} facts", demands.run(sizes, "model", "facts", "memit")),
        "edit": (
            f"{work.facts} facts, {work.prompts} prompts each, {work.places} W_O",
            demands.edit(sizes, "model", "facts", "memit"),
        ),
        "evaluate": (f"{work.records} records", demands.run(sizes, "model", "facts", UNEDITED)),
    }
    for job, command in commands(config, work.records).items():
        of, held = jobs[job]
        shape = {"model": work.kind, "layers": work.layers, "d_in": sizes.inputs, "parameters": sizes.parameters}
        numbers = {"measured_mb": peak(command, folder), "asked_mb": needs.total(held)}
        yield shape | {"job": job, "of": of} | numbers


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    found = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "model": [
                f"{row.model}, {row.layers} layers, {row.parameters / 1e9:.2f}·10⁹" for row in found.itertuples()
            ],
            "job": found["job"],
            "of": found["of"],
            "measured": (found["measured_mb"] / 1e3).map("{:.2f} GB".format),
            "asked for": (found["asked_mb"] / 1e3).map("{:.2f} GB".format),
            "share": (found["measured_mb"] / found["asked_mb"]).map("{:.0%}".format),
        }
    )
    return f"{shown.to_markdown(index=False)}\n\nA CPU, {DTYPE}, PyTorch {torch.__version__}."


def main() -> int:
    """Measure; write the numbers, and a table of them into a page."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(SMALL), default=list(SMALL), help="shapes")
    parser.add_argument("--layers", type=int, default=2, help="blocks")
    parser.add_argument("--places", type=int, nargs="+", default=[1, 2], help="W_O that are edited, by model")
    parser.add_argument("--facts", type=int, default=1000, help="edits")
    parser.add_argument("--prompts", type=int, default=2, help="under which each is written, 2 or more")
    parser.add_argument("--records", type=int, default=200, help="records evaluated")
    parser.add_argument("--small", action="store_true", help="narrow models, to try this anywhere")
    parser.add_argument("--out", type=Path, required=True, help="where the numbers go, as JSON")
    parser.add_argument("--page", type=Path, default=None, help="a Markdown file with a place for the table")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind, places in zip(arguments.models, arguments.places, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            amounts = (places, arguments.facts, arguments.prompts, arguments.records, arguments.small)
            for row in measure(Work(kind, arguments.layers, *amounts), Path(folder)):
                sys.stderr.write(json.dumps(row) + "\n")
                rows.append(row)
                write_json(arguments.out, rows)
    if arguments.page:
        replace_table(arguments.page, table(rows), "memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
