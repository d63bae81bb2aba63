"""What the searches for settings found: a row for each model, data set and method; the chosen settings for a config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from jeep.common.nested import with_values
from jeep.common.storage import atomic, read_jsonl
from jeep.report.texts import write_texts

COLUMNS = ["model", "dataset", "method", "draws", "trials", "best", "median", "sd", "chosen", "ci95"]


def write_searches(searches: Sequence[Path], out: Path) -> None:
    """Write CSV, Markdown and HTML, and beside them settings.yaml: the chosen settings, as overrides of each method.

    best, median and sd are of the Scores of round one's trials; chosen is the Score of the chosen settings on round
    two's facts, which chose them among the finalists alone. Each of the data sets of a search has a row.
    """
    rows, chosen = [], {}
    for path in searches:
        model, sets = path.parts[-3:-1]
        trials = [row for row in read_jsonl(path) if "round" in row]
        names = sets.split("+")
        rows += [_row(trials, model, dataset, path.stem) for dataset in names]
        where = model if len(names) > 1 else f"{model}/{sets}"
        chosen.setdefault(path.stem, {})[where] = with_values({}, trials[-1]["settings"])
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    with atomic(out.with_name("settings.yaml")) as temporary:
        temporary.write_text(yaml.safe_dump(chosen, sort_keys=False, default_flow_style=None), encoding="utf-8")
    shown = {"Searches": table.set_index("model").round(1)}
    caption = "Score on development facts: of round one's trials; of the chosen settings on round two's other facts."
    write_texts(out, {".md": shown, ".html": shown}, caption)


def _row(trials: Sequence[dict[str, Any]], model: str, dataset: str, method: str) -> tuple:
    first = [trial for trial in trials if trial["round"] == 1]
    scores = pd.Series([trial["sets"][dataset]["Score"] for trial in first])
    last = trials[-1]["sets"][dataset]
    draws = len({trial["draw"] for trial in first})
    spread = (scores.max(), scores.median(), scores.std())
    return (model, dataset, method, draws, len(first), *(round(x, 2) for x in spread), last["Score"], last.get("ci95"))
