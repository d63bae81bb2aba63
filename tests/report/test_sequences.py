"""Tables of a sequence, by hand from made-up results."""

import json

import pandas as pd
import pytest

from jeep.common.errors import UserError
from jeep.report.figures.sequence import draw_sequence
from jeep.report.sequences import CHANGE, DRIFT, PERPLEXITY, UNWRITTEN, read_traces, sequence_metrics, write_sequence

RUN = {"model": "m", "dataset": "d", "seed": 0, "preset": "paper"}
LABELS = {"models": {"m": "The model"}, "datasets": {"d": "The set"}, "methods": {"seq": "MEMIT-seq"}}
SHOWN = {"model": ["m"], "dataset": ["d"], "method": ["none", "seq"]}


def rows(method, edits, values, seed=0):
    """Results of facts f1, f2, ... two in each batch; `values` are their ES, GS and LS are 1."""
    cells = [
        {
            "case_id": f"f{n}",
            "metric": metric,
            "number": 0,
            "value": value if metric == "ES" else 1.0,
            "batch": n // 2 + 1,
        }
        for n, value in enumerate(values)
        for metric in ("ES", "GS", "LS")
    ]
    return pd.DataFrame(cells).assign(**RUN | {"method": method, "seed": seed}, edits=edits)


@pytest.fixture
def files(tmp_path):
    """Of the edited model the first batch falls from ES 100 to 50; a fact of the second batch was not written."""
    paths, traces = [], []
    for method, results in {"none": [(2, [0, 0]), (4, [0, 0, 1, 0])], "seq": [(2, [1, 1]), (4, [1, 0, 1, 1])]}.items():
        paths.append(tmp_path / f"{method}.parquet")
        pd.concat([rows(method, count, values) for count, values in results]).to_parquet(paths[-1])
        notes = [{"batch": 1, "facts": 2, **RUN, "method": method}, {"batch": 2, "facts": 2, **RUN, "method": method}]
        if method == "seq":
            notes[0] |= {"left_out": [], "relative_change": {"a": 0.1, "b": 0.3}}
            notes[1] |= {"left_out": ["f3"], "relative_change": {"a": 0.2, "b": 0.5}}
        traces.append(tmp_path / f"{method}.json")
        traces[-1].write_text(json.dumps(notes))
    return paths, traces


def test_all_facts_so_far_the_first_batch_and_the_model_are_apart(files):
    paths, traces = files
    table = sequence_metrics(pd.concat(map(pd.read_parquet, paths)), read_traces(traces))
    found = table.set_index(["method", "edits", "part", "metric"])["value"]
    assert [found["seq", count, "all", "ES"] for count in (2, 4)] == [100, 75]
    assert [found["seq", count, "first", "ES"] for count in (2, 4)] == [100, 50]
    assert [found["none", count, "first", "ES"] for count in (2, 4)] == [0, 0]
    assert [found["seq", count, "model", CHANGE] for count in (2, 4)] == [0.3, 0.5]
    assert [found["seq", count, "model", UNWRITTEN] for count in (2, 4)] == [0, 1]
    assert found["seq", 4, "all", "Score"] == pytest.approx(3 / (1 / 75 + 2 / 100))


def test_batches_that_are_not_measured_count_all_the_same(files):
    """Measured after the second alone: what the first has left out is among the facts that were not written."""
    paths, traces = files
    results = pd.concat(map(pd.read_parquet, paths))
    notes = json.loads(traces[1].read_text())
    notes[0]["left_out"] = ["f0", "f1"]
    traces[1].write_text(json.dumps(notes))
    table = sequence_metrics(results[results["edits"] == 4], read_traces(traces))
    assert set(table["edits"]) == {4}
    assert table.set_index(["method", "metric"])["value"]["seq", UNWRITTEN] == 3


def test_the_table_says_what_was_forgotten(files, tmp_path):
    write_sequence(*files, SHOWN, LABELS, tmp_path / "sequence.csv")
    text = (tmp_path / "sequence.md").read_text()
    (line,) = [line for line in text.splitlines() if "MEMIT-seq" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:2] == ["The model", "MEMIT-seq"]
    assert cells[-4:] == ["50.0", "50.0", "0.5", "1"], "left of the first batch, forgotten, change, not written"
    (line,) = [line for line in text.splitlines() if "| none" in line]
    assert [cell.strip() for cell in line.split("|")[1:-1]][-4:] == ["0.0", "", "", ""]
    assert "2 facts each" in text
    csv = pd.read_csv(tmp_path / "sequence.csv")
    assert list(csv.columns) == ["dataset", "model", "method", "edits", "part", "metric", "value", "ci95"]


def test_a_batch_has_as_many_facts_whatever_the_number_of_data_sets(files, tmp_path):
    paths, traces = files
    results = pd.concat(map(pd.read_parquet, paths))
    results.assign(dataset="e", case_id="e-" + results["case_id"]).to_parquet(tmp_path / "other.parquet")
    notes = [note | {"dataset": "e"} for path in traces for note in json.loads(path.read_text())]
    (tmp_path / "other.json").write_text(json.dumps(notes))
    shown = SHOWN | {"dataset": ["d", "e"]}
    found = [*paths, tmp_path / "other.parquet"], [*traces, tmp_path / "other.json"]
    write_sequence(*found, shown, LABELS, tmp_path / "sequence.csv")
    assert "2 facts each" in (tmp_path / "sequence.md").read_text()


def test_nothing_to_show_is_one_clear_line(files, tmp_path):
    with pytest.raises(UserError, match="no results of rome in sequence"):
        write_sequence(*files, SHOWN | {"method": ["rome"]}, LABELS, tmp_path / "sequence.csv")


def test_drift_is_shown_where_it_was_measured_and_endless_where_the_model_answers_nan(files, tmp_path):
    paths, traces = files
    notes = json.loads(traces[1].read_text())
    notes[0]["drift"], notes[1]["drift"] = {"kl": 0.25, "ratio": 1.5}, {"kl": None, "ratio": None}
    traces[1].write_text(json.dumps(notes))
    table = sequence_metrics(pd.concat(map(pd.read_parquet, paths)), read_traces(traces))
    found = table[table["part"] == "model"].set_index(["method", "edits", "metric"])["value"]
    assert found["seq", 2, DRIFT] == 0.25
    assert found["seq", 2, PERPLEXITY] == 50
    assert found["seq", 4, DRIFT] == float("inf")
    assert ("none", 2, DRIFT) not in found.index
    write_sequence(paths, traces, SHOWN, LABELS, tmp_path / "sequence.csv")
    assert "KL" in (tmp_path / "sequence.md").read_text()
    draw_sequence(tmp_path / "sequence.csv", LABELS, tmp_path / "sequence.pdf")
    assert (tmp_path / "sequence.png").is_file()
