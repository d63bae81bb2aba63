"""On an accelerator: what the CPU computes. Skipped where there is none; JEEP_TEST_DEVICE names another device."""

import copy
import os

import pytest
import torch
from tiny import ARCHITECTURES, random_network

import jeep
from jeep.common.devices import make_repeatable
from jeep.editors import EDITORS, load_editor
from jeep.measure.evaluate import score
from jeep.model.editable import EditableModel
from jeep.model.loading import check_forward
from jeep.model.tokens import encode
from jeep.vectors.targets import optimize_facts
from jeep.vectors.task import Task
from jeep.writing.covariance import covariances

DEVICE = os.environ.get("JEEP_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="no accelerator, and JEEP_TEST_DEVICE names no device")

LOW = {"layers": [0, 1], "clamp": 0.5, "prior": 20.0, "weight_decay": 0.0}
STEPS = {"steps": 5, "learning_rate": 0.1}
TRAINED = {"layers": [1, 2], "rank": 8, "training": {"edits": 4, "epochs": 3, "meta_learning_rate": 1e-3}}
SETTINGS = {
    "ft_wd": {"layer": 2, "learning_rate": 0.001, "epochs": 3},
    "rome": {"optimization": STEPS, "layer": 1, "weight_decay": 0.0},
    "memit": {"optimization": STEPS, "region": LOW | {"spread": "even"}},
    "pmet": {"optimization": STEPS | {"relax": {}}, "region": LOW | {"spread": "sqrt"}, "write": "both"},
    "jeep": {
        "optimization": STEPS,
        "low": LOW | {"spread": "sqrt"},
        "high": {"layers": [2], "clamp": 0.5, "prior": 5.0, "spread": "even", "weight_decay": 0.0},
    },
    "mend": TRAINED,
    "malmen": TRAINED,
    "ultraedit": {"layers": [1, 2], "rate": 0.003},
}


@pytest.fixture(scope="module", autouse=True)
def repeatable():
    """As every job begins; PyTorch's own choice afterwards."""
    make_repeatable()
    yield
    torch.use_deterministic_algorithms(False)


def placed(name, byte_level, dtype=torch.float32) -> tuple[EditableModel, EditableModel]:
    """A model on the CPU and its copy on the device."""
    network = random_network(name, dtype)
    return EditableModel(network, byte_level), EditableModel(copy.deepcopy(network).to(DEVICE), byte_level)


def edited(name, model, facts, prefixes) -> dict[str, torch.Tensor]:
    """The changes of one editor, with all that they need computed on the model's device."""
    editor = load_editor(name, SETTINGS[name])
    rows = [tuple(encode(model.tokenizer, fact.prompt)) for fact in facts]
    found = covariances(model, rows, editor.covariances, 512) if editor.covariances else {}
    covariance = {place: matrix.cpu() + torch.eye(len(matrix)) for place, matrix in found.items()}
    network = editor.train(model, facts[4:], 0, 512)[0] if editor.trained else {}
    targets = optimize_facts(model, facts[:4], prefixes, editor.target_spec, 512) if editor.target_spec else []
    deltas = editor.edit(model, Task(facts[:4], prefixes, 512, targets, covariance, network))
    return {key: delta.cpu() for key, delta in deltas.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_packed_pass_is_the_models_own(architecture, dtype, byte_level):
    check_forward(placed(architecture, byte_level, dtype)[1])


@pytest.mark.parametrize("architecture", ["llama", "gptj"])
@pytest.mark.parametrize("name", EDITORS)
def test_every_edit_is_that_of_the_cpu(name, architecture, byte_level, facts, prefixes):
    here, there = (edited(name, model, facts, prefixes) for model in placed(architecture, byte_level))
    assert here.keys() == there.keys()
    for key, delta in here.items():
        assert float((delta - there[key]).norm() / delta.norm()) < 0.01, key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_is_the_same_to_the_bit_twice(name, dtype, byte_level, facts, prefixes):
    _, model = placed("llama", byte_level, dtype)
    one, other = (edited(name, model, facts, prefixes) for _ in range(2))
    for key, delta in one.items():
        assert torch.equal(delta, other[key]), key


def test_evaluation_is_that_of_the_cpu(byte_level):
    prompts, answers = [(5, 9, 2, 7), (8, 1), (4, 4, 6)], [[(3, 2), (7,)], [(5,), (6, 6, 1)], [(9,), (2,)]]
    here, there = (score(model, prompts, answers, 512) for model in placed("gptj", byte_level))
    for one, other in zip(here, there, strict=True):
        for mine, its in zip(one, other, strict=True):
            assert mine.log_probabilities == pytest.approx(its.log_probabilities, abs=1e-4)
            assert list(mine.correct) == list(its.correct)


def test_ones_own_model_is_edited_and_saved_there(byte_level, facts, tmp_path):
    here, _ = placed("llama", byte_level)
    here.save(tmp_path / "model")
    model = jeep.load(tmp_path / "model", device=DEVICE)
    edit = jeep.edit(model, facts[:2], settings=SETTINGS["jeep"], text=[fact.prompt for fact in facts] * 20)
    assert {p.device.type for p in model.network.parameters()} == {torch.device(DEVICE).type}
    edit.save(tmp_path / "edited")
    again = jeep.load(tmp_path / "edited", device="cpu")
    name = again.parameter_name(2)
    assert torch.equal(again.weight(name), model.weight(name).cpu())
    assert not torch.equal(again.weight(name), here.weight(name))
