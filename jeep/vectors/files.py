"""Target vectors on disk: one safetensors file a shard, written batch by batch so that a killed shard goes on."""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from jeep.common.settings import TargetSpec
from jeep.common.storage import read_tensors, write_tensors
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
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
) -> None:
    """Optimise the facts' target vectors and write them to `out`, in the facts' order.

    Batches are kept in a folder beside `out` while the job runs; a job that was killed goes on from them. Facts whose
    optimisation leaves the finite numbers are logged by case id and left out of the file.
    """
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    partial = out.parent / f".{out.stem}-{fingerprint(model, requests, spec)}"
    for stale in out.parent.glob(f".{out.stem}-*"):
        if stale != partial:
            shutil.rmtree(stale)
    done = read_targets(sorted(partial.glob("*.safetensors")))
    failed: list[str] = []
    todo = [request for request in requests if request.case_id not in done]
    with tqdm(total=len(requests), initial=len(done), desc="target vectors", unit="edit") as progress:
        for batch in optimize(model, todo, spec.sites, spec.optimization, token_budget):
            good = [target for target in batch if target.finite]
            failed += [target.case_id for target in batch if not target.finite]
            report_unusable(batch)
            if good:
                _write(partial / f"{good[0].case_id}.safetensors".replace("/", "_"), good, spec)
            done |= {target.case_id: target for target in good}
            progress.update(len(batch))
    _write(out, [done[request.case_id] for request in requests if request.case_id in done], spec, failed)
    shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, targets: Sequence[Target], spec: TargetSpec, failed: Iterable[str] = ()) -> None:
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
    }
    write_tensors(path, tensors, provenance)


def read_targets(paths: Iterable[Path]) -> dict[str, Target]:
    """The target vectors of all shards, by case id."""
    targets: dict[str, Target] = {}
    for path in paths:
        tensors, provenance = read_tensors(path)
        for row, case_id in enumerate(provenance["case_ids"]):
            losses = [loss for loss in tensors["losses"][row].tolist() if not math.isnan(loss)]
            targets[case_id] = Target(
                case_id,
                tensors["values"][row],
                tensors["states"][row],
                losses,
                tensors["probabilities"][row, : len(losses)].tolist(),
            )
    return targets
