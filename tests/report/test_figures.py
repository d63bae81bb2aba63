"""Figures are drawn from results files: PDF and PNG, the same bytes for the same results."""

import json

import pandas as pd
import pytest
import torch
from PIL import Image
from test_artifacts import records_of

from jeep.common.storage import write_jsonl, write_tensors
from jeep.data.facts import Fact, Question
from jeep.report.figures.leaks import draw_leak_costs, draw_leaks
from jeep.report.figures.probes import draw_contrast, draw_contributions, draw_placement, draw_prompt, draw_words
from jeep.report.figures.procedure import draw_procedure
from jeep.report.figures.records import draw_record
from jeep.report.figures.sequence import draw_sequence
from jeep.report.figures.series import TITLES, draw_series
from jeep.report.figures.tradeoff import draw_tradeoff, tradeoff_table
from jeep.report.figures.training import draw_training

LABELS = {"models": {"m": "The model"}, "datasets": {}, "methods": {"jeep": "JEEP"}}


@pytest.fixture
def series(tmp_path):
    rows = [
        ("d", "m", method, x, metric, 50 + x + len(metric), float("nan") if metric == "Score" else 5)
        for method in ("memit", "jeep")
        for x in (1, 10)
        for metric in ("Score", "ES", "GS", "LS")
    ]
    columns = ["dataset", "model", "method", "x", "metric", "value", "ci95"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "series.csv", index=False)
    return tmp_path / "series.csv"


@pytest.fixture
def sequence(tmp_path):
    """As `sequence_metrics`, of an edited and an unedited model."""
    rows = [
        ("d", "m", method, edits, part, metric, 40 + edits + len(metric) if method == "jeep" else 3.0, 5)
        for method in ("none", "jeep")
        for edits in (2, 4, 6)
        for part, metrics in {"all": ["Score", "ES", "GS", "LS"], "first": ["ES"], "model": ["relative change"]}.items()
        for metric in metrics
    ]
    columns = ["dataset", "model", "method", "edits", "part", "metric", "value", "ci95"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "sequence.csv", index=False)
    return tmp_path / "sequence.csv"


@pytest.fixture
def network(tmp_path):
    write_tensors(tmp_path / "network.safetensors", {"losses": torch.rand(30, 2)})
    return tmp_path / "network.safetensors"


@pytest.fixture
def contrast(tmp_path):
    """What the contrast probe writes, of five prompts and three layers."""
    rows = [
        (case, position, layer, part, answer, 0.01 + case / 100, 10.0 * case + layer)
        for case in range(5)
        for position in ("subject_last", "prediction")
        for layer in range(4)
        for part in ("state", "without_mlp", "without_attention")
        for answer in ("original", "new")
        if layer or part == "state"
    ]
    columns = ["case_id", "position", "layer", "part", "answer", "probability", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "contrast.parquet")
    regions = {"prediction": [0, 0, 0], "low": [0], "middle": [1], "high": [2]}
    (tmp_path / "regions.json").write_text(json.dumps(regions))
    return tmp_path / "contrast.parquet"


@pytest.fixture
def prompt(tmp_path):
    rows = [(n, token, "", layer, 0.1**layer, layer) for n, token in enumerate(["Ada", " is"]) for layer in range(4)]
    columns = ["index", "token", "place", "layer", "probability", "rank"]
    pd.DataFrame(rows, columns=columns).assign(answer="English").to_csv(tmp_path / "prompt.csv", index=False)
    return tmp_path / "prompt.csv"


@pytest.fixture
def words(tmp_path):
    sets = ("original", "factual", "non-factual", "stop words", "unrelated")
    rows = [(case, layer, name, 0.1, 5.0 + case) for case in range(3) for layer in range(4) for name in sets]
    columns = ["case_id", "layer", "set", "probability", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "words.parquet")
    return tmp_path / "words.parquet"


