"""Settings without a search: what stands in the shipped configurations is the same there."""

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from jeep.api.defaults import default_settings
from jeep.api.statistics import WIKIPEDIA
from jeep.config.config import load_config
from jeep.editors import load_editor


@pytest.mark.parametrize(("name", "architecture", "depth"), [("gptj", "gptj", 28), ("llama", "llama", 32)])
@pytest.mark.parametrize("method", ["jeep", "memit", "pmet", "rome", "ft-wd"])
def test_for_the_papers_models_they_are_the_papers(name, architecture, depth, method):
    """But for precision, which a loaded model has, and the prefixes of ROME, whose own take three times as long."""
    editor = method.replace("-", "_")
    ours = load_editor(editor, default_settings(editor, architecture, depth, 7 * 10**9))
    papers = load_config(ROOT / "config/paper.yaml").editor(method, name, "mcf")
    assert ours.model_copy(update={"dtype": papers.dtype, "prefixes": papers.prefixes}) == papers


def test_for_small_models_they_are_those_that_were_searched_for_smollm2():
    """MEMIT's by the pipeline's search, JEEP's by `jeep tune`, whose last trial is the chosen one."""
    memit = load_editor("memit", default_settings("memit", "llama", 30, 135 * 10**6))
    assert memit == load_config(ROOT / "config/config.yaml").editor("memit", "smollm2-135m", "mcf-demo")
    jeep = default_settings("jeep", "llama", 30, 135 * 10**6)
    chosen = pd.read_csv(ROOT / "config/search/smollm2-135m/own-model.csv").iloc[-1]
    for path in chosen.index[chosen.index.str.contains(".", regex=False)]:
        part, name = path.split(".")
        assert jeep[part][name] == yaml.safe_load(str(chosen[path])), path


def test_a_small_model_with_a_large_ones_depth_is_a_small_one():
    """SmolLM2 360M has as many blocks as LLaMA 7B."""
    small, large = (default_settings("jeep", "llama", 32, size) for size in (36 * 10**7, 7 * 10**9))
    assert small["low"]["clamp"] == 3
    assert large["low"]["layers"] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("size", [10**8, 10**10])
@pytest.mark.parametrize("depth", [2, 4, 6, 12, 24, 30, 48, 80])
@pytest.mark.parametrize("method", ["jeep", "memit", "pmet", "rome", "ft_wd"])
def test_for_any_depth_there_are_layers_that_the_model_has(depth, method, size):
    editor = load_editor(method, default_settings(method, "other", depth, size))
    layers = [layer for layer, _ in editor.covariances] or [editor.layer]
    assert 0 <= min(layers) <= max(layers) < depth


def test_the_text_is_the_demos():
    assert load_config(ROOT / "config/config.yaml").corpus.source == WIKIPEDIA
