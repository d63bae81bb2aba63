"""Figures are drawn from results files: PDF and PNG, the same bytes for the same results."""

import json

import pandas as pd
import pytest
import torch
from PIL import Image

from jeep.common.storage import write_jsonl, write_tensors
from jeep.data.facts import Fact, Question
from jeep.report.figures.probes import draw_contrast, draw_contributions, draw_placement, draw_prompt, draw_words
from jeep.report.figures.procedure import draw_procedure
from jeep.report.figures.records import draw_record
from jeep.report.figures.series import draw_series
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
