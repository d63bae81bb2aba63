"""What else edits change, by hand from made-up answers."""

import math
import re

import pandas as pd
import pytest

from jeep.common.errors import UserError
from jeep.report.claims import find_claims
from jeep.report.damage import damage_metrics, known, write_damage
from jeep.report.damage_claims import DRIFT, TASKS
from jeep.report.figures.damage import _points, draw_damage

RUN = {"model": "m", "dataset": "d", "seed": 0}
LABELS = {"models": {"m": "The model"}, "datasets": {"d": "The set"}, "methods": {"none": "unedited"}}
SHOWN = {"model": ["m"], "dataset": ["d"], "method": ["none", "jeep", "rome"]}


def asked(method, edits, nll, kl, right, seed=0):
    """Two windows and four questions; before, a token costs 1 nat and three answers are right."""
    rows = [("text", "nll", str(n), value, 1.0) for n, value in enumerate(nll)]
    rows += [("text", "kl", str(n), value, 0.0) for n, value in enumerate(kl)]
    rows += [("task", "sums", str(n), float(value), float(n < 3)) for n, value in enumerate(right)]
    rows += [("generation", "LS_g", "f1", 0.5, 1.0), ("generation", "LS_g", "f2", 1.0, 1.0)]
    rows += [("writing", "fluency", "f1", 6.0, 6.2)]
    found = pd.DataFrame(rows, columns=["kind", "metric", "unit", "value", "before"])
    found["chance"] = found["kind"].map({"task": 0.5})
    return found.assign(**RUN | {"seed": seed}, method=method, edits=edits)


def measured(method, edits, score):
    """Records f0 and f1; of the edited models both new answers are the argmax, of the unedited one half of them."""
    cells = [(f"f{n}", metric, score, float(score > 0.5 or n)) for n in range(2) for metric in ("ES", "GS", "LS")]
    rows = pd.DataFrame(cells, columns=["case_id", "metric", "value", "argmax"])
    return rows.assign(**RUN, method=method, edits=edits, preset="")


@pytest.fixture
def files(tmp_path):
    """ROME drifts ten times as far, and loses more of the task."""
    damage = pd.concat(
        [
            asked("jeep", 2, [1.0, 1.2], [0.01, 0.03], [1, 1, 1, 0]),
            asked("rome", 2, [1.5, 1.7], [0.1, 0.3], [1, 0, 0, 0]),
        ],
        ignore_index=True,
    )
    records = [measured("none", 2, 0.2), measured("jeep", 2, 0.8), measured("rome", 2, 0.8)]
    damage.to_parquet(tmp_path / "damage.parquet")
    pd.concat(records).to_parquet(tmp_path / "records.parquet")
    return [tmp_path / "damage.parquet"], [tmp_path / "records.parquet"]


def test_differences_are_paired_and_in_percent(files):
    table = damage_metrics(pd.read_parquet(files[0][0])).set_index(["method", "metric"])
    rome = table.loc["rome"]
    assert rome.loc["sums", ["value", "before", "difference", "units"]].tolist() == [25, 75, -50, 4]
    assert rome.loc["LS_g", "difference"] == -25
    assert rome.loc["fluency", ["value", "before"]].tolist() == pytest.approx([600, 620])
    assert math.isnan(rome.loc["fluency", "low"]), "one unit has no interval"
    assert rome.loc["kl", "difference"] == pytest.approx(0.2)
    # Of (0.1, 0.3): s = 0.1 √2, t(0.975; 1) = 12.706, so that the half-width is 12.706 · 0.1.
    assert rome.loc["kl", "high"] - 0.2 == pytest.approx(1.2706, abs=1e-3)
    assert rome.loc["perplexity", "value"] == pytest.approx(math.exp(1.6))
    assert rome.loc["perplexity", "before"] == pytest.approx(math.e)
    assert rome.loc["perplexity", "difference"] == pytest.approx(100 * (math.exp(0.6) - 1))
    jeep = table.loc["jeep"]
    assert jeep.loc["sums", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]


def test_seeds_are_means_within_a_unit(files):
    rows = pd.concat(
        [asked("jeep", 2, [1, 1], [0.0, 0.2], [1, 1, 1, 0]), asked("jeep", 2, [1, 1], [0.2, 0.4], [1, 1, 1, 0], seed=1)]
    )
    found = damage_metrics(rows).set_index("metric").loc["kl"]
    assert (found["units"], found["difference"]) == (2, pytest.approx(0.2))


def test_a_model_that_answered_nan_is_no_mean_of_the_others(files):
    rows = asked("jeep", 2, [1, math.nan], [0.0, math.nan], [1, 1, 1, 0])
    found = damage_metrics(rows).set_index("metric")
    assert found.loc[["kl", "nll", "perplexity"], ["value", "difference"]].isna().all(None)
    assert found.loc["sums", "value"] == 75