@pytest.fixture
def edited(tmp_path):
    """An edit with the trace of three updates."""
    steps = [(0, "subject_last", 4.0, 2.0), (1, "subject_last", 2.0, 0.5), (4, "prediction", 1.0, 0.2)]
    trace = [
        {
            "layer": layer,
            "edited": "mlp",
            "position": position,
            "relative_change": 0.02,
            "residual_before": before,
            "residual_after": after,
        }
        for layer, position, before, after in steps
    ]
    write_tensors(tmp_path / "edit.safetensors", {"w": torch.zeros(1)}, {"trace": trace})
    return tmp_path / "edit.safetensors"


@pytest.fixture
def searches(tmp_path, contrast):
    """Searches over the layers of two regions; the first trial of each is of the configured ones."""
    for setting, layers in (("low.layers", [1]), ("high.layers", [0])):
        scores = {tuple(MOVED[setting]): {"Score": 60, "ci95": 5}, tuple(layers): {"Score": 40, "ci95": 6}}
        trials = [{"settings": {setting: list(place)}, "sets": {"d": score}} for place, score in scores.items()]
        write_jsonl(tmp_path / f"{setting}.jsonl", [{"editor": "jeep"}, *trials])
    return {setting: tmp_path / f"{setting}.jsonl" for setting in ("low.layers", "high.layers")}


@pytest.fixture
def leaking(tmp_path):
    """An edit whose trace says what reached neighbours."""
    places = [(0, "subject_last"), (1, "subject_last"), (3, "prediction")]
    steps = [{"layer": layer, "position": position, "leak": 0.2 + layer / 4} for layer, position in places]
    write_tensors(tmp_path / "leaking.safetensors", {"w": torch.zeros(1)}, {"trace": steps})
    return tmp_path / "leaking.safetensors"


@pytest.fixture
def leaks(tmp_path):
    rows = [(layer, place, layer / 5) for layer in range(4) for place in ("subject_last", "prediction")]
    pd.DataFrame(rows, columns=["layer", "position", "leak"]).to_csv(tmp_path / "leaks.csv", index=False)
    return tmp_path / "leaks.csv"


@pytest.fixture
def moved(tmp_path):
    """A search that moved a high region: the more leaked, the less locality."""
    trials = [
        {
            "settings": {"high.layers": [layer, layer + 1]},
            "sets": {"d": {"LS": 60 - 10 * layer, "reached": reached}},
        }
        for layer in (1, 2, 3)
        for reached in [
            [{"layer": 0, "position": "subject_last", "leak": 9.0}]
            + [{"layer": n, "position": "prediction", "leak": n / 8} for n in (layer, layer + 1)]
        ]
    ]
    write_jsonl(tmp_path / "moved.jsonl", [{"editor": "jeep"}, *trials])
    return tmp_path / "moved.jsonl"


@pytest.fixture
def tradeoff(tmp_path):
    """Two data sets; the unedited model is shown on the first one only."""
    start = {"Score": 30, "ES": 90, "GS": 70, "LS": 50}
    rows = [
        (dataset, "m", curve, x, metric, start[metric] + beside + (x or 0) - 40 * number, 5)
        for number, dataset in enumerate("de")
        for curve, values, beside in (
            ("γ*", (0.5, 1), 0),
            ("margin", (0, 2), 0),
            ("memit", (None,), 3),
            ("none", (None,), 5),
        )
        if (dataset, curve) != ("e", "none")
        for x in values
        for metric in start
    ]
    columns = ["dataset", "model", "curve", "x", "metric", "value", "ci95"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "tradeoff.csv", index=False)
    return tmp_path / "tradeoff.csv"


PROMPT = {"tokens": ["Ada", " speaks", " well"], "subject_last": 0, "prediction": 2}
MOVED = {"low.layers": [0], "high.layers": [2]}
FACT = Fact(
    case_id="1",
    subject="Ada",
    template="{} speaks",
    relation="P103",
    target_new="Danish",
    target_true="English",
    paraphrases=("The mother tongue of Ada is",),
    unrelated=tuple(Question(f"Person {n} speaks", "English") for n in range(5)),
)

