"""Do the paper's claims hold here? Each with the statistic that supports or refutes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import bootstrap

from jeep.artifacts.tables import chosen
from jeep.metrics import METRICS
from jeep.storage import atomic, read_json

COLUMNS = ["claim", "dataset", "model", "one", "other", "statistic", "value", "low", "high", "verdict"]
RESAMPLES = 5000


def record_values(results: pd.DataFrame) -> pd.DataFrame:
    """ES, GS and LS of every record of one run, the mean over its prompts and seeds; in percent."""
    return results.pivot_table(index="case_id", columns="metric", values="value")[list(METRICS)] * 100


def score(values: Float[np.ndarray, "... n 3"]) -> Float[np.ndarray, "..."]:
    """Harmonic mean of the means over n records; 0 where one of them is."""
    means = values.mean(-2)
    with np.errstate(divide="ignore"):
        return 3 / (1 / means).sum(-1)


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
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(score(left) - score(right)), float(found.low), float(found.high)


def _row(claim: str, where: Mapping[str, str], one: str, other: str, statistic: str, interval) -> dict:
    value, low, high = interval
    verdict = "supported" if low > 0 else "refuted" if high < 0 else "undecided"
    numbers = {"value": value, "low": low, "high": high}
    return {"claim": claim, **where, "one": one, "other": other, "statistic": statistic, **numbers, "verdict": verdict}


def _pairs(results: pd.DataFrame, claim: str, pairs: Sequence[tuple[str, str]], seed: int) -> list[dict]:
    """`one` has a greater Score than `other`, on every model and data set where both ran."""
    rows = []
    for (dataset, model), group in results.groupby(["dataset", "model"], sort=False):
        values = {method: record_values(part) for method, part in group.groupby("method")}
        for one, other in pairs:
            if one in values and other in values:
                interval = paired_difference(values[one], values[other], seed)
                rows.append(_row(claim, {"dataset": dataset, "model": model}, one, other, "Score, paired", interval))
    return rows


def _stages(contrast: Path, regions: Path, model: str) -> list[dict]:
    """Both stages are there: the original gains more than the new answer over the proposed regions."""
    states = pd.read_parquet(contrast)
    states = states[states["part"] == "state"]
    proposed = read_json(regions)
    rows = []
    for region, place, column in (("low", "subject_last", "rank"), ("high", "prediction", "probability")):
        layers = proposed[region]
        claim = f"Figure 2: a stage in {region} layers"
        where = {"dataset": "", "model": model}
        if not layers:
            rows.append(_row(claim, where, "original", "new", "no layer counts", (0.0, 0.0, 0.0)))
            continue
        part = states[(states["position"] == place) & states["layer"].isin([layers[0], layers[-1] + 1])]
        levels = -np.log10(1 + part["rank"]) if column == "rank" else np.log10(part["probability"].clip(lower=1e-30))
        wide = part.assign(level=levels).pivot(index="case_id", columns=["answer", "layer"], values="level")
        gain = {answer: wide[answer][layers[-1] + 1] - wide[answer][layers[0]] for answer in ("original", "new")}
        difference = (gain["original"] - gain["new"]).to_numpy()
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        mean = float(difference.mean())
        statistic = f"gain over blocks {layers[0]}-{layers[-1]}, log10 {column}"
        rows.append(_row(claim, where, "original", "new", statistic, (mean, mean - half, mean + half)))
    return rows


def write_claims(
    records: Path,
    edits: int,
    grids: Mapping[str, Mapping[str, Sequence[str]]],
    sweep: Mapping[str, float],
    probes: Mapping[str, tuple[Path, Path]],
    seed: int,
    out: Path,
) -> None:
    """Write CSV, and Markdown beside it: every claim with its statistic, 95 % interval and verdict.

    `grids` holds what tables 2 and 3 (`main`), table 4 (`ablations`) and Figure 6 (`sweep`) compare, `sweep` the value
    of each of its methods, `probes` the contrast and regions of each model. A method named jeep is the paper's.
    """
    rows: list[dict] = []
    if "main" in grids:
        others = [("jeep", name) for name in grids["main"]["method"] if name not in ("jeep", "none")]
        rows += _pairs(chosen(records, grids["main"], edits), "Tables 2, 3: JEEP has the greatest Score", others, seed)
    if "ablations" in grids:
        results = chosen(records, grids["ablations"], edits)
        others = [("jeep", name) for name in grids["ablations"]["method"] if name != "jeep"]
        rows += _pairs(results, "Table 4: JEEP has a greater Score than its variant", others, seed)
        low_high = [("wo_high_delta_and_step3", "wo_low_delta_and_step2"), ("wo_step3", "wo_step2")]
        rows += _pairs(results, "Table 4: the low region alone beats the high one alone", low_high, seed)
    if "sweep" in grids:
        rows += _sweep(chosen(records, grids["sweep"], edits), sweep, seed)
    for model, (contrast, regions) in probes.items():
        rows += _stages(contrast, regions, model)
    table = pd.DataFrame(rows, columns=COLUMNS).round({"value": 2, "low": 2, "high": 2})
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic(out.with_suffix(".md")) as temporary:
        temporary.write_text(table.to_markdown(index=False) + "\n", encoding="utf-8")


def _sweep(results: pd.DataFrame, values: Mapping[str, float], seed: int) -> list[dict]:
    """Score falls from its best value in the sweep to either end."""
    rows = []
    ordered = sorted(values, key=values.__getitem__)
    for (dataset, model), group in results.groupby(["dataset", "model"], sort=False):
        of = {method: record_values(part) for method, part in group.groupby("method")}
        best = max(ordered, key=lambda name: float(score(of[name].to_numpy())))
        for end, claim in ((ordered[0], "falls towards small γ*"), (ordered[-1], "falls towards large γ*")):
            interval = paired_difference(of[best], of[end], seed)
            names = (f"{values[best]:g} (best)", f"{values[end]:g}")
            where = {"dataset": dataset, "model": model}
            rows.append(_row(f"Figure 6: Score {claim}", where, *names, "Score, paired", interval))
    return rows
