"""Values with a 95 % interval and a p-value: means over records, and what is made of the metrics of several runs."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import bootstrap, ttest_1samp

from jeep.measure.metrics import METRICS

RESAMPLES = 10_000
_DRAWN = 10_000_000
"""Records drawn at a time, for memory's sake."""

Run = tuple[str, int]
"""A method and its number of edits."""


class Interval(NamedTuple):
    """A value, its 95 % interval, and the two-sided p-value of zero; NaN and 1 where a single record says nothing."""

    value: float
    low: float
    high: float
    p: float


def of_mean(values: pd.Series) -> Interval:
    """The mean over records, by Student's t; NaN where one is."""
    mean = float(values.mean(skipna=False))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all but the same
        test = ttest_1samp(values, 0.0)
    found = test.confidence_interval(0.95)
    return Interval(mean, float(found.low), float(found.high), _known(float(test.pvalue)))


def score(means: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b"]:
    """Harmonic mean of ES, GS and LS; 0 where one of them is."""
    with np.errstate(divide="ignore"):
        return np.asarray(3 / (1 / means).sum(-1))


def values_of(results: pd.DataFrame, runs: Sequence[Run]) -> Float[np.ndarray, "runs seeds records 3"]:
    """ES, GS and LS in percent of every record of some runs of one model and data set, the mean over its prompts.

    A record counts where all runs of its number of edits have it; NaN where a run has not. A run with one seed, such as
    the unedited model, stands for all seeds.
    """
    tables = {
        run: part.pivot_table(index="case_id", columns=["seed", "metric"], values="value") * 100
        for run in runs
        for part in [results[(results["method"] == run[0]) & (results["edits"] == run[1])]]
    }
    shared: dict[int, pd.Index] = {}
    for (_, edits), table in tables.items():
        shared[edits] = shared[edits].intersection(table.index) if edits in shared else table.index
    records = pd.Index(sorted(set().union(*shared.values())))
    seeds = sorted({seed for table in tables.values() for seed in table.columns.levels[0]})
    values = np.full((len(runs), len(seeds), len(records), len(METRICS)), np.nan)
    for number, run in enumerate(runs):
        table = tables[run].loc[shared[run[1]]].reindex(records)
        its_seeds = list(table.columns.levels[0])
        for place, seed in enumerate(seeds):
            values[number, place] = table[seed if len(its_seeds) > 1 else its_seeds[0]].reindex(columns=METRICS)
    return values


def resampled(
    values: Float[np.ndarray, "runs seeds records 3"],
    statistic: Callable[[Float[np.ndarray, "runs *b 3"]], Float[np.ndarray, "*b"]],
    seed: int,
) -> Interval:
    """A statistic of the runs' metrics by a percentile bootstrap that draws records, and seeds where there are several.

    The draws are the same for all runs: the comparison is paired.
    """
    _, seeds, records, _ = values.shape
    if records < 2:
        return Interval(float(statistic(np.nanmean(values, (1, 2)))), math.nan, math.nan, 1.0)
    known, filled = ~np.isnan(values), np.nan_to_num(values)

    def means(seed_counts, record_counts):
        """Of the records and seeds drawn so often, for each draw."""
        totals = [
            np.moveaxis(
                (np.tensordot(record_counts, each, axes=(-1, 2)) * seed_counts[..., None, :, None]).sum(-2), -2, 0
            )
            for each in (filled, known.astype(float))
        ]
        with np.errstate(invalid="ignore"):
            return totals[0] / totals[1]

    def of_drawn(*drawn, axis=-1):
        record_counts = _counts(drawn[-1], records)
        seed_counts = _counts(drawn[0], seeds) if seeds > 1 else np.ones((*record_counts.shape[:-1], 1))
        return statistic(means(seed_counts, record_counts))

    found = bootstrap(
        (np.arange(seeds), np.arange(records)) if seeds > 1 else (np.arange(records),),
        of_drawn,
        n_resamples=RESAMPLES,
        batch=max(1, _DRAWN // records),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = found.bootstrap_distribution
    less, more = ((np.count_nonzero(side) + 1) / (RESAMPLES + 1) for side in (drawn <= 0, drawn >= 0))
    value = float(statistic(means(np.ones(seeds), np.ones(records))))
    interval = found.confidence_interval
    return Interval(value, float(interval.low), float(interval.high), min(1.0, 2 * min(less, more)))


def _counts(drawn: Int[np.ndarray, "*b k"], size: int) -> Float[np.ndarray, "*b size"]:
    """How often each of `size` items is drawn."""
    rows = drawn.reshape(-1, drawn.shape[-1])
    counts = np.stack([np.bincount(row, minlength=size) for row in rows])
    return counts.reshape(*drawn.shape[:-1], size).astype(float)


def _known(p: float) -> float:
    """1 in the place of the NaN of values that are all zero."""
    return 1.0 if math.isnan(p) else p
