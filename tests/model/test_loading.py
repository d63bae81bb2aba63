"""A checkpoint is whole, known and what its row of the table says, or refused in one line."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import ARCHITECTURES, random_network
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from jeep.common.errors import UserError
from jeep.data.fetch import fetch_model
from jeep.data.sources import PathSource
from jeep.model import architectures
from jeep.model.architectures import architecture_of
from jeep.model.editable import EditableModel
from jeep.model.loading import check_checkpoint, check_forward, load_model


@pytest.fixture(scope="module")
def whole(byte_level, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    EditableModel(random_network("llama"), byte_level).save(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A checkpoint of the test's own."""
    fetch_model(PathSource(kind="path", path=whole), tmp_path / "model")
    for path in (tmp_path / "model").iterdir():  # they are links to the whole one
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return tmp_path / "model"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_config(folder, **fields):
    change_json(folder / "config.json", lambda config: config.update(fields))


W_O = "model.layers.1.mlp.down_proj.weight"
DAMAGES = {
    "a weight is missing": (lambda f: change_weights(f, lambda w: w.pop(W_O)), f"weights are missing: {W_O}"),
    "weights are missing": (
        lambda f: change_weights(f, lambda w: [w.pop(name) for name in list(w) if "mlp" in name]),
        "and 9 more",
    ),
    "another shape": (
        lambda f: change_weights(f, lambda w: w.update({W_O: torch.zeros(3, 3)})),
        f"weights do not fit the configuration: {W_O} is \\(3, 3\\), not \\(32, 64\\)",
    ),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{"), "deserializing header"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "deserializing header"),
    "a pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "deserializing header",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "not a checkpoint folder"),
    "a broken configuration": (lambda f: (f / "config.json").write_text("{"), "not a valid JSON file"),
    "code of its own": (
        lambda f: change_config(f, model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "contains custom code",
    ),
    "a value of another kind": (lambda f: change_config(f, attention_bias=None), "attention_bias"),
    "a setting of the tokenizer that is none": (
        lambda f: change_json(f / "tokenizer_config.json", lambda config: config.update(model_max_length=[])),
        "no tokenizer: TypeError: '>' not supported",
    ),
    "a tokenizer that panics": (
        lambda f: change_json(f / "tokenizer.json", lambda t: t["model"].update(continuing_subword_prefix="Paris")),
        "no tokenizer: PanicException: range end index",
    ),
    "a tokenizer without its tokens": (
        lambda f: change_json(f / "tokenizer.json", lambda tokenizer: tokenizer["added_tokens"][0].pop("id")),
        "no tokenizer: ",
    ),
    "no such architecture": (lambda f: change_config(f, model_type="mine"), "does not recognize this architecture"),
    "quantised": (
        lambda f: change_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised weights cannot be edited",
    ),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "no tokenizer",
    ),
}


@pytest.mark.parametrize("read", [check_checkpoint, load_model])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_refused_in_one_line(damage, read, folder, monkeypatch):
    """Asking nothing on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    spoil, complaint = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=complaint) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_what_is_whole_is_taken(folder):
    check_checkpoint(folder)
    load_model(folder, device="cpu")


def test_weights_that_are_not_finite_are_refused(folder):
    change_weights(folder, lambda weights: weights[W_O].fill_(float("nan")))
    with pytest.raises(UserError, match=f"{W_O} is not finite"):
        check_checkpoint(folder)
    with pytest.raises(UserError, match="answers otherwise than by itself"):
        load_model(folder, device="cpu")


def test_words_without_an_embedding_are_refused_and_added_tokens_named(folder, byte_level, caplog):
    """Some models on the hub have added tokens that were never trained: no fact needs them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(600)])
    tokenizer.save_pretrained(folder)
    check_checkpoint(folder)
    assert "481 added tokens have no embedding" in caplog.text
    network = random_network("llama")
    network.resize_token_embeddings(300)
    EditableModel(network, byte_level).save(folder)
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, the model 300 embeddings"):
        check_checkpoint(folder)


def test_what_is_no_parameter_need_not_be_finite(folder):
    """A constant of an older version of the class, which is not read."""
    change_weights(folder, lambda weights: weights.update({"model.layers.0.masked_bias": torch.tensor(-math.inf)}))
    check_checkpoint(folder)


def test_of_a_refused_source_nothing_is_left(folder, tmp_path):
    change_weights(folder, lambda weights: weights.pop(W_O))
    with pytest.raises(UserError, match="weights are missing"):
        fetch_model(PathSource(kind="path", path=folder), tmp_path / "out", check_checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


WRONG = {
    "no rotary": ("gptj", {"rotary": None}),
    "no rotary by type": ("gemma3", {"rotary_by_type": False}),
    "no logit scale": ("cohere", {"logit_scale": None}),
    "no divisor": ("granite", {"logit_divisor": None}),
    "no embedding scale": ("granite", {"embedding_scale": None}),
    "no cap": ("gemma2", {"logit_cap": None}),
    "no norm behind the embedding": ("bloom", {"embedding_norm": None}),
    "no bias": ("bloom", {"alibi": False}),
    "another first position": ("opt", {"first_position": 0}),
    "no positions": ("gpt2", {"positions": None}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_row_that_does_not_fit_is_refused(wrong, byte_level, monkeypatch):
    name, fields = WRONG[wrong]
    network = random_network(name)
    kind = network.config.model_type
    monkeypatch.setitem(architectures.ARCHITECTURES, kind, replace(architectures.ARCHITECTURES[kind], **fields))
    model = EditableModel(network, byte_level)
    with pytest.raises(UserError, match=rf"{kind}: (run block by block, .* differ by|its row .* does not fit it)"):
        check_forward(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_passes_in_every_precision(name, dtype, byte_level):
    check_forward(EditableModel(random_network(name, dtype), byte_level))


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss", "qwen3_moe", "olmoe"])
def test_a_mixture_of_experts_is_refused_with_the_reason(kind):
    with pytest.raises(UserError, match="mixture of experts has no single W_O"):
        architecture_of(AutoConfig.for_model(kind))


def test_a_size_without_a_part_is_refused_by_name(byte_level):
    """OPT 350M has its norms behind, and none at the end."""
    network = random_network("opt")
    network.model.decoder.final_layer_norm = None
    with pytest.raises(UserError, match=r"this model has no model.decoder.final_layer_norm"):
        EditableModel(network, byte_level)


@pytest.mark.parametrize("act", ["gelu_new", "gelu_fast"])
def test_gelu_is_one_kernel_that_gives_the_models_own_logits(act, byte_level, tmp_path):
    network = random_network("gptj")
    network.config.activation_function = act
    network.save_pretrained(tmp_path)
    byte_level.save_pretrained(tmp_path)
    model, own = load_model(tmp_path, device="cpu"), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model.network.transformer.h[0].mlp.act) is not type(own.transformer.h[0].mlp.act)
    ids = torch.tensor([[5, 9, 2, 7, 11, 3]])
    torch.testing.assert_close(model.network(ids).logits, own(ids).logits, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["activation_function"] == act
