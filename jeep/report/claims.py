"""Do the paper's claims hold here? Each with the statistic that supports or refutes it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from jeep.common.settings import UNEDITED
from jeep.common.storage import atomic
from jeep.measure.metrics import METRICS
from jeep.report.damage_claims import damage_claims
from jeep.report.intervals import Interval, resampled, score, values_of
from jeep.report.probe_claims import contrast_claims, word_claims
from jeep.report.tables import chosen
from jeep.report.texts import write_texts

_KEYS = ["claim", "dataset", "model", "one", "other", "statistic"]
COLUMNS = [*_KEYS, "value", "low", "high", "p", "verdict", "p_holm", "corrected"]
Grid = Mapping[str, Sequence[str]]
"""Models, data sets and methods that a table or figure compares."""
FEW = 10
"""Below so many edits a Score is of too few records to compare."""
FAMILIES = {"ours": "Ours: ", "later": "Later: ", "beyond": "Beyond: "}
"""How a claim begins that is none of the paper's: about methods which it has not, by whose they are, or about what it
does not measure."""
MARGIN = 2.0
"""Points of Score within which a method is near the best."""


def _where(results: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame, set[str]]]:
    """Every data set and model whose records have all metrics: where, its results, and its methods."""
    for (dataset, model), part in results.groupby(["dataset", "model"], sort=False):
        if set(METRICS) <= set(part["metric"]):
            yield {"dataset": dataset, "model": model}, part, set(part["method"])


def _row(claim: str, where: Mapping[str, str], one: str, other: str, statistic: str, interval: Interval) -> dict:
    return {"claim": claim, **where, "one": one, "other": other, "statistic": statistic, **interval._asdict()}


def _difference(part: pd.DataFrame, one: str, other: str, seed: int, edits: int | None = None) -> Interval:
    """Score(one) − Score(other), at a number of edits; at the largest where none is given."""
    edits = edits or int(part["edits"].max())
    values = values_of(part, [(one, edits), (other, edits)])
    return resampled(values, lambda means: score(means[0]) - score(means[1]), seed)


def _pairs(results: pd.DataFrame, claim: str, pairs: Sequence[Sequence[str]], seed: int) -> list[dict]:
    """`one` has a greater Score than `other`, on every model and data set where both ran."""
    return [
        _row(claim, where, one, other, "Score, paired", _difference(part, one, other, seed))
        for where, part, methods in _where(results)
        for one, other in pairs
        if {one, other} <= methods
    ]


def _curve(results: pd.DataFrame, roles: Mapping[str, Any], seed: int) -> list[dict]:
    """Figure 4: JEEP's lead over MEMIT grows with the number of edits; it is near the best at every number.

    Of the numbers that all methods have: some may have others too, which damage is measured at.
    """
    jeep, memit = roles["jeep"], roles["memit"]
    rows = []
    for where, part, methods in _where(results):
        ran = part.groupby("edits")["method"].agg(set)
        counts = sorted(int(count) for count in ran.index if count >= FEW and methods - {UNEDITED} <= ran[count])
        if {jeep, memit} <= methods and len(counts) > 1:
            values = values_of(part, [(name, count) for name in (jeep, memit) for count in counts])
            growth = resampled(values, lambda means, counts=counts: _growth(means, counts), seed)
            statistic = f"points of lead for each factor e of edits, {counts[0]} to {counts[-1]}"
            rows.append(_row("Figure 4: JEEP's lead over MEMIT grows", where, jeep, memit, statistic, growth))
        others = sorted(methods - {jeep, UNEDITED, *_not_of_paper(roles)})
        for count in counts if jeep in methods and others else ():
            values = values_of(part, [(name, count) for name in (jeep, *others)])
            near = resampled(values, lambda means: score(means[0]) - score(means[1:]).max(0) + MARGIN, seed)
            claim = f"Figure 4: JEEP is within {MARGIN:g} points of the best"
            statistic = f"Score, paired, {count} edits, plus {MARGIN:g}"
            rows.append(_row(claim, where, jeep, "best other", statistic, near))
    return rows


def _not_of_paper(roles: Mapping[str, Any]) -> set[str]:
    return {name for names in roles["added"].values() for name in names}


def _added(results: pd.DataFrame, roles: Mapping[str, Any], seed: int, how: str = "") -> list[dict]:
    """A method that the paper has not has a greater Score than JEEP, and than MEMIT, at every number of edits; and two
    regions have one than the low one alone, where both have the same terms later than the paper.
    """
    pairs = [
        (f"{FAMILIES[kind]}a greater Score than the paper's", one, other)
        for kind, names in roles["added"].items()
        for one, other in itertools.product(names, (roles["jeep"], roles["memit"]))
    ]
    pairs += [
        (f"{FAMILIES['later']}two regions beat one, both with {terms}, each as tuned", one, other)
        for one, other, terms in roles["twins"]
    ]
    rows = []
    for where, part, methods in _where(results):
        ran = part.groupby("edits")["method"].agg(set)
        counts = sorted(int(count) for count in ran.index if count >= FEW and methods - {UNEDITED} <= ran[count])
        for claim, one, other in pairs:
            for count in counts if {one, other} <= methods else ():
                difference = _difference(part, one, other, seed, count)
                rows.append(_row(claim, where, one, other, f"Score, paired, {count} edits{how}", difference))
    return rows


def _growth(means: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Slope of the lead over ln(edits), by least squares weighted with the number of records of each point."""
    leads = score(means[: len(counts)]) - score(means[len(counts) :])
    x = np.log(counts).reshape(-1, *[1] * (leads.ndim - 1))
    weights = np.where(np.isnan(leads), 0.0, np.reshape(counts, x.shape))  # a draw may have no record of a small count
    leads = np.nan_to_num(leads)
    x = x - (weights * x).sum(0) / weights.sum(0)
    return np.asarray((weights * x * leads).sum(0) / (weights * x**2).sum(0))


