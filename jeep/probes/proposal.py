"""Where to edit: regions proposed from the contrast of original and new answers (§4.1)."""

from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

RULE = (
    "A layer's contrast is the mean over prompts of how much more it improves the original's first token than the new "
    "answer's: at the subject's last token in log10(1 + rank) for the low region, at the prediction position in log10 "
    "of the probability for the high region. A layer counts if the original improves there and the contrast's 95 % "
    "interval lies above zero. The low region is the run of at most `low` such layers with the largest sum in the "
    "lower half of the model; the high region that of at most `high` in the upper half, below the topmost layers: "
    "those behind the layer where the original's mean probability is greatest, and the last one in any case. The "
    "middle layers, which are not edited, are the longest run below the topmost at which the ranks of both answers "
    "improve at the prediction position, the 95 % intervals of both lying above zero."
)


def propose_regions(contrast: pd.DataFrame, low: int, high: int) -> dict[str, Any]:
    """The proposed blocks of both regions (counted from 0), the contrast of every block, and the rule.

    `contrast` is what `contrast.contrast` returned. A region without a layer that counts is empty.
    """
    states = contrast[contrast["part"] == "state"]
    subject = _gains(states[states["position"] == "subject_last"], lambda rows: -np.log10(1 + rows["rank"]))
    prediction = states[states["position"] == "prediction"]
    promoted = _gains(prediction, lambda rows: np.log10(rows["probability"].clip(lower=1e-30)))
    extracted = _gains(prediction, lambda rows: -np.log10(1 + rows["rank"]))
    depth = len(subject)
    means = prediction[prediction["answer"] == "original"].groupby("layer")["probability"].mean()
    top = min(int(means.idxmax()), depth - 1)  # the block whose output peaks is number idxmax - 1
    half = depth // 2
    return {
        "low": _best_run(subject, range(half), low),
        "middle": _longest_run(extracted["both"].to_numpy(), range(top)),
        "high": _best_run(promoted, range(half, top), high),
        "topmost": list(range(top, depth)),
        "subject_last": subject.drop(columns="both").round(4).to_dict("records"),
        "prediction": promoted.drop(columns="both").round(4).to_dict("records"),
        "rule": RULE,
    }


def _gains(states: pd.DataFrame, score) -> pd.DataFrame:
    """For every block: how much it improves the original's score, how much more than the new answer's, and whether both
    answers improve beyond their 95 % intervals.
    """
    states = states.assign(score=score(states).astype(float))
    table = states.pivot(index="case_id", columns=["answer", "layer"], values="score")
    original, new = (table[answer].sort_index(axis=1).diff(axis=1).iloc[:, 1:] for answer in ("original", "new"))
    difference = original - new

    def half_width(gains: pd.DataFrame) -> pd.Series:
        return 1.96 * gains.std() / np.sqrt(len(gains))

    rows = {
        "original": original.mean().to_numpy(),
        "contrast": difference.mean().to_numpy(),
        "ci95": half_width(difference).to_numpy(),
        "both": np.all([gains.mean() > half_width(gains) for gains in (original, new)], axis=0),
    }
    return pd.DataFrame(rows).rename_axis("block").reset_index()


def _best_run(gains: pd.DataFrame, blocks: range, longest: int) -> list[int]:
    """The run of blocks that count, of at most `longest`, with the largest sum of contrasts."""
    counts = (gains["original"] > 0) & (gains["contrast"] > gains["ci95"])
    runs = [
        range(first, first + size)
        for size in range(1, longest + 1)
        for first in blocks
        if first + size <= blocks.stop and counts[first : first + size].all()
    ]
    return list(max(runs, key=lambda run: gains["contrast"][list(run)].sum(), default=[]))


def _longest_run(counts: np.ndarray, blocks: range) -> list[int]:
    """The longest run of blocks that count, the lowest of several."""
    runs = [list(group) for counted, group in groupby(blocks, key=lambda block: counts[block]) if counted]
    return max(runs, key=len, default=[])