def test_the_table_shows_the_unedited_values_and_what_each_edit_changes(files, tmp_path):
    out = tmp_path / "damage.csv"
    write_damage(*files, SHOWN, LABELS, "Little was asked.", 0, out)
    lines = [line for line in out.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    rows = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(rows) == ["unedited", "jeep", "rome"]
    assert rows["unedited"] | {"Model": ""} == {
        "Model": "", "Method": "unedited", "Score": "20.0", "ES_a": "50.0", "GS_a": "50.0", "LS_g": "100.0",
        "fluency": "620.0", "perplexity": "2.7", "KL": "", "sums": "75.0 (chance 50.0)",
    }  # fmt: skip
    assert rows["rome"]["sums"].startswith("-50.0 (")
    assert rows["rome"]["Score"] == "+60.0 (0.0)"
    assert rows["rome"]["ES_a"].startswith("+50.0 (")
    assert re.match(r"\+82\.2 \(-.* to \+.*\)", rows["rome"]["perplexity"])
    assert rows["jeep"]["sums"] == "+0.0 (0.0)"
    assert rows["jeep"]["fluency"] == "-20.0"
    assert "Little was asked." in out.with_suffix(".md").read_text()
    table = pd.read_csv(out)
    assert table[table["metric"] == "Score"]["before"].tolist() == [20, 20]


def test_nothing_of_what_is_shown_is_one_clear_line(files, tmp_path):
    with pytest.raises(UserError, match="nothing was asked of the edits of mend"):
        write_damage(*files, SHOWN | {"method": ["mend"]}, LABELS, "", 0, tmp_path / "damage.csv")


def test_points_are_score_drift_and_what_is_lost(files, tmp_path):
    out = tmp_path / "damage.csv"
    write_damage(*files, SHOWN, LABELS, "", 0, out)
    points = _points(pd.read_csv(out)).set_index("method")
    assert points.loc["rome", ["score", "unedited", "drift", "lost"]].tolist() == pytest.approx([80, 20, 0.2, 50])
    assert points.loc["jeep", "lost"] == 0
    draw_damage(out, LABELS, tmp_path / "damage.pdf")
    assert (tmp_path / "damage.png").stat().st_size > 10_000


def claims(files, score=0.8, swap=False, broken=()):
    """Twenty times as many windows and questions, no two of them alike."""
    damage, records = (pd.read_parquet(each[0]) for each in files)
    if swap:
        damage["method"] = damage["method"].map({"jeep": "rome", "rome": "jeep"})
    more = [damage[damage["kind"] != "generation"].assign(unit=damage["unit"] + f"-{n}") for n in range(20)]
    damage = pd.concat(more, ignore_index=True)
    damage["value"] += pd.Series(range(len(damage))) % 7 / 1000
    damage.loc[damage["method"].isin(broken), "value"] = float("nan")
    damage.to_parquet(files[0][0])
    records.loc[records["method"] == "jeep", "value"] = score
    records.to_parquet(files[1][0])
    grid = {"model": ["m"], "dataset": ["d"], "method": ["none", "jeep", "rome"]}
    roles = {"jeep": "jeep", "memit": None, "low_high": [], "added": {"ours": [], "later": ["rome"]}, "twins": []}
    found = find_claims(files[1], 1, {"damage": grid}, roles, {}, {}, {}, 0, damage=files[0])
    return found[found["claim"].str.startswith("Beyond: ")].set_index("claim")


def test_a_claim_that_jeep_costs_less_is_supported(files):
    found = claims(files)
    assert found["verdict"].to_dict() == {f"Beyond: {DRIFT}": "supported", f"Beyond: {TASKS}": "supported"}
    assert tuple(found.loc[f"Beyond: {DRIFT}", ["one", "other"]]) == ("rome", "jeep"), "KL, of which less is better"
    assert tuple(found.loc[f"Beyond: {TASKS}", ["one", "other"]]) == ("jeep", "rome")
    assert found.loc[f"Beyond: {DRIFT}", "value"] == pytest.approx(180, rel=0.05), "thousandths of a nat"
    assert found.loc[f"Beyond: {TASKS}", "value"] == pytest.approx(50, rel=0.05)


def test_and_is_refuted_where_it_costs_more(files):
    assert set(claims(files, swap=True)["verdict"]) == {"refuted"}


@pytest.mark.parametrize("score", [0.7, 0.9])
def test_methods_of_another_score_are_not_compared(files, score, caplog):
    caplog.set_level("INFO")
    assert claims(files, score=score).empty
    assert "not compared" in caplog.text


def test_a_model_that_answers_nan_leaves_the_claims_undecided(files):
    found = claims(files, broken=["jeep"])
    assert len(found) == 2
    assert set(found["verdict"]) == {"undecided"}


def test_tasks_weigh_the_same_and_those_at_chance_nothing(files):
    damage = pd.read_parquet(files[0][0])
    task = damage[damage["kind"] == "task"]
    small = task[task["unit"] == "0"].assign(metric="small", value=1.0, before=1.0)
    guessed = task.assign(metric="guessed", before=0.5, value=task["method"].map({"jeep": 0.0, "rome": 1.0}))
    pd.concat([damage, small, guessed], ignore_index=True).to_parquet(files[0][0])
    found = claims(files).loc[f"Beyond: {TASKS}"]
    assert found["value"] == pytest.approx(25, rel=0.05), "50 points in sums, none in small"
    table = damage_metrics(pd.read_parquet(files[0][0]))
    assert table[known(table)]["metric"].isin(["guessed"]).sum() == 0