def _sweep(results: pd.DataFrame, values: Mapping[str, float], seed: int) -> list[dict]:
    """Figure 6, "each metric initially increases and then decreases": better inside than at either end of γ*.

    The shape was fixed before: a best value that is chosen from the records that test it always wins.
    """
    ordered = sorted(values, key=values.__getitem__)
    rows = []
    for where, part, methods in _where(results):
        if len(ordered) < 3 or not set(ordered) <= methods:
            continue
        found = values_of(part, [(name, int(part["edits"].max())) for name in ordered])
        for metric, read in (("Score", score), *((name, _reader(place)) for place, name in enumerate(METRICS))):
            for end, turn in ((0, "increases at first"), (-1, "decreases at last")):
                interval = resampled(found, lambda m, r=read, e=end: r(m[1:-1]).mean(0) - r(m[e]), seed)
                other = f"γ* {values[ordered[end]]:g}"
                statistic = f"{metric}, mean of inner values, paired"
                rows.append(_row(f"Figure 6: {metric} {turn}", where, "inner", other, statistic, interval))
    return rows


def _reader(place: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda means: means[..., place]


def families(claims: pd.DataFrame) -> pd.Series:
    """What each claim is about: paper, methods of ours or later ones, or beyond, what else edits change."""
    found = pd.Series("paper", index=claims.index)
    for kind, start in FAMILIES.items():
        found[claims["claim"].str.startswith(start)] = kind
    return found


def find_claims(
    records: Sequence[Path],
    edits: int | None,
    grids: Mapping[str, Grid],
    roles: Mapping[str, Any],
    sweep: Mapping[str, float],
    contrasts: Mapping[str, Path],
    words: Mapping[str, Path],
    seed: int,
    sequence: Sequence[Path] = (),
    damage: Sequence[Path] = (),
) -> pd.DataFrame:
    """Every claim with its statistic, 95 % interval, p-value and verdict, and those corrected for their number (Holm).

    Comparisons are made at `edits` edits, or at the largest number of each data set. `grids` holds what tables 2 and 3
    (`main`), table 4 (`ablations`), Figure 4 (`curve`), Figure 6 (`sweep`), what else edits change (`damage`) and a
    sequence of edits (`sequence`, whose records are `sequence`'s) compare, `sweep` the value of each of its methods,
    `contrasts` and `words` what the probes of each model found; `damage` are the files of what else edits change.
    `roles` names what the claims are about: the methods `jeep` and `memit` (or None), `low_high`, pairs of variants
    with one region alone, `added`, methods that the paper has not by whose they are, and `twins`. Claims about methods
    of ours, about later ones, and about what else edits change, are corrected for their own number.
    """
    rows: list[dict] = []
    jeep = roles["jeep"]
    if "main" in grids:
        paper = [name for name in grids["main"]["method"] if name not in _not_of_paper(roles)]
        others = [(jeep, name) for name in paper if name not in (jeep, UNEDITED)]
        results = chosen(records, grids["main"], edits)
        rows += _pairs(results, "Tables 2, 3: JEEP has the greatest Score", others, seed)
        rows += _added(results, roles, seed)
    if "ablations" in grids:
        results = chosen(records, grids["ablations"], edits)
        others = [(jeep, name) for name in grids["ablations"]["method"] if name != jeep]
        rows += _pairs(results, "Table 4: JEEP has a greater Score than its variant", others, seed)
        rows += _pairs(results, "Table 4: the low region alone beats the high one alone", roles["low_high"], seed)
    if "curve" in grids:
        rows += _curve(chosen(records, grids["curve"]), roles, seed)
    if "sweep" in grids:
        rows += _sweep(chosen(records, grids["sweep"], edits), sweep, seed)
    if "damage" in grids:
        results = chosen(records, grids["damage"])
        for claim, *rest in damage_claims(damage, results, jeep, MARGIN):
            rows.append(_row(f"{FAMILIES['beyond']}{claim}", *rest))
    if "sequence" in grids:
        results = chosen(sequence, grids["sequence"])
        last = results[results["edits"] == results.groupby(["dataset", "model"])["edits"].transform("max")]
        rows += _pairs(
            last, f"{FAMILIES['later']}JEEP has a greater Score than MEMIT, in sequence", [(jeep, roles["memit"])], seed
        )
        rows += _added(last, roles, seed, " in sequence")
    for find, files in ((contrast_claims, contrasts), (word_claims, words)):
        for model, path in files.items():
            rows += [_row(*found[:1], {"dataset": "", "model": model}, *found[1:]) for found in find(path)]
    table = pd.DataFrame(rows, columns=[*_KEYS, *Interval._fields])
    table["p_holm"] = table.groupby(families(table))["p"].transform(lambda p: multipletests(p, method="holm")[1])
    for column, p in (("verdict", "p"), ("corrected", "p_holm")):
        sides = np.where(table["value"] > 0, "supported", "refuted")
        table[column] = np.where(table[p] < 0.05, sides, "undecided")
    return table[COLUMNS]


_WHOSE = {"ours": "methods of ours", "later": "later methods", "beyond": "what else edits change"}


def write_claims(table: pd.DataFrame, out: Path) -> None:
    """Write CSV, Markdown and HTML."""
    table = table.round({"value": 2, "low": 2, "high": 2, "p": 4, "p_holm": 4})
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)
    shown = {"Claims": table.set_index("claim")}
    counts = families(table).value_counts()
    corrected = [f"all {counts['paper']} comparisons"] if "paper" in counts else []
    corrected += [f"the {counts[kind]} about {whose} by themselves" for kind, whose in _WHOSE.items() if kind in counts]
    caption = (
        "Supported: above zero with p < 0.05; refuted: below it; undecided: neither. Corrected: the same by Holm's "
        f"method for {', for '.join(corrected) or 'none'}."
    )
    write_texts(out, {".md": shown, ".html": shown}, caption)
