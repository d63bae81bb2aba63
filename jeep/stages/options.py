"""How a stage declares its command: the decorator, and the options that several stages share."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Option = dict[str, Any]
Stage = Callable[[argparse.Namespace], None]


def shard(text: str) -> tuple[int, int]:
    """The shard and the number of shards that "I/N" names."""
    number, _, shards = text.partition("/")
    if not (number.isdigit() and shards.isdigit() and int(number) < int(shards)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 0 to N-1")
    return int(number), int(shards)


def place(text: str) -> tuple[int, str]:
    """The layer and sub-layer of a W_O that, for example, "9.mlp" names."""
    layer, _, sublayer = text.partition(".")
    if not layer.isdigit() or sublayer not in ("mlp", "attention"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a layer and mlp or attention, such as 9.mlp")
    return int(layer), sublayer


def prefix_kind(text: str) -> tuple[int, int]:
    """The number of texts and of their tokens that, for example, "5x10" names."""
    texts, _, tokens = text.partition("x")
    if not (texts.isdigit() and tokens.isdigit() and int(texts) and int(tokens)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected the number of texts and of tokens, such as 5x10")
    return int(texts), int(tokens)


CHECKPOINT: dict[str, Option] = {
    "model": {"help": "checkpoint folder"},
    "dtype": {"type": str, "default": "float32", "choices": ("float32", "float16", "bfloat16")},
    "device": {"type": str, "default": "auto", "help": "auto, cpu, cuda, ... (default: %(default)s)"},
    "token_budget": {"type": int, "default": 2048, "help": "most tokens in one forward pass"},
}


def stage(*, checkpoint: bool = False, **options: Option) -> Callable[[Stage], Stage]:
    """Make a function a sub-command with these options: arguments of argparse, by name.

    An option is a path and has to be given, unless it says otherwise. With `checkpoint`, those of a model come first.
    """

    def declare(function: Stage) -> Stage:
        function.options = (CHECKPOINT if checkpoint else {}) | options
        return function

    return declare


def add_command(commands: Any, function: Stage) -> None:
    """Add a stage to the sub-commands of a parser; its help is the function's docstring."""
    name = function.__name__.replace("_", "-")
    command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    command.set_defaults(run=function)
    for option, settings in function.options.items():
        settings = settings if "action" in settings else {"type": Path} | settings
        command.add_argument(f"--{option.replace('_', '-')}", required="default" not in settings, **settings)


OUT = {"help": "where the result goes"}
SOURCE = {"type": json.loads, "help": "the source, as JSON (the form of config/README.md)"}
CORPUS = {"help": "corpus as JSON lines"}
SEED = {"type": int, "default": 0, "help": "seed of every draw"}
FACTS = {"help": "facts, as the stage `facts` wrote them"}
LIMIT = {"type": int, "default": None, "help": "take the first N facts of each file (default: all)"}
EDITS = {"type": int, "default": None, "help": "take the first N facts (default: all)"}
COUNT = {"type": int, "help": "number of edits"}
METRICS = {"type": str, "choices": ("counterfact", "zsre"), "help": "how an edit is measured"}
SHARD = {"type": shard, "default": (0, 1), "help": "I/N: every Nth fact, from the Ith on (default: all)"}
PREFIXES = {"help": "prefixes, as the stage `prefixes` wrote them"}
LABELS = {"type": json.loads, "help": "names of models, data sets and methods, as JSON"}
SETTINGS = {"type": json.loads, "help": "the editor's settings, as JSON"}
EDITOR = {"type": str, "help": "name of the editor"}
FIGURE = {"help": "the PDF file; a PNG is put beside it"}
RECORDS = {"nargs": "+", "help": "per-record results, as `evaluate` or `collect` wrote them"}
METHODS = {"type": str, "nargs": "+", "help": "methods in the table, in this order"}
MODELS = {"type": str, "nargs": "+", "help": "models that are shown"}
DATASETS = {"type": str, "nargs": "+", "help": "data sets that are shown"}
TITLE = {"type": str, "help": "model, data and count, for the figure's title"}
REPORTED = {"default": Path("config/reported.csv"), "help": "the paper's numbers (default: %(default)s)"}
NAMES = {"type": json.loads, "help": "the paper's names of our models and data sets, as JSON"}
CSV = {"help": "the CSV file; .md, .html and, of the paper's tables, .tex are put beside it"}
BENCHMARKS = {"nargs": "+", "help": "benchmark files"}
NORM = {
    "action": argparse.BooleanOptionalAction,
    "default": True,
    "help": "the final norm in front of the head (default: yes)",
}
BACKEND = {"type": str, "choices": ("rank-bm25", "bm25s"), "help": "what searches"}
