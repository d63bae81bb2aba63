"""Efficacy, generalization, locality and Score from per-prompt results (Eqs. 13-18)."""

import math

import pandas as pd

METRICS = ("ES", "GS", "LS")


def harmonic_mean(values: list[float]) -> float:
    """Harmonic mean; 0 where any value is 0."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Score, ES, GS, LS in percent, with the 95 % confidence half-width over records.

    `results` has one row per prompt: case_id, metric (ES, GS or LS) and value (0..1). A record's value is the mean
    over its prompts; a metric is the mean over records; its half-width is 1.96 s/√n, s the sample standard
    deviation over the n records. Score is the harmonic mean of the three and carries no interval.

    Returns the columns metric, value, ci95. A metric without prompts is left out, and Score with it.
    """
    records = results.groupby(["metric", "case_id"])["value"].mean().mul(100).groupby("metric")
    mean, deviation, count = records.mean(), records.std(), records.count()
    rows = [
        (metric, mean[metric], 1.96 * deviation[metric] / math.sqrt(count[metric]))
        for metric in METRICS
        if metric in mean.index
    ]
    if len(rows) == len(METRICS):
        rows.insert(0, ("Score", harmonic_mean([value for _, value, _ in rows]), math.nan))
    return pd.DataFrame(rows, columns=["metric", "value", "ci95"])
