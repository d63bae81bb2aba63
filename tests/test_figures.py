"""Figures are drawn from results files: PDF and PNG, the same bytes for the same results."""

import pandas as pd
import pytest
import torch
from PIL import Image

from jeep.figures.series import draw_series
from jeep.figures.training import draw_training
from jeep.storage import write_tensors

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


def drawings(series, network):
    return {
        "edits": lambda out: draw_series(series, "edits", LABELS, out),
        "sweep": lambda out: draw_series(series, "high.clamp", LABELS, out),
        "training": lambda out: draw_training({"one": network, "two": network}, out),
    }


@pytest.mark.parametrize("name", ["edits", "sweep", "training"])
def test_a_figure_is_a_pdf_and_a_png_that_do_not_change(name, series, network, tmp_path):
    draw = drawings(series, network)[name]
    for folder in ("one", "two"):
        draw(tmp_path / folder / "figure.pdf")
    for suffix in (".pdf", ".png"):
        one, two = ((tmp_path / folder / "figure").with_suffix(suffix).read_bytes() for folder in ("one", "two"))
        assert one == two
    image = Image.open(tmp_path / "one" / "figure.png")
    assert image.width > 1000
    assert len(set(image.convert("L").getdata())) > 10, "not a blank page"
