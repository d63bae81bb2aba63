"""Tables from per-record results."""

import pandas as pd
import pytest

from jeep.common.errors import UserError
from jeep.report.tables import write_series, write_table

LABELS = {"models": {"m": "The model"}, "datasets": {"d": "The set"}, "methods": {"none": "unedited", "jeep": "JEEP"}}

SHOWN = {"model": ["m"], "dataset": ["d"], "method": ["none", "jeep"]}


@pytest.fixture
def records(tmp_path):
    """Two methods at two edit counts; JEEP with two seeds that disagree on one record."""
    paths = []
    for method, seed, edits, efficacy in [
        ("none", 0, 2, [0.0, 0.0]),
        ("jeep", 0, 2, [1.0, 1.0]),
        ("jeep", 1, 2, [1.0, 0.0]),
        ("jeep", 0, 1, [1.0]),
    ]:
        rows = [(f"f{n}", metric, 0, value) for n, value in enumerate(efficacy) for metric in ("ES", "GS")]
        rows += [(f"f{n}", "LS", 0, 1.0) for n in range(len(efficacy))]
        run = {"model": "m", "dataset": "d", "method": method, "seed": seed, "edits": edits}
        run["preset"] = "paper" if method == "jeep" else ""
        paths.append(tmp_path / f"{method}-{seed}-{edits}.parquet")
        pd.DataFrame(rows, columns=["case_id", "metric", "number", "value"]).assign(**run).to_parquet(paths[-1])
    return paths


def test_a_table_takes_the_mean_over_seeds_within_a_record(records, tmp_path):
    write_table(records, "table3", SHOWN, LABELS, 2, tmp_path / "table3.csv")
    table = pd.read_csv(tmp_path / "table3.csv").set_index(["method", "metric"])
    assert table.value["jeep", "ES"] == 75  # records 1 and ½
    assert table.ci95["jeep", "ES"] == 49  # 1.96 · 35.36 / √2
    assert table.sd_seeds["jeep", "ES"] == 35.36  # of 100 and 50
    assert pd.isna(table.sd_seeds["none", "ES"])
    assert table.value["none", "Score"] == 0
    assert table.ci95["jeep", "Score"] == 38.9  # records move 81.8 by ∓ 81.8²/3 · 2 · 25/75² = 19.83


def test_the_layout_is_the_papers(records, tmp_path):
    write_table(records, "table3", SHOWN, LABELS, 2, tmp_path / "table3.csv")
    text = (tmp_path / "table3.md").read_text()
    assert "The set" in text
    assert "**75.0 (49.0) ±35.4**" in text, "the best edited value is bold"
    assert "mean over 2 seeds (± their standard deviation)" in text
    assert "**0.0" not in text
    assert text.index("unedited") < text.index("JEEP")
    assert text.strip().endswith("presets: jeep paper.")
    assert r"\begin{tabular}" in (tmp_path / "table3.tex").read_text()


def test_a_table_shows_what_is_asked_for_in_that_order(records, tmp_path):
    write_table(records, "table4", SHOWN | {"method": ["jeep", "none"]}, LABELS, 2, tmp_path / "table4.csv")
    assert list(pd.read_csv(tmp_path / "table4.csv").method.unique()) == ["jeep", "none"]
    write_table(records, "table4", SHOWN | {"method": ["jeep"]}, LABELS, 2, tmp_path / "table4.csv")
    assert list(pd.read_csv(tmp_path / "table4.csv").method.unique()) == ["jeep"]


def test_a_curve_has_every_number_of_edits(records, tmp_path):
    write_series(records, SHOWN, LABELS, 2, tmp_path / "figure4.csv")
    curve = pd.read_csv(tmp_path / "figure4.csv")
    jeep = curve[(curve.method == "jeep") & (curve.metric == "ES")].set_index("x").value
    assert jeep.to_dict() == {1: 100, 2: 75}


def test_a_sweep_is_one_method_over_its_values(records, tmp_path):
    variants = {"method": "sweep", "values": {"none": 0.5, "jeep": 2.0}}
    write_series(records, SHOWN, LABELS, 2, tmp_path / "figure6.csv", variants)
    sweep = pd.read_csv(tmp_path / "figure6.csv")
    assert set(sweep.method) == {"sweep"}
    assert sweep[sweep.metric == "ES"].set_index("x").value.to_dict() == {0.5: 0, 2.0: 75}


def test_a_table_without_results_is_one_line(records, tmp_path):
    with pytest.raises(UserError, match="table2: no results with 2 edits"):
        write_table(records, "table2", SHOWN | {"dataset": ["other"]}, LABELS, 2, tmp_path / "table2.csv")