DRAWINGS = {
    "edits": lambda files, out: draw_series(files("series"), "edits", LABELS, out),
    "sweep": lambda files, out: draw_series(files("series"), "high.clamp", LABELS, out),
    "sequence": lambda files, out: draw_sequence(files("sequence"), LABELS, out),
    "training": lambda files, out: draw_training({"one": files("network"), "two": files("network")}, out),
    "prompt": lambda files, out: draw_prompt(files("prompt"), "The model", out),
    "contrast": lambda files, out: draw_contrast(
        files("contrast"), files("contrast").with_name("regions.json"), "The model", out
    ),
    "contributions": lambda files, out: draw_contributions(files("contrast"), "The model", out),
    "words": lambda files, out: draw_words(files("words"), "The model", out),
    "placement": lambda files, out: draw_placement(
        files("searches"), MOVED, files("contrast").with_name("regions.json"), "The model", out
    ),
    "procedure": lambda files, out: draw_procedure(files("edited"), PROMPT, "The model", out),
    "record": lambda files, out: draw_record(FACT, "A record", out),
    "leaks": lambda files, out: draw_leaks(
        {("m", "d", "jeep"): files("leaking"), ("m", "d", "memit"): files("leaking")}, LABELS, out
    ),
    "leak costs": lambda files, out: draw_leak_costs(files("leaks"), [files("moved")], "The model", out),
    "tradeoff": lambda files, out: draw_tradeoff(files("tradeoff"), LABELS, out),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_a_pdf_and_a_png_that_do_not_change(name, request, tmp_path):
    for folder in ("one", "two"):
        DRAWINGS[name](request.getfixturevalue, tmp_path / folder / "figure.pdf")
    for suffix in (".pdf", ".png"):
        one, two = ((tmp_path / folder / "figure").with_suffix(suffix).read_bytes() for folder in ("one", "two"))
        assert one == two
    image = Image.open(tmp_path / "one" / "figure.png")
    assert image.width > 1000
    assert len(set(image.convert("L").getdata())) > 10, "not a blank page"


def test_each_stage_is_marked_in_the_panel_of_its_position(contrast, tmp_path, monkeypatch):
    """The low region at the subject, the middle layers and the high region at the prediction."""
    drawn = []
    monkeypatch.setattr("jeep.report.figures.probes.save", lambda figure, out: drawn.append(figure))
    draw_contrast(contrast, contrast.with_name("regions.json"), "The model", tmp_path / "figure.pdf")
    panels = {axis.get_title(): [text.get_text() for text in axis.texts] for axis in drawn[0].axes if axis.get_title()}
    assert panels == {"at the subject's last token": ["low"], "at the prediction position": ["middle", "high"]}
    spans = [patch.get_x() for axis in drawn[0].axes[:2] for patch in axis.patches]
    assert spans == [0, 1, 2]


@pytest.mark.parametrize("axis", ["edits", "high.clamp"])
def test_every_method_is_drawn_however_many_there_are(axis, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("jeep.report.figures.series.save", lambda figure, out: drawn.append(figure))
    methods, counts = [f"method {number}" for number in range(13)], [50, 60, 200, 561]
    rows = [("d", "m", name, x, metric, 50, 5) for name in methods for x in counts for metric in TITLES]
    columns = ["dataset", "model", "method", "x", "metric", "value", "ci95"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "series.csv", index=False)
    draw_series(tmp_path / "series.csv", axis, LABELS, tmp_path / "figure.pdf")
    panel, (legend,) = drawn[0].axes[0], drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == methods
    assert len({(line.get_color(), line.get_marker()) for line in panel.lines}) == len(methods)
    drawn[0].draw_without_rendering()
    assert legend.get_window_extent().width <= drawn[0].bbox.width, "no name is cut off"
    if axis == "edits":
        assert [text.get_text() for text in panel.get_xticklabels()] == ["50", "200", "561"], "60 would touch 50"


def test_a_method_that_is_run_on_one_model_only_leaks_there_and_is_in_the_legend(leaking, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("jeep.report.figures.leaks.save", lambda figure, out: drawn.append(figure))
    edits = {("one", "d", "jeep"): leaking, ("two", "d", "jeep"): leaking, ("two", "d", "memit"): leaking}
    draw_leaks(edits, {}, tmp_path / "figure.pdf")
    lines = [
        [line for line in axis.lines if len(line.get_xdata()) and line.get_marker() != "None"] for axis in drawn[0].axes
    ]
    assert len(lines[1]) == 2 * len(lines[0]) > 0
    assert lines[0][0].get_color() == lines[1][0].get_color() != lines[1][-1].get_color()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["jeep", "memit"]


def test_the_cost_of_a_leak_is_told_by_its_rank_correlation(leaks, moved, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("jeep.report.figures.leaks.save", lambda figure, out: drawn.append(figure))
    draw_leak_costs(leaks, [moved], "The model", tmp_path / "figure.pdf")
    _, right = drawn[0].axes
    assert right.get_title() == "Spearman's ρ = -1.00, p = 0.00, 3 edits"
    (points,) = right.lines
    assert points.get_xdata().tolist() == [1.5 / 8, 2.5 / 8, 3.5 / 8], "of the high region's layers alone"
    assert points.get_ydata().tolist() == [50, 40, 30]


def test_a_trial_that_wrote_nothing_is_no_point(leaks, moved, tmp_path, monkeypatch):
    """One that failed, and one whose high update is zero, of which nothing can leak."""
    nothing = {"layer": 3, "position": "prediction"}
    with moved.open("a") as file:
        for result in ({"Score": 0.0, "failed": "singular"}, {"LS": 9, "reached": [nothing]}):
            file.write(json.dumps({"sets": {"d": result}}) + "\n")
    drawn = []
    monkeypatch.setattr("jeep.report.figures.leaks.save", lambda figure, out: drawn.append(figure))
    draw_leak_costs(leaks, [moved], "The model", tmp_path / "figure.pdf")
    assert drawn[0].axes[1].get_title().endswith("3 edits")


def test_a_tradeoff_draws_curves_and_methods_by_their_labels_and_the_unedited_model_as_a_line(
    tradeoff, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr("jeep.report.figures.tradeoff.save", lambda figure, out: drawn.append(figure))
    draw_tradeoff(tradeoff, {"methods": {"none": "unedited", "memit": "MEMIT"}}, tmp_path / "figure.pdf")
    left, right, below, _ = drawn[0].axes
    named = [
        {line.get_label(): line for line in axis.lines if line.get_label()[0] != "_"} for axis in (left, right, below)
    ]
    points = [{name: line.get_xydata().tolist() for name, line in lines.items()} for lines in named]
    assert points[0]["γ*"] == [[90.5, 50.5], [91, 51]]
    assert points[0]["margin"] == [[90, 50], [92, 52]]
    assert points[0]["MEMIT"] == [[93, 53]]
    assert {y for _, y in points[0]["unedited"]} == {55}
    assert points[1]["γ*"] == [[70.5, 50.5], [71, 51]]
    assert points[2] == {"γ*": [[50.5, 10.5], [51, 11]], "margin": [[50, 10], [52, 12]], "MEMIT": [[53, 13]]}
    assert (named[0]["MEMIT"].get_color(), named[0]["unedited"].get_linestyle()) == ("black", "--")
    hollow = [line.get_xydata().tolist() for line in left.lines if line.get_markerfacecolor() == "white"]
    assert hollow == [[[90.5, 50.5]], [[90, 50]]], "the least value of each curve"


def test_a_tradeoff_has_a_row_for_each_value_of_a_curve_and_metric(tmp_path):
    parts = [
        records_of(name, [value, 1.0], locality=1 - value) for name, value in {"a-1": 0.0, "a-2": 1.0, "b": 0.5}.items()
    ]
    pd.concat(parts).to_parquet(tmp_path / "records.parquet")
    shown = {"model": ["m"], "dataset": ["d"], "method": ["b", "a-1", "a-2"]}
    table = tradeoff_table([tmp_path / "records.parquet"], shown, {"A": {"a-1": 1.0, "a-2": 2.0}, "B": {"b": None}}, 2)
    found = {(row.curve, row.x, row.metric): row.value for row in table.fillna({"x": 0}).itertuples()}
    assert found["A", 1, "ES"] == 50
    assert found["A", 2, "ES"] == 100
    assert found["A", 2, "LS"] == 0
    assert found["B", 0, "ES"] == 75
    assert len(found) == 3 * 4
