"""Seconds per edit and peak memory of every method, from the benchmark files of its jobs, beside Appendix D's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.artifacts.tables import Labels, label, write_texts
from jeep.storage import atomic

COLUMNS = ["dataset", "model", "method", "seconds_per_edit", "training_seconds", "peak_gb", "paper_seconds_per_edit"]


def write_costs(
    jobs: Sequence[Mapping[str, str]],
    edits: int,
    reported: Path,
    names: Mapping[str, Mapping[str, str]],
    labels: Labels,
    out: Path,
) -> None:
    """Write CSV, Markdown and LaTeX. `jobs`: dataset, model, method, seed, kind (targets, edit, training) and benchmark.

    Seconds are summed over a run's jobs, loading included, and averaged over seeds; the training of a hyper-network
    stands apart. Peak memory is the largest resident set of any job. The paper gives hours for 10 000 edits.
    """
    rows = []
    for job in jobs:
        measured = pd.read_csv(job["benchmark"], sep="\t", na_values="-").iloc[-1]
        rows.append({**job, "seconds": measured["s"], "gb": measured["max_rss"] / 1024})
    table = pd.DataFrame(rows)
    paper = pd.read_csv(reported)
    paper = paper[paper["artifact"] == "appendix_d"].set_index(["dataset", "model", "method"])["value"]
    result = []
    for (dataset, model, method), group in table.groupby(["dataset", "model", "method"], sort=False):
        training = group["kind"] == "training"
        edit = group[~training].groupby("seed")["seconds"].sum().mean() / edits
        key = (names.get("datasets", {}).get(dataset), names.get("models", {}).get(model), method)
        hours = paper.get(key, float("nan"))
        trained = group.loc[training, "seconds"].sum() if training.any() else float("nan")
        result.append((dataset, model, method, edit, trained, group["gb"].max(), hours * 3600 / 10_000))
    costs = pd.DataFrame(result, columns=COLUMNS).round(2)
    with atomic(out) as temporary:
        costs.to_csv(temporary, index=False)
    named = costs.assign(
        dataset=[label(labels, "datasets", name) for name in costs["dataset"]],
        model=[label(labels, "models", name) for name in costs["model"]],
        method=[label(labels, "methods", name) for name in costs["method"]],
    ).fillna("")
    shown = {"Cost": named.set_index("dataset")}
    caption = f"{edits} edits; wall seconds of the jobs, loading included; peak resident memory."
    write_texts(out, shown, {"Cost": shown["Cost"].rename(columns=lambda name: name.replace("_", " "))}, caption)
