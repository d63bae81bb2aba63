"""What a job asks for, by hand."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jeep.config import needs


@pytest.fixture
def checkpoint(tmp_path):
    """A million weights, stored in float16."""
    save_file({"w": np.zeros((1000, 1000), np.float16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float16", "hidden_size": 500}))
    return tmp_path


def test_weights_in_the_precision_that_is_asked_for(checkpoint):
    assert needs.weights(checkpoint, "float16") == pytest.approx(2, rel=0.01)
    assert needs.weights(checkpoint, "float32") == pytest.approx(4, rel=0.01)
    (checkpoint / "config.json").write_text(json.dumps({"torch_dtype": "float32"}))
    assert needs.weights(checkpoint, "float16") == pytest.approx(1, rel=0.01)


def test_while_there_is_no_checkpoint_nothing_is_known(tmp_path):
    with pytest.raises(FileNotFoundError):
        needs.weights(tmp_path / "none", "float32")


def test_matrices_of_an_mlp_and_keys_of_facts(checkpoint):
    assert needs.inputs(checkpoint) == 2000
    assert needs.covariances(checkpoint, 3) == 2000**2 * (3 * 8 + 12) / 1e6
    # C and its factor and the product, float64; keys of 10 facts under 6 prompts, gathered, pooled and solved
    assert needs.closed_form(checkpoint, 10, 6) == (3 * 8 * 2000**2 + 8 * 2000 * 10 * 8) / 1e6
    (checkpoint / "config.json").write_text(json.dumps({"n_embd": 500, "n_inner": 700}))
    assert needs.inputs(checkpoint) == 700


def test_another_attempt_gets_more():
    assert [needs.total([500.0, 500.0], attempt) for attempt in (1, 2, 3)] == [4000, 6000, 8000]
