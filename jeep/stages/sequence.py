"""The stage that edits in sequence: batch after batch, measured on the way.

It imports what it needs inside, so that its code digest covers its own modules and no others.
"""

from pathlib import Path

from jeep.stages.options import (
    Checkpoint,
    Covariances,
    EditorName,
    Eigenvectors,
    Facts,
    HyperNetworkFile,
    Measure,
    Neighbours,
    Norms,
    Out,
    RunColumns,
    SampleOptions,
    Settings,
    Solver,
    Written,
)


def sequence(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    prefixes: Path | None = None,
    covariance: Covariances = (),
    eigenvectors: Eigenvectors = (),
    norms: Norms = None,
    neighbours: Neighbours = None,
    hypernetwork: HyperNetworkFile = None,
    editor: EditorName | None = None,
    settings: Settings | None = None,
    batches: int,
    edits: int,
    measure_every: int = 1,
    solver: Solver = None,
    metrics: Measure,
    sample: SampleOptions | None = None,
    held_out: int = 0,
    run_columns: RunColumns = None,
    trace: Written,
    deltas: Written | None = None,
    out: Out,
) -> None:
    """Edit one batch after another, each on the model that the batches before left; without an editor, only measure.

    A run that was killed goes on from its last finished batch, and inside a batch from its last target vectors.

    Args:
        prefixes: prefixes, as the stage `prefixes` wrote them
        covariance: of every layer that is edited, in the unedited model
        batches: number of batches
        edits: facts of each batch, in their order
        measure_every: measure all facts so far after the first batch, after every so many, and after the last
        held_out: tokens of the corpus that covariances have not read; drift is measured on them (default: not at all)
        trace: where it is kept, as JSON, what each batch did
        deltas: where the change of all batches together goes
        out: where the results per record go
    """
    from jeep.common.errors import UserError
    from jeep.common.places import require_layers
    from jeep.common.provenance import code_digest
    from jeep.common.storage import read_json, write_json
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.measure.drift import SHORT, held_out_windows
    from jeep.model.files import write_of
    from jeep.model.progress import fingerprint
    from jeep.runs.at_once import write_records
    from jeep.runs.given import Given, stamps
    from jeep.runs.kept import Kept
    from jeep.runs.sequence import SequenceRun

    method, model = load_editor(editor, settings or {}) if editor else None, checkpoint.load()
    chosen = load_facts(facts)[: batches * edits]
    if len(chosen) < batches * edits:
        raise UserError(f"{facts}: {len(chosen)} facts, and {batches} batches of {edits} are asked for")
    if method is not None:
        require_layers(method.written, model.depth)
    given = Given(covariance, eigenvectors, norms, neighbours, hypernetwork, solver)
    task = given.task(model, [], read_json(prefixes) if prefixes else ["{}"], checkpoint.token_budget)
    code = code_digest("jeep.stages.sequence:sequence", *([f"jeep.editors.{editor}"] if editor else []))
    windows = held_out_windows(model, sample, held_out, SHORT) if held_out else []
    mark = fingerprint(
        model, method, chosen, edits, measure_every, task.prefixes, metrics, windows, stamps(given.files), code
    )
    kept = Kept(out.with_name(f".{out.stem}.partial"), mark)
    run = SequenceRun(model, method, chosen, edits, measure_every, task, metrics, windows, kept)
    results, notes, total = run.run()
    write_json(trace, [{**(run_columns or {}), **note} for note in notes])
    if deltas is not None:
        write_of(model.identity, deltas, total, {"editor": editor, "settings": settings, "edits": len(chosen)})
    write_records(out, results.items(), run_columns)
    kept.clear()
