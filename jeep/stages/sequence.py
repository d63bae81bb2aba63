"""The stage that edits in sequence: batch after batch, measured on the way.

It imports what it needs inside, so that its code digest covers its own modules and no others.
"""

from pathlib import Path

from jeep.stages.options import (
    Checkpoint,
    Covariances,
    EditorName,
    Facts,
    Files,
    Json,
    Measure,
    Out,
    Settings,
)


def sequence(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    prefixes: Path | None = None,
    covariance: Covariances = (),
    eigenvectors: Files = (),
    norms: Path | None = None,
    neighbours: Path | None = None,
    hypernetwork: Path | None = None,
    editor: EditorName | None = None,
    settings: Settings | None = None,
    batches: int,
    edits: int,
    measure_every: int = 1,
    solver: str | None = None,
    metrics: Measure,
    run_columns: Json | None = None,
    trace: Path,
    deltas: Path | None = None,
    out: Out,
) -> None:
    """Edit one batch after another, each on the model that the batches before left; without an editor, only measure.

    A run that was killed goes on from its last finished batch, and inside a batch from its last target vectors.

    Args:
        prefixes: prefixes, as the stage `prefixes` wrote them
        covariance: of every layer that is edited, in the unedited model
        eigenvectors: of those covariances in whose null space something is written (default: found here)
        norms: of target vectors, as the stage `target-norms` wrote them
        neighbours: subjects of neighbours, as the stage `neighbours` wrote them
        hypernetwork: the editor's trained hyper-network
        batches: number of batches
        edits: facts of each batch, in their order
        measure_every: measure all facts so far after every so many batches, and after the last
        solver: device of the normal equations (default: the model's)
        run_columns: columns of the results that name the run, as JSON
        trace: where it is kept, as JSON, what each batch did
        deltas: where the change of all batches together goes
        out: where the results per record go
    """
    import torch

    from jeep.common.errors import UserError
    from jeep.common.provenance import code_digest
    from jeep.common.settings import require_layers
    from jeep.common.storage import read_json, write_json
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.files import read_of, write_of
    from jeep.model.progress import fingerprint
    from jeep.runs.at_once import write_records
    from jeep.runs.sequence import SequenceRun
    from jeep.vectors.task import Task
    from jeep.writing.covariance import read_covariances
    from jeep.writing.null_space import read_eigenvectors

    method, model = load_editor(editor, settings or {}) if editor else None, checkpoint.load()
    chosen = load_facts(facts)[: batches * edits]
    if len(chosen) < batches * edits:
        raise UserError(f"{facts}: {len(chosen)} facts, and {batches} batches of {edits} are asked for")
    if method is not None:
        require_layers(method.written, model.depth)
    network = read_of(model.identity, hypernetwork)[0] if hypernetwork else {}
    network.pop("losses", None)  # for the figure of the training
    task = Task(
        [],
        read_json(prefixes) if prefixes else ["{}"],
        checkpoint.token_budget,
        covariance=read_covariances(covariance, model),
        eigenvectors=read_eigenvectors(eigenvectors, model),
        norms=read_json(norms) if norms else (),
        hypernetwork=network,
        neighbours=read_json(neighbours) if neighbours else {},
        solver=torch.device(solver) if solver else None,
    )
    files = (*covariance, *eigenvectors, *filter(None, [norms, neighbours, hypernetwork]))
    read = [(path.name, path.stat().st_mtime_ns) for path in files]
    code = code_digest("jeep.stages.sequence:sequence", *([f"jeep.editors.{editor}"] if editor else []))
    mark = fingerprint(model, method, chosen, edits, measure_every, task.prefixes, metrics, read, code)
    folder = out.with_name(f".{out.stem}.partial")
    run = SequenceRun(model, method, chosen, edits, measure_every, task, metrics, folder, mark)
    results, notes, total = run.run()
    write_json(trace, [{**(run_columns or {}), **note} for note in notes])
    if deltas is not None:
        write_of(model.identity, deltas, total, {"editor": editor, "settings": settings, "edits": len(chosen)})
    write_records(out, results.items(), run_columns)
    run.clear()
