"""Target vectors on disk: one safetensors file a shard, written batch by batch so that a killed shard goes on."""

import hashlib
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.provenance import code_digest
from jeep.common.settings import TargetSpec
from jeep.common.storage import read_json, read_provenance, read_tensors, write_json
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.files import read_of, write_of
from jeep.model.progress import fingerprint
from jeep.model.tokens import Request
from jeep.vectors.targets import Target, optimize, report_unusable


def optimize_shard(
    model: EditableModel,
    facts: Sequence[Fact],
    prefixes: Sequence[str],
    spec: TargetSpec,
    token_budget: int,
    out: Path,
    seconds: Path | None = None,
) -> None:
    """Optimise the facts' target vectors and write them to `out`, in the facts' order.

    What `out` has of the same model, settings, code, fact and prefixes is kept, so that more facts take only their own
    time. Batches are kept in a folder beside `out` while the job runs; a job that was killed goes on from them. Facts
    whose optimisation leaves the finite numbers are logged by case id and left out of the file. `seconds` is a file for
    what each took, and what those took together that were kept.
    """
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    base = fingerprint(model, spec, code_digest("jeep.vectors.targets"))
    marks = {request.case_id: _mark(base, request) for request in requests}
    partial = out.parent / f".{out.stem}-{base}"
    for stale in out.parent.glob(f".{out.stem}-*"):
        if stale != partial:
            shutil.rmtree(stale)
    done = _kept([out, *sorted(partial.glob("*.safetensors"))], marks)
    kept = list(done)
    failed: list[str] = []
    todo = [request for request in requests if request.case_id not in done]
    times = _times(seconds, done)
    started = time.monotonic()
    with tqdm(total=len(requests), initial=len(done), desc="target vectors", unit="edit") as progress:
        for batch in optimize(model, todo, spec.sites, spec.optimization, token_budget):
            times |= dict.fromkeys((target.case_id for target in batch), (time.monotonic() - started) / len(batch))
            started = time.monotonic()
            good = [target for target in batch if target.finite]
            failed += [target.case_id for target in batch if not target.finite]
            report_unusable(batch)
            if good:
                name = hashlib.sha256(good[0].case_id.encode()).hexdigest()[:16]
                _write(model.identity, partial / f"{name}.safetensors", good, marks, spec)
            done |= {target.case_id: target for target in good}
            progress.update(len(batch))
    ordered = [done[request.case_id] for request in requests if request.case_id in done]
    _write(model.identity, out, ordered, marks, spec, failed)
    if seconds is not None:
        write_json(seconds, {"kept": sum(times[case_id] for case_id in kept), "of": times})
    shutil.rmtree(partial, ignore_errors=True)


def _times(path: Path | None, done: Iterable[str]) -> dict[str, float]:
    """Seconds of the vectors that an earlier run of the job made; 0 where nothing is known of one."""
    known = read_json(path)["of"] if path is not None and path.is_file() else {}
    return {case_id: known.get(case_id, 0.0) for case_id in done}


def _mark(base: str, request: Request) -> str:
    """What a target vector depends on."""
    return hashlib.sha256(f"{base} {request!r}".encode()).hexdigest()[:16]


def _kept(paths: Iterable[Path], marks: dict[str, str]) -> dict[str, Target]:
    """The target vectors of earlier runs, by case id, that would come out the same."""
    kept: dict[str, Target] = {}
    for path in paths:
        try:
            known = read_provenance(path).get("marks", {}) if path.exists() else {}
        except UserError:
            continue  # a file that is broken is made anew
        if any(marks.get(case_id) == mark for case_id, mark in known.items()):
            found = _targets(*read_tensors(path))
            kept |= {case: target for case, target in found.items() if marks.get(case) == known.get(case, "")}
    return kept


def _write(
    identity: str,
    path: Path,
    targets: Sequence[Target],
    marks: dict[str, str],
    spec: TargetSpec,
    failed: Iterable[str] = (),
) -> None:
    steps = spec.optimization.steps

    def table(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([row + [math.nan] * (steps - len(row)) for row in rows])

    tensors = {
        "values": torch.stack([target.values for target in targets]) if targets else torch.empty(0),
        "states": torch.stack([target.states for target in targets]) if targets else torch.empty(0),
        "losses": table([target.losses for target in targets]),
        "probabilities": table([target.probabilities for target in targets]),
    }
    provenance = {
        "case_ids": [target.case_id for target in targets],
        "failed": list(failed),
        "spec": spec.model_dump(mode="json"),
        "marks": {target.case_id: marks[target.case_id] for target in targets},
    }
    write_of(identity, path, tensors, provenance)


def read_targets(
    paths: Iterable[Path], model: EditableModel, spec: TargetSpec, facts: Sequence[Fact]
) -> dict[str, Target]:
    """The target vectors of all shards, by case id; of a fact whose optimisation did not stay finite there is none.

    Raises UserError where they are of another model, of other settings, or where a fact is in none of the shards.
    """
    targets: dict[str, Target] = {}
    failed: set[str] = set()
    identity = model.identity
    for path in paths:
        tensors, provenance = read_of(identity, path)
        if provenance["spec"] != spec.model_dump(mode="json"):
            raise UserError(f"{path}: target vectors of another method, or of other settings; delete it")
        targets |= _targets(tensors, provenance)
        failed.update(provenance["failed"])
    lost = [fact.case_id for fact in facts if fact.case_id not in targets and fact.case_id not in failed]
    if lost:
        raise UserError(f"no target vectors of {len(lost)} facts, such as record {lost[0]}: is a shard missing?")
    return targets


def _targets(tensors: Mapping[str, torch.Tensor], provenance: Mapping[str, Any]) -> dict[str, Target]:
    """The target vectors of a file."""
    targets = {}
    for row, case_id in enumerate(provenance["case_ids"]):
        losses = [loss for loss in tensors["losses"][row].tolist() if not math.isnan(loss)]
        probabilities = tensors["probabilities"][row, : len(losses)].tolist()
        targets[case_id] = Target(case_id, tensors["values"][row], tensors["states"][row], losses, probabilities)
    return targets
