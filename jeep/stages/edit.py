"""Stages that edit and measure: target vectors, changes, checkpoints, evaluation, the search for settings.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

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
    Eigenvectors,
    Facts,
    Files,
    HyperNetworkFile,
    Json,
    Limit,
    Many,
    Measure,
    NeighbourFiles,
    Neighbours,
    Norms,
    Out,
    Prefixes,
    RunColumns,
    Seed,
    Settings,
    Shard,
    Solver,
    Words,
    Written,
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
    seconds: Written | None = None,
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


def target_norms(
    *, checkpoint: Checkpoint, facts: Facts, prefixes: Prefixes, limit: Limit = None, spec: Json, out: Out
) -> None:
    """Measure the mean norm of what target vectors ask of an MLP, on facts that are not edited.

    Args:
        spec: sites and optimization of the editor, as JSON
    """
    from jeep.common.settings import TargetSpec
    from jeep.common.storage import read_json, write_json
    from jeep.data.facts import load_facts
    from jeep.vectors.targets import optimize_facts, with_finite_targets
    from jeep.writing.anchors import mean_norms

    model, asked = checkpoint.load(), TargetSpec.model_validate(spec)
    chosen, budget = load_facts(facts)[:limit], checkpoint.token_budget
    targets = optimize_facts(model, chosen, read_json(prefixes), asked, budget)
    write_json(out, mean_norms(model, *with_finite_targets(chosen, targets), asked.sites, budget))


def edit(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    prefixes: Prefixes,
    targets: Files = (),
    covariance: Covariances = (),
    eigenvectors: Eigenvectors = (),
    norms: Norms = None,
    neighbours: Neighbours = None,
    hypernetwork: HyperNetworkFile = None,
    editor: EditorName,
    settings: Settings,
    edits: Counts = (),
    solver: Solver = None,
    metrics: Metrics | None = None,
    run_columns: RunColumns = None,
    records: Written | None = None,
    seconds: Written | None = None,
    out: Out,
) -> None:
    """Write the first facts into the model with an editor, save the change of each parameter, and measure it if asked.

    Args:
        targets: all shards of the target vectors
        covariance: of every layer that is edited
        edits: for each, write the first N facts alone; their change is N.safetensors (default: all)
        metrics: how each edit is measured (default: not at all)
        records: where the results per record go
        seconds: where it is kept how long loading and each edit took, for the table of costs
        out: a folder for the changes
    """
    import time

    from jeep.common.errors import UserError
    from jeep.common.places import require_layers
    from jeep.common.provenance import code_digest
    from jeep.common.storage import read_json, write_json
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.progress import fingerprint
    from jeep.runs.at_once import Run, write_records
    from jeep.runs.given import Given, stamps
    from jeep.vectors.files import read_targets

    if bool(records) != bool(metrics):
        raise UserError("an edit is measured with both --metrics and --records, or not at all")
    started = time.monotonic()
    method, model = load_editor(editor, settings), checkpoint.load()
    require_layers(method.written, model.depth)
    chosen = load_facts(facts)
    counts = sorted(set(edits)) or [len(chosen)]
    chosen = chosen[: counts[-1]]
    vectors = read_targets(targets, model, method.target_spec, chosen) if method.target_spec else None
    given = Given(covariance, eigenvectors, norms, neighbours, hypernetwork, solver)
    task = given.task(model, chosen, read_json(prefixes), checkpoint.token_budget)
    code = code_digest("jeep.stages.edit:edit", f"jeep.editors.{editor}")
    run = Run(
        model,
        method,
        chosen,
        {count: task.of_first(count, vectors) for count in counts},
        metrics,
        out,
        {"editor": editor, "settings": settings},
        fingerprint(model, method, chosen, task.prefixes, metrics, stamps([*targets, *given.files]), code),
    )
    loading = time.monotonic() - started
    results, took = run.make()
    if records:
        write_records(records, results.items(), run_columns)
    if seconds:
        write_json(seconds, {"loading": loading} | {str(count): each for count, each in took.items()})
    run.publish()


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
    run_columns: RunColumns = None,
    out: Out,
) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any.

    Args:
        deltas: edits, each applied alone (default: the unedited model)
        edits: for each, measure the first N facts (default: all)
    """
    from jeep.common.errors import UserError
    from jeep.data.facts import load_facts
    from jeep.model.files import read_of
    from jeep.runs.at_once import measured, write_records

    model = checkpoint.load()
    chosen = load_facts(facts)
    counts = list(edits) or [len(chosen)]
    if deltas and len(deltas) != len(counts):
        raise UserError(f"{len(deltas)} edits to apply, but {len(counts)} numbers of facts to measure them on")
    if deltas:
        results = [
            measured(model, read_of(model.identity, path)[0], chosen[:count], metrics, checkpoint.token_budget)
            for count, path in zip(counts, deltas, strict=True)
        ]
    else:
        unedited = measured(model, {}, chosen[: max(counts)], metrics, checkpoint.token_budget)
        first = [[fact.case_id for fact in chosen[:count]] for count in counts]
        results = [unedited[unedited["case_id"].isin(names)] for names in first]
    write_records(out, zip(counts, results, strict=True), run_columns)


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
    neighbours: NeighbourFiles = (),
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

    subjects = [read_json(path) for path in neighbours] or [{} for _ in facts]
    named = zip(datasets, facts, metrics, subjects, strict=True)
    model = checkpoint.load()
    bench = Bench(
        model,
        [DevelopmentSet(name, load_facts(path), measured_by, others) for name, path, measured_by, others in named],
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
