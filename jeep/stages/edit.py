"""Stages that edit and measure: target vectors, changes, checkpoints, evaluation, the search for settings.

Each is a thin function from files to files, with the options of its command. It imports what it needs inside, so that
its code digest covers its own modules and no others.
"""

import argparse
import json
import logging

from jeep.stages.options import CSV, EDITOR, EDITS, FACTS, LIMIT, METRICS, OUT, PREFIXES, SEED, SETTINGS, SHARD, stage


@stage(
    checkpoint=True,
    facts=FACTS,
    prefixes=PREFIXES,
    limit=LIMIT,
    spec={"type": json.loads, "help": "sites and optimization of the editor, as JSON"},
    shard=SHARD,
    compile={"action": argparse.BooleanOptionalAction, "default": False, "help": "through torch.compile"},
    out=OUT,
)
def targets(args: argparse.Namespace) -> None:
    """Optimise the target vectors of one shard of the facts."""
    from jeep.common.settings import TargetSpec
    from jeep.common.storage import read_json
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.vectors.files import optimize_shard

    shard, shards = args.shard
    model = load_model(args.model, args.dtype, args.device, compiled=args.compile)
    optimize_shard(
        model,
        load_facts(args.facts)[: args.limit][shard::shards],
        read_json(args.prefixes),
        TargetSpec.model_validate(args.spec),
        args.token_budget,
        args.out,
    )


@stage(
    checkpoint=True,
    facts=FACTS,
    prefixes=PREFIXES,
    targets={"nargs": "*", "default": (), "help": "all shards of the target vectors"},
    covariance={"default": None, "help": "covariances of the edited layers"},
    hypernetwork={"default": None, "help": "the editor's trained hyper-network"},
    editor=EDITOR,
    settings=SETTINGS,
    edits=EDITS,
    solver={"type": str, "default": None, "help": "device of the normal equations (default: the model's)"},
    out=OUT,
)
def edit(args: argparse.Namespace) -> None:
    """Write the first facts into the model with an editor; save the change of each parameter."""
    import torch

    from jeep.common.storage import read_covariances, read_json, read_tensors, write_tensors
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.editable import load_model
    from jeep.vectors.files import read_targets
    from jeep.vectors.task import Task

    editor = load_editor(args.editor, args.settings)
    chosen = load_facts(args.facts)[: args.edits]
    vectors = read_targets(args.targets)
    unusable = [fact.case_id for fact in chosen if editor.target_spec and fact.case_id not in vectors]
    chosen = [fact for fact in chosen if fact.case_id not in unusable]
    if unusable:
        logging.warning("left out, their optimisation did not stay finite: %s", ", ".join(unusable))
    network = read_tensors(args.hypernetwork)[0] if args.hypernetwork else {}
    network.pop("losses", None)  # for the figure of the training
    task = Task(
        chosen,
        read_json(args.prefixes),
        args.token_budget,
        [vectors[fact.case_id] for fact in chosen] if editor.target_spec else [],
        read_covariances(args.covariance) if args.covariance else {},
        network,
        checkpoint=args.out.with_name(f".{args.out.stem}.checkpoint.safetensors"),
        solver=torch.device(args.solver) if args.solver else None,
    )
    deltas = editor.edit(load_model(args.model, args.dtype, args.device), task)
    provenance = {
        "editor": args.editor,
        "settings": args.settings,
        "edits": len(chosen),
        "left_out": unusable,
        "trace": task.trace,
    }
    write_tensors(args.out, deltas, provenance)


@stage(checkpoint=True, deltas={"help": "the edit to apply"}, out=OUT)
def apply(args: argparse.Namespace) -> None:
    """Add an edit's changes to a checkpoint and save it as an ordinary Hugging Face folder."""
    from jeep.common.storage import atomic, read_tensors
    from jeep.model.editable import load_model

    model = load_model(args.model, args.dtype, "cpu")
    model.add_(read_tensors(args.deltas)[0])
    with atomic(args.out) as folder:
        model.save(folder)


@stage(
    checkpoint=True,
    facts=FACTS,
    metrics=METRICS,
    deltas={"nargs": "*", "default": (), "help": "edits, each applied alone (default: the unedited model)"},
    edits={
        "type": int,
        "nargs": "+",
        "default": None,
        "help": "for each, measure the first N (default: all)",
    },
    shard=SHARD,
    run_columns={"type": json.loads, "default": {}, "help": "columns that name the run, as JSON"},
    out=OUT,
)
def evaluate(args: argparse.Namespace) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any, on one shard."""
    import pandas as pd

    from jeep.common.errors import UserError
    from jeep.common.storage import atomic, read_tensors
    from jeep.data.facts import load_facts
    from jeep.measure.evaluate import evaluate as measure
    from jeep.model.editable import load_model

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
        results.append(result.assign(edits=count, **args.run_columns))
    with atomic(args.out) as temporary:
        pd.concat(results).to_parquet(temporary, index=False)


@stage(records={"nargs": "+", "help": "per-record results"}, out=OUT)
def collect(args: argparse.Namespace) -> None:
    """Gather per-record results of many runs in one table."""
    import pandas as pd

    from jeep.common.storage import atomic

    with atomic(args.out) as temporary:
        pd.concat(map(pd.read_parquet, args.records), ignore_index=True).to_parquet(temporary, index=False)


@stage(
    checkpoint=True,
    datasets={"type": str, "nargs": "+", "help": "names of the data sets whose settings are searched together"},
    facts={"nargs": "+", "help": "development facts of each"},
    metrics={"type": str, "nargs": "+", "choices": ("counterfact", "zsre"), "help": "how each is measured"},
    prefixes=PREFIXES,
    covariance={"help": "covariances of all layers in the search space"},
    training={"nargs": "*", "default": (), "help": "facts that hyper-networks are trained on"},
    limit=LIMIT,
    editor=EDITOR,
    settings={"type": json.loads, "help": "the settings that the space leaves out, as JSON"},
    space={"type": json.loads, "help": "values to try for each setting, as JSON"},
    protocol={"type": json.loads, "help": "facts, draws, variants and finalists, as JSON"},
    seed=SEED,
    out=OUT,
)
def tune(args: argparse.Namespace) -> None:
    """Search an editor's settings on development facts, scored by Score; a search that was killed goes on."""
    from jeep.common.settings import Protocol
    from jeep.common.storage import read_covariances, read_json, write_jsonl
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.tuning.bench import Bench, DevelopmentSet
    from jeep.tuning.search import search

    named = zip(args.datasets, args.facts, args.metrics, strict=True)
    bench = Bench(
        load_model(args.model, args.dtype, args.device),
        [DevelopmentSet(name, load_facts(path), metrics) for name, path, metrics in named],
        read_json(args.prefixes),
        read_covariances(args.covariance),
        args.token_budget,
        [fact for path in args.training for fact in load_facts(path)[: args.limit]],
    )
    protocol = Protocol.model_validate(args.protocol)
    checkpoint = args.out.with_name(f".{args.out.stem}.checkpoint.jsonl")
    result = search(bench, args.editor, args.settings, args.space, protocol, args.seed, checkpoint)
    write_jsonl(args.out, result)
    checkpoint.unlink()


@stage(searches={"nargs": "+", "help": "results of `tune`, as MODEL/DATASETS/METHOD.jsonl"}, out=CSV)
def search_table(args: argparse.Namespace) -> None:
    """Tabulate searches: budget, spread over the draws, finalists, and the settings that were chosen."""
    from jeep.report.searches import write_searches

    write_searches(args.searches, args.out)
