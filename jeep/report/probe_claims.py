"""What the paper says of its probes (§4.1, Appendix A), on ours: each claim with the statistic that could refute it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jeep.report.intervals import Interval, of_mean

_LEAST = 1e-30
"""Probabilities below count as this, for their logarithm."""
_TOPMOST = 0.1
"""The share of the blocks that are the topmost layers; at least one block."""
Found = tuple[str, str, str, str, Interval]
"""A claim, what is compared with what, the statistic, and its interval."""


def contrast_claims(path: Path) -> Iterator[Found]:
    """Figure 2: the original gains more than the new answer, at the subject in the lower half of the layers, at the
    prediction position in the upper one without the topmost block.
    """
    states = pd.read_parquet(path)
    states = states[states["part"] == "state"]
    depth = int(states["layer"].max())
    stages = (
        ("enrichment at the subject's last token", "subject_last", (0, depth // 2), "rank"),
        ("promotion at the prediction position", "prediction", (depth // 2, depth - 1), "probability"),
    )
    for stage, place, (first, last), column in stages:
        part = states[(states["position"] == place) & states["layer"].isin([first, last])]
        levels = -np.log10(1 + part["rank"]) if column == "rank" else _log(part["probability"])
        wide = part.assign(level=levels).pivot(index="case_id", columns=["answer", "layer"], values="level")
        gain = {answer: wide[answer][last] - wide[answer][first] for answer in ("original", "new")}
        statistic = f"gain from layer {first} to {last}, log10 {column}"
        yield f"Figure 2: {stage}", "original", "new", statistic, of_mean(gain["original"] - gain["new"])


def word_claims(path: Path) -> Iterator[Found]:
    """Figure 5: in the topmost layers the original falls while stop words rise, and so do other tokens, but less;
    factual words follow the original through the upper half of the layers, more than stop words do.
    """
    table = pd.read_parquet(path)
    levels = table.assign(level=_log(table["probability"])).pivot(
        index="case_id", columns=["set", "layer"], values="level"
    )
    depth = int(table["layer"].max())
    first = depth - max(1, round(_TOPMOST * depth))
    rise = {name: levels[name][depth] - levels[name][first] for name in levels.columns.levels[0]}
    statistic = f"log10 probability, layer {first} to {depth}"
    topmost = "Figure 5: in the topmost layers"
    yield f"{topmost} the original's probability falls", str(first), str(depth), statistic, of_mean(-rise["original"])
    yield f"{topmost} that of stop words rises", str(depth), str(first), statistic, of_mean(rise["stop words"])
    yield f"{topmost} non-relevant tokens resurge", str(depth), str(first), statistic, of_mean(rise["unrelated"])
    difference = of_mean(rise["stop words"] - rise["unrelated"])
    yield f"{topmost} they resurge less than stop words", "stop words", "unrelated", statistic, difference
    upper = range(depth // 2, depth + 1)
    along = {name: _correlation(levels[name][upper], levels["original"][upper]) for name in ("factual", "stop words")}
    statistic = f"Pearson's r with the original over layers {depth // 2} to {depth}, log10 probability"
    follows = (along["factual"] - along["stop words"]).dropna()
    yield "Figure 5: factual words follow the original", "factual", "stop words", statistic, of_mean(follows)


def _log(probability: pd.Series) -> pd.Series:
    return np.log10(probability.clip(lower=_LEAST))


def _correlation(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Of each record's rows."""
    return one.corrwith(other, axis=1)
