"""Covariances: one pass for many W_O, a file for each, in shards, and gone on from where it was killed."""

import json

import pytest
import torch

from jeep.common.errors import UserError
from jeep.common.settings import Sample
from jeep.common.storage import read_provenance, write_tensors
from jeep.data.corpus import sampled_texts
from jeep.model import progress
from jeep.model.loading import load_model
from jeep.writing.covariance import Sums, collect, covariances, estimate, read_covariances, sequences

PLACES = [(1, "mlp"), (2, "attention")]


@pytest.fixture
def sample(tmp_path):
    words = "Paris Rome Bonn lies in France Italy Germany not far from here".split()
    texts = [" ".join(words[(n * m) % len(words)] for m in range(1, 9 + n % 7)) for n in range(100)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Sample(tmp_path / "corpus.jsonl", tokens=900, length=12)


def estimated(model, sample, places, folder, budget=100):
    estimate(model, sample, places, budget, {"text": "this"}, folder)
    return read_covariances(sorted(folder.glob("[0-9]*.safetensors")), model)


def test_each_is_a_file_that_says_what_it_is_of(trained, sample, tmp_path):
    folder = tmp_path / "covariance"
    found = estimated(trained, sample, PLACES, folder)
    assert list(found) == PLACES
    paths = sorted(folder.glob("[0-9]*"))
    assert [path.name for path in paths] == ["1.mlp.safetensors", "2.attention.safetensors"]
    assert read_provenance(paths[0]) == {"model": trained.identity, "tokens": 900, "made_of": {"text": "this"}}
    rows = list(sequences(trained.tokenizer, sampled_texts(sample.corpus, None, 0), 12, 900))
    for place, matrix in covariances(trained, rows, PLACES, 100).items():
        assert torch.equal(found[place], matrix)


def test_it_is_of_the_checkpoint_in_whatever_precision_it_was_collected(trained, sample, tmp_path):
    """Statistics in float32 serve an edit in float16, and the other way round; a change of any weight is seen."""
    trained.save(tmp_path / "model")
    one, other = (load_model(tmp_path / "model", dtype, "cpu") for dtype in ("float32", "bfloat16"))
    estimated(one, sample, PLACES, tmp_path / "covariance")
    paths = sorted((tmp_path / "covariance").glob("[0-9]*"))
    assert list(read_covariances(paths, other)) == PLACES
    norm = next(name for name, _ in trained.network.named_parameters() if "norm" in name or "ln_f" in name)
    with trained.scratch([norm]):
        trained.network.get_parameter(norm).data *= 1.5
        trained.save(tmp_path / "changed")
    with pytest.raises(UserError, match="made with another model"):
        read_covariances(paths, load_model(tmp_path / "changed", "float32", "cpu"))


def test_a_covariance_of_another_model_is_one_line(trained, sample, tmp_path):
    folder = tmp_path / "covariance"
    estimated(trained, sample, PLACES, folder)
    name = trained.parameter_name(0)
    with trained.scratch([name]):
        trained.add_({name: torch.full_like(trained.network.get_parameter(name), 1e-3)})
        with pytest.raises(UserError, match=r"1\.mlp\.safetensors: made with another model"):
            read_covariances([folder / "1.mlp.safetensors"], trained)


@pytest.mark.parametrize("shards", [2, 3, 100])
def test_shards_add_up_to_the_whole(shards, trained, sample, tmp_path):
    """Also where some have no text at all."""
    parts = []
    for number in range(shards):
        part = collect(trained, sample, PLACES, 100, tmp_path / "unfinished", (number, shards))
        parts.append(tmp_path / f"{number}.safetensors")
        write_tensors(parts[-1], part.tensors())
        (tmp_path / "unfinished").unlink(missing_ok=True)
    sums = Sums.merged(parts)
    assert sums.tokens == 900
    for place, matrix in estimated(trained, sample, PLACES, tmp_path / "whole").items():
        torch.testing.assert_close(sums.mean(place), matrix)


def test_a_killed_pass_goes_on_from_its_checkpoint(trained, sample, tmp_path, monkeypatch):
    whole = collect(trained, sample, PLACES, 10, tmp_path / "whole").tensors()
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    portions, original = [], Sums.add

    def dies(self, where, keys):
        portions.append(len(keys))
        if len(portions) == 80:
            raise KeyboardInterrupt
        original(self, where, keys)

    monkeypatch.setattr(Sums, "add", dies)
    unfinished = tmp_path / "unfinished.safetensors"
    with pytest.raises(KeyboardInterrupt):
        collect(trained, sample, PLACES, 10, unfinished)
    assert unfinished.is_file()
    resumed = collect(trained, sample, PLACES, 10, unfinished).tensors()
    assert sum(portions) < 1.7 * 2 * 900, "not all of it again"
    assert resumed["tokens"] == whole["tokens"] == 900
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    again = collect(trained, sample, PLACES[:1], 10, unfinished).tensors()
    assert torch.equal(again["1.mlp"], whole["1.mlp"]), "of a pass for more, those that are still asked for"
    shorter = Sample(sample.corpus, tokens=500, length=12)
    assert collect(trained, shorter, PLACES, 10, unfinished).tokens == 500, "a checkpoint of another sample is not used"


def test_a_batch_that_does_not_fit_is_made_smaller_and_counts_once(trained, sample, tmp_path, monkeypatch, caplog):
    expected = estimated(trained, sample, PLACES, tmp_path / "whole")
    original = type(trained).run

    def small(self, states, packing, first, last):
        result = original(self, states, packing, first, last)  # the keys of the lower layers are recorded by now
        if len(states) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return result

    monkeypatch.setattr(type(trained), "run", small)
    found = estimated(trained, sample, PLACES, tmp_path / "less", 100)
    for place, matrix in expected.items():
        torch.testing.assert_close(found[place], matrix)
    lowered = [line for line in caplog.messages if "the token budget is lowered" in line]
    assert 1 <= len(lowered) <= 2, "once for all of the text"


def test_a_corpus_without_text_is_one_line(trained, tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(UserError, match="no text to estimate covariances from"):
        estimated(trained, Sample(tmp_path / "corpus.jsonl", length=12), PLACES, tmp_path / "covariance")
