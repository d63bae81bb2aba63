"""Stages that edit and measure: target vectors, changes, checkpoints, evaluation, the search for settings.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jeep.common.settings import Metrics
from jeep.stages.options import (
    Checkpoint,
    Counts,
    Covariances,
    Csv,
    EditorName,
    Facts,
    Files,
    Json,
    Limit,
    Many,
    Measure,
    Out,
    Prefixes,
    Seed,
    Settings,
    Shard,
    Words,
)


def targets(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    prefixes: Prefixes,
    limit: Limit = None,
    shard: Shard = (0, 1),
    spec: Json,
    compile: bool = False,
    seconds: Path | None = None,
    out: Out,
) -> None:
    """Optimise the target vectors of one shard of the facts; those that are in the file already are kept.

    Args:
        spec: sites and optimization of the editor, as JSON
        compile: through torch.compile
        seconds: where it is kept how long each took, for the table of costs
    """
    from jeep.common.settings import TargetSpec
    from jeep.common.storage import read_json
    from jeep.data.facts import load_facts
    from jeep.vectors.files import optimize_shard

    first, shards = shard
    optimize_shard(
        checkpoint.load(compiled=compile),
        load_facts(facts)[:limit][first::shards],
        read_json(prefixes),
        TargetSpec.model_validate(spec),
        checkpoint.token_budget,
        out,
        seconds,
    )


def edit(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    prefixes: Prefixes,
    targets: Files = (),
    covariance: Covariances = (),
    hypernetwork: Path | None = None,
    editor: EditorName,
    settings: Settings,
    edits: Limit = None,
    solver: str | None = None,
    out: Out,
) -> None:
    """Write the first facts into the model with an editor; save the change of each parameter.

    Args:
        targets: all shards of the target vectors
        covariance: of every layer that is edited
        hypernetwork: the editor's trained hyper-network
        solver: device of the normal equations (default: the model's)
    """
    import torch

    from jeep.common.errors import UserError
    from jeep.common.settings import require_layers
    from jeep.common.storage import read_json, unfinished
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.files import read_of, write_of
    from jeep.vectors.files import read_targets
    from jeep.vectors.task import Task
    from jeep.writing.covariance import read_covariances

    method, model = load_editor(editor, settings), checkpoint.load()
    require_layers(method.written, model.depth)
    chosen = load_facts(facts)[:edits]
    vectors = read_targets(targets, model, method.target_spec, chosen) if method.target_spec else {}
    unusable = [fact.case_id for fact in chosen if method.target_spec and fact.case_id not in vectors]
    chosen = [fact for fact in chosen if fact.case_id not in unusable]
    if not chosen:
        raise UserError("no fact has a target vector that stayed finite: a smaller learning rate, or float32, may help")
    if unusable:
        logging.warning("left out, their optimisation did not stay finite: %s", ", ".join(unusable))
    network = read_of(model.identity, hypernetwork)[0] if hypernetwork else {}
    network.pop("losses", None)  # for the figure of the training
    task = Task(
        chosen,
        read_json(prefixes),
        checkpoint.token_budget,
        [vectors[fact.case_id] for fact in chosen] if method.target_spec else [],
        read_covariances(covariance, model),
        network,
        checkpoint=unfinished(out),
        solver=torch.device(solver) if solver else None,
    )
    deltas = method.edit(model, task)
    broken = [name for name, delta in deltas.items() if not torch.isfinite(delta).all()]
    if broken:
        raise UserError(f"the change of {', '.join(broken)} is not finite: float32 may help")
    provenance = {
        "editor": editor,
        "settings": settings,
        "edits": len(chosen),
        "left_out": unusable,
        "trace": task.trace,
    }
    write_of(model.identity, out, deltas, provenance)


def apply_edit(*, checkpoint: Checkpoint, deltas: Path, out: Out) -> None:
    """Add an edit's changes to a checkpoint and save it as an ordinary Hugging Face folder.

    Args:
        deltas: the edit to apply
    """
    from jeep.common.storage import atomic
    from jeep.model.files import read_of

    model = checkpoint.load("cpu")
    model.add_(read_of(model.identity, deltas)[0])
    with atomic(out) as folder:
        model.save(folder)


def evaluate(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    metrics: Measure,
    deltas: Files = (),
    edits: Counts = (),
    shard: Shard = (0, 1),
    run_columns: Json | None = None,
    out: Out,
) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any, on one shard.

    Args:
        deltas: edits, each applied alone (default: the unedited model)
        edits: for each, measure the first N (default: all)
        run_columns: columns that name the run, as JSON
    """
    import pandas as pd

    from jeep.common.errors import UserError
    from jeep.common.storage import atomic
    from jeep.data.facts import load_facts
    from jeep.measure.evaluate import evaluate as measure
    from jeep.model.files import read_of

    model = checkpoint.load()
    chosen = load_facts(facts)
    first, shards = shard
    counts = edits or [len(chosen)]
    if deltas and len(deltas) != len(counts):
        raise UserError(f"{len(deltas)} edits to apply, but {len(counts)} numbers of facts to measure them on")

    def measured(count: int) -> pd.DataFrame:
        return measure(model, chosen[:count][first::shards], metrics, checkpoint.token_budget)

    results = []
    unedited = None if deltas else measured(max(counts))
    for number, count in enumerate(counts):
        if unedited is not None:
            result = unedited[unedited["case_id"].isin([fact.case_id for fact in chosen[:count]])]
        else:
            logging.info("after %d edits", count)
            with model.edited(read_of(model.identity, deltas[number])[0]):
                result = measured(count)
        results.append(result.assign(edits=count, **run_columns or {}))
    with atomic(out) as temporary:
        pd.concat(results).to_parquet(temporary, index=False)


def collect(*, records: Files, out: Out) -> None:
    """Gather per-record results of many runs in one table.

    Args:
        records: per-record results
    """
    import pandas as pd

    from jeep.common.storage import atomic

    with atomic(out) as temporary:
        pd.concat(map(pd.read_parquet, records), ignore_index=True).to_parquet(temporary, index=False)


def search(
    *,
    checkpoint: Checkpoint,
    datasets: Words,
    facts: Files,
    metrics: Annotated[Sequence[Metrics], Many, Parameter(help="how each is measured")],
    prefixes: Prefixes,
    covariance: Covariances = (),
    training: Files = (),
    limit: Limit = None,
    editor: EditorName,
    settings: Settings,
    space: Json,
    protocol: Json,
    seed: Seed = 0,
    out: Out,
) -> None:
    """Search an editor's settings on development facts, scored by Score; a search that was killed goes on.

    Args:
        datasets: names of the data sets whose settings are searched together
        facts: development facts of each
        covariance: of all layers in the search space
        training: facts that hyper-networks are trained on
        limit: take the first N training facts of each file (default: all)
        settings: the settings that the space leaves out, as JSON
        space: values to try for each setting, as JSON
        protocol: facts, draws, variants and finalists, as JSON
    """
    from jeep.common.settings import Protocol
    from jeep.common.storage import read_json, unfinished, write_jsonl
    from jeep.data.facts import load_facts
    from jeep.tuning.bench import Bench, DevelopmentSet
    from jeep.tuning.search import search as search_settings
    from jeep.writing.covariance import read_covariances

    named = zip(datasets, facts, metrics, strict=True)
    model = checkpoint.load()
    bench = Bench(
        model,
        [DevelopmentSet(name, load_facts(path), measured_by) for name, path, measured_by in named],
        read_json(prefixes),
        read_covariances(covariance, model),
        checkpoint.token_budget,
        [fact for path in training for fact in load_facts(path)[:limit]],
    )
    notes = unfinished(out)
    result = search_settings(bench, editor, settings, space, Protocol.model_validate(protocol), seed, notes)
    write_jsonl(out, result)
    notes.unlink()


def search_table(*, searches: Files, out: Csv) -> None:
    """Tabulate searches: budget, spread over the draws, finalists, and the settings that were chosen.

    Args:
        searches: results of `search`, as MODEL/DATASETS/METHOD.jsonl
    """
    from jeep.report.searches import write_searches

    write_searches(searches, out)
