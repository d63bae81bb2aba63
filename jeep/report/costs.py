"""Seconds per edit and peak memory of every method, from the benchmark files of its jobs, beside Appendix D's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jeep.common.storage import atomic, read_json
from jeep.report.tables import Labels, label
from jeep.report.texts import write_texts

RUN = ["dataset", "model", "method"]
COLUMNS = [*RUN, "seconds_per_edit", "training_seconds", "peak_gb", "paper_seconds_per_edit"]
PAPER_EDITS = 10_000
"""Appendix D gives the hours of this many edits."""


def write_costs(
    jobs: Sequence[Sequence[str | int]],
    benchmarks: Sequence[Path],
    kept: Sequence[Path],
    took: Sequence[Path],
    edits: int,
    reported: Path,
    names: Mapping[str, Mapping[str, str]],
    labels: Labels,
    out: Path,
) -> None:
    """Write CSV, Markdown, LaTeX and HTML. A job: data set, model, method, seed and kind (targets, edit or training).

    Seconds are summed over a run's jobs, loading included, and averaged over seeds; the training of a hyper-network
    stands apart. `kept` are files of the jobs that make target vectors, in their order: of vectors that an earlier run
    of a job made, its seconds count too. `took` are files of the jobs that edit, which also measure: loading and the
    edit count. Peak memory is the largest resident set of any job.
    """
    measured = pd.concat([pd.read_csv(path, sep="\t", na_values="-").tail(1) for path in benchmarks], ignore_index=True)
    table = pd.DataFrame(jobs, columns=[*RUN, "seed", "kind"])
    table = table.assign(seconds=measured["s"].astype(float), gb=measured["max_rss"] / 1024)
    table.loc[table["kind"] == "targets", "seconds"] += [read_json(path)["kept"] for path in kept]
    parts = [read_json(path) for path in took]
    table.loc[table["kind"] == "edit", "seconds"] = [part["loading"] + part[str(edits)] for part in parts]
    training = table["kind"] == "training"
    each = table[~training].groupby([*RUN, "seed"], sort=False)["seconds"].sum()
    costs = pd.DataFrame(
        {
            "seconds_per_edit": each.groupby(level=RUN, sort=False).mean() / edits,
            "training_seconds": table[training].groupby(RUN)["seconds"].sum(),
            "peak_gb": table.groupby(RUN)["gb"].max(),
        }
    )
    costs = costs.loc[list(dict.fromkeys(table[RUN].itertuples(index=False, name=None)))].reset_index()
    costs = costs.merge(_reported(reported, names), how="left", on=RUN)[COLUMNS].round(2)
    with atomic(out) as temporary:
        costs.to_csv(temporary, index=False)
    named = costs.astype(object).fillna("")
    for kind in ("datasets", "models", "methods"):
        column = kind.removesuffix("s")
        named[column] = [label(labels, kind, name) for name in costs[column]]
    shown = {"Cost": named.rename(columns=lambda name: name.replace("_", " ")).set_index("dataset")}
    caption = (
        f"{edits} edits; wall seconds of the jobs, loading included, measuring not; peak resident memory of a process. "
        f"The paper: Appendix D's hours for {PAPER_EDITS} edits on its own GPUs."
    )
    write_texts(out, dict.fromkeys((".md", ".tex", ".html"), shown), caption)


def _reported(path: Path, names: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """The paper's seconds per edit, under our names of its models and data sets; none where we have none of them."""
    paper = pd.read_csv(path)
    paper = paper[paper["artifact"] == "appendix_d"]
    for column in ("model", "dataset"):
        ours = {theirs: our for our, theirs in names.get(f"{column}s", {}).items()}
        paper = paper.assign(**{column: paper[column].map(ours)})
    paper = paper.dropna(subset=["model", "dataset"]).astype({"model": str, "dataset": str})
    return paper.assign(paper_seconds_per_edit=paper["value"] * 3600 / PAPER_EDITS)[[*RUN, "paper_seconds_per_edit"]]
