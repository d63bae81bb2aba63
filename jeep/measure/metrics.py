"""Efficacy, generalization, locality and Score from per-prompt results (Eqs. 13-18)."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

METRICS = ("ES", "GS", "LS")
ARGMAX = ("ES_a", "GS_a")
"""Efficacy and generalization by the argmax (`by_argmax`)."""
GENERATED = ("ES_g", "GS_g", "LS_g")
"""The three by what the model writes (`jeep.measure.generation`)."""


def harmonic_mean(values: list[float]) -> float:
    """Harmonic mean; 0 where any value is 0."""
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def by_argmax(results: pd.DataFrame) -> pd.DataFrame:
    """Of `evaluate`'s results: edited prompts and paraphrases by whether each token of the new answer is the argmax.

    A row has the metric ES_a or GS_a, and 0 or 1 as its value. So NAMET measures efficacy: an answer that has become
    more probable than the original one need not be what the model says.
    """
    asked = results[results["metric"].isin(("ES", "GS"))]
    return asked.assign(metric=asked["metric"] + "_a", value=asked["argmax"])


def summarize(results: pd.DataFrame, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Score, ES, GS, LS in percent, with the 95 % confidence half-width over records; or other `metrics`.

    `results` has one row per prompt: case_id, metric (ES, GS or LS) and value (0..1). A record's value is the mean
    over its prompts; a metric is the mean over records; its half-width is 1.96 s/√n, s the sample standard
    deviation over the n records. Score is the harmonic mean of the three; its half-width is that of its
    linearization (the delta method), NaN where a metric is 0.

    Returns the columns metric, value, ci95. A metric without prompts is left out, and Score with it, which is of three.
    """
    results = results[results["metric"].isin(metrics)]
    records = results.groupby(["case_id", "metric"])["value"].mean().mul(100).unstack()
    mean, half = records.mean(), 1.96 * records.std() / np.sqrt(records.count())
    rows = [(metric, mean[metric], half[metric]) for metric in metrics if metric in mean.index]
    if len(rows) == len(METRICS):
        score = harmonic_mean([value for _, value, _ in rows])
        rows.insert(0, ("Score", score, _score_half_width(records, score)))
    return pd.DataFrame(rows, columns=["metric", "value", "ci95"])


def _score_half_width(records: pd.DataFrame, score: float) -> float:
    """Of Score = 3/Σ 1/μ: each record moves it by Score²/3 Σ (x − μ)/μ², a metric that it lacks by nothing."""
    if score == 0:
        return math.nan
    mean, count = records.mean(), records.count()
    moves = score**2 / 3 * ((records - mean) / mean**2 * len(records) / count).sum(axis=1)
    return 1.96 * moves.std() / math.sqrt(len(records))
