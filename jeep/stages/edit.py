"""Stages that edit and measure: target vectors, changes, checkpoints, evaluation, the search for settings.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from jeep.data.facts import Fact
    from jeep.model.editable import EditableModel


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
    edits: Counts = (),
    solver: str | None = None,
    metrics: Metrics | None = None,
    run_columns: Json | None = None,
    records: Path | None = None,
    seconds: Path | None = None,
    out: Out,
) -> None:
    """Write the first facts into the model with an editor, save the change of each parameter, and measure it if asked.

    Args:
        targets: all shards of the target vectors
        covariance: of every layer that is edited
        hypernetwork: the editor's trained hyper-network
        edits: for each, write the first N facts alone; their change is N.safetensors (default: all)
        solver: device of the normal equations (default: the model's)
        metrics: how each edit is measured (default: not at all)
        run_columns: columns of the results that name the run, as JSON
        records: where the results per record go
        seconds: where it is kept how long loading and each edit took, for the table of costs
        out: a folder for the changes
    """
    import time

    import torch

    from jeep.common.settings import require_layers
    from jeep.common.storage import atomic, read_json, unfinished, write_json
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.files import read_of, write_of
    from jeep.vectors.files import read_targets
    from jeep.vectors.task import Task
    from jeep.writing.covariance import read_covariances

    started = time.monotonic()
    method, model = load_editor(editor, settings), checkpoint.load()
    require_layers(method.written, model.depth)
    chosen = load_facts(facts)
    counts = sorted(edits) or [len(chosen)]
    vectors = read_targets(targets, model, method.target_spec, chosen[: counts[-1]]) if method.target_spec else None
    network = read_of(model.identity, hypernetwork)[0] if hypernetwork else {}
    network.pop("losses", None)  # for the figure of the training
    task = Task(
        chosen[: counts[-1]],
        read_json(prefixes),
        checkpoint.token_budget,
        covariance=read_covariances(covariance, model),
        hypernetwork=network,
        checkpoint=unfinished(out),
        solver=torch.device(solver) if solver else None,
    )
    tasks = [task.of_first(count, vectors) for count in counts]
    took, results = {"loading": time.monotonic() - started}, []
    with atomic(out) as folder:
        changes = method.edits(model, tasks)
        for count, part in zip(counts, tasks, strict=True):
            started = time.monotonic()
            deltas = _finite(next(changes))
            took[str(count)] = time.monotonic() - started
            left_out = [fact.case_id for fact in chosen[:count] if vectors and fact.case_id not in vectors]
            provenance = {"editor": editor, "settings": settings, "edits": len(part.facts), "left_out": left_out}
            write_of(model.identity, folder / f"{count}.safetensors", deltas, provenance | {"trace": part.trace})
            if metrics:
                results.append(_measured(model, deltas, chosen[:count], metrics, checkpoint.token_budget))
        next(changes, None)  # its checkpoint is needed no more
    if records:
        _write_records(records, results, counts, run_columns)
    if seconds:
        write_json(seconds, took)


def _finite(deltas: dict[str, Tensor]) -> dict[str, Tensor]:
    """The changes. Raises UserError where one is not finite."""
    import torch

    from jeep.common.errors import UserError

    broken = [name for name, delta in deltas.items() if not torch.isfinite(delta).all()]
    if broken:
        raise UserError(f"the change of {', '.join(broken)} is not finite: float32 may help")
    return deltas


def _measured(
    model: EditableModel, deltas: dict[str, Tensor], facts: Sequence[Fact], metrics: Metrics, token_budget: int
) -> pd.DataFrame:
    """Results of facts in the model with some changes."""
    from jeep.measure.evaluate import evaluate

    logging.info("after %d edits", len(facts))
    with model.edited(deltas):
        return evaluate(model, facts, metrics, token_budget)


def _write_records(
    path: Path, results: Sequence[pd.DataFrame], counts: Sequence[int], run_columns: dict[str, Any] | None
) -> None:
    """The results of a run after each number of edits in one file."""
    import pandas as pd

    from jeep.common.storage import atomic

    rows = [each.assign(edits=count, **run_columns or {}) for each, count in zip(results, counts, strict=True)]
    with atomic(path) as temporary:
        pd.concat(rows).to_parquet(temporary, index=False)


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
    run_columns: Json | None = None,
    out: Out,
) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any.

    Args:
        deltas: edits, each applied alone (default: the unedited model)
        edits: for each, measure the first N facts (default: all)
        run_columns: columns that name the run, as JSON
    """
    from jeep.common.errors import UserError
    from jeep.data.facts import load_facts
    from jeep.model.files import read_of

    model = checkpoint.load()
    chosen = load_facts(facts)
    counts = list(edits) or [len(chosen)]
    if deltas and len(deltas) != len(counts):
        raise UserError(f"{len(deltas)} edits to apply, but {len(counts)} numbers of facts to measure them on")
    if deltas:
        changes = (read_of(model.identity, path)[0] for path in deltas)
        results = [
            _measured(model, change, chosen[:count], metrics, checkpoint.token_budget)
            for change, count in zip(changes, counts, strict=True)
        ]
    else:
        unedited = _measured(model, {}, chosen[: max(counts)], metrics, checkpoint.token_budget)
        first = [{fact.case_id for fact in chosen[:count]} for count in counts]
        results = [unedited[unedited["case_id"].isin(names)] for names in first]
    _write_records(out, results, counts, run_columns)


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
