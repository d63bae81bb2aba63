"""Do the paper's claims hold here? Each with the statistic that supports or refutes it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import bootstrap

from jeep.artifacts.tables import chosen
from jeep.artifacts.texts import write_texts
from jeep.metrics import METRICS
from jeep.storage import atomic

COLUMNS = ["claim", "dataset", "model", "one", "other", "statistic", "value", "low", "high", "verdict"]
RESAMPLES = 5000
_DRAWN = 2_000_000
"""Records drawn at a time, for memory's sake."""
_LEAST = 1e-30
"""Probabilities below count as this, for their logarithm."""


def record_values(results: pd.DataFrame) -> pd.DataFrame:
    """ES, GS and LS of every record of one run, the mean over its prompts and seeds; in percent."""
    return results.pivot_table(index="case_id", columns="metric", values="value")[list(METRICS)] * 100


def score(values: Float[np.ndarray, "... n 3"]) -> Float[np.ndarray, "..."]:
    """Harmonic mean of the means over n records; 0 where one of them is. A record may lack a metric (NaN)."""
    means = np.nanmean(values, -2)
    with np.errstate(divide="ignore"):
        return np.asarray(3 / (1 / means).sum(-1))


def paired_difference(one: pd.DataFrame, other: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    """Score(one) − Score(other) with its 95 % interval, by a bootstrap that draws records for both together."""
    one, other = one.align(other, join="inner")
    left, right = one.to_numpy(), other.to_numpy()

    def statistic(rows, axis=-1):
        return score(left[rows]) - score(right[rows])

    found = bootstrap(
        (np.arange(len(left)),),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, _DRAWN // len(left)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(score(left) - score(right)), float(found.low), float(found.high)


def _row(claim: str, where: Mapping[str, str], one: str, other: str, statistic: str, interval) -> dict:
    value, low, high = interval
    verdict = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    numbers = {"value": value, "low": low, "high": high}
    return {"claim": claim, **where, "one": one, "other": other, "statistic": statistic, **numbers, "verdict": verdict}


def _runs(results: pd.DataFrame) -> Iterator[tuple[dict[str, str], dict[str, pd.DataFrame]]]:
    """For every data set and model whose records have all metrics: where, and each method's values."""
    for (dataset, model), group in results.groupby(["dataset", "model"], sort=False):
        if set(METRICS) <= set(group["metric"]):
            values = {method: record_values(part) for method, part in group.groupby("method")}
            yield {"dataset": dataset, "model": model}, values


def _pairs(results: pd.DataFrame, claim: str, pairs: Sequence[tuple[str, str]], seed: int) -> list[dict]:
    """`one` has a greater Score than `other`, on every model and data set where both ran."""
    return [
        _row(claim, where, one, other, "Score, paired", paired_difference(values[one], values[other], seed))
        for where, values in _runs(results)
        for one, other in pairs
        if one in values and other in values
    ]


def _sweep(results: pd.DataFrame, values: Mapping[str, float], seed: int) -> list[dict]:
    """Score falls from its best value in the sweep to either end."""
    rows = []
    ordered = sorted(values, key=values.__getitem__)
    for where, of in _runs(results):
        best = max(ordered, key=lambda name: float(score(of[name].to_numpy())))
        for end, claim in ((ordered[0], "falls towards small γ*"), (ordered[-1], "falls towards large γ*")):
            names = (f"{values[best]:g} (best)", f"{values[end]:g}")
            interval = paired_difference(of[best], of[end], seed)
            rows.append(_row(f"Figure 6: Score {claim}", where, *names, "Score, paired", interval))
    return rows


def _stages(contrast: Path, model: str) -> list[dict]:
    """The original gains more than the new answer: at the subject in the lower half of the layers, at the prediction
    position in the upper one without the topmost block.
    """
    states = pd.read_parquet(contrast)
    states = states[states["part"] == "state"]
    depth = int(states["layer"].max())
    stages = (
        ("enrichment at the subject's last token", "subject_last", (0, depth // 2), "rank"),
        ("promotion at the prediction position", "prediction", (depth // 2, depth - 1), "probability"),
    )
    rows = []
    for stage, place, (first, last), column in stages:
        part = states[(states["position"] == place) & states["layer"].isin([first, last])]
        levels = -np.log10(1 + part["rank"]) if column == "rank" else np.log10(part["probability"].clip(lower=_LEAST))
        wide = part.assign(level=levels).pivot(index="case_id", columns=["answer", "layer"], values="level")
        gain = {answer: wide[answer][last] - wide[answer][first] for answer in ("original", "new")}
        difference = gain["original"] - gain["new"]
        mean, half = difference.mean(), 1.96 * difference.std() / np.sqrt(len(difference))
        statistic = f"gain from layer {first} to {last}, log10 {column}"
        where = {"dataset": "", "model": model}
        interval = (mean, mean - half, mean + half)
        rows.append(_row(f"Figure 2: {stage}", where, "original", "new", statistic, interval))
    return rows


def write_claims(
    records: Sequence[Path],
    edits: int,
    grids: Mapping[str, Mapping[str, Sequence[str]]],
    sweep: Mapping[str, float],
    probes: Mapping[str, Path],
    seed: int,
    out: Path,
) -> None:
    """Write CSV, Markdown and HTML: every claim with its statistic, 95 % interval and verdict.

    `grids` holds what tables 2 and 3 (`main`), table 4 (`ablations`) and Figure 6 (`sweep`) compare, `sweep` the value
    of each of its methods, `probes` the contrast of each model. A method named jeep is the paper's.
    """
    rows: list[dict] = []
    if "main" in grids:
        others = [("jeep", name) for name in grids["main"]["method"] if name not in ("jeep", "none")]
        results = chosen(records, grids["main"], edits)
        rows += _pairs(results, "Tables 2, 3: JEEP has the greatest Score", others, seed)
    if "ablations" in grids:
        results = chosen(records, grids["ablations"], edits)
        others = [("jeep", name) for name in grids["ablations"]["method"] if name != "jeep"]
        rows += _pairs(results, "Table 4: JEEP has a greater Score than its variant", others, seed)
        low_high = [("wo_high_delta_and_step3", "wo_low_delta_and_step2"), ("wo_step3", "wo_step2")]
        rows += _pairs(results, "Table 4: the low region alone beats the high one alone", low_high, seed)
    if "sweep" in grids:
        rows += _sweep(chosen(records, grids["sweep"], edits), sweep, seed)
    for model, contrast in probes.items():
        rows += _stages(contrast, model)
    table = pd.DataFrame(rows, columns=COLUMNS).round({"value": 2, "low": 2, "high": 2})
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    shown = {"Claims": table.set_index("claim")}
    caption = "Supported: the 95 % interval lies above zero; refuted: below it; undecided: around it."
    write_texts(out, {".md": shown, ".html": shown}, caption)
