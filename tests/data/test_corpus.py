"""What text statistics are estimated from."""

import json

import pytest

from jeep.data.corpus import held_out_texts, sampled_texts, texts


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"title": f"T{n}", "text": f"Ärtikel {n} " + "x" * n} for n in range(200)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_sample_is_of_the_whole_corpus_without_repetition(corpus):
    sample = list(sampled_texts(corpus, 50, seed=0))
    everything = list(texts(corpus))
    assert len(sample) == len(set(sample)) == 50
    places = [everything.index(text) for text in sample]
    assert min(places) < 40, "its beginning"
    assert max(places) > 160, "its end"
    assert places != sorted(places)


def test_the_seed_decides_the_sample(corpus):
    one, two, other = (list(sampled_texts(corpus, 10, seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other


@pytest.mark.parametrize("articles", [None, 200, 1000])
def test_without_a_number_or_with_too_large_a_one_it_is_all_of_it_in_random_order(corpus, articles):
    sample = list(sampled_texts(corpus, articles, seed=0))
    assert sample != list(texts(corpus))
    assert sorted(sample) == sorted(texts(corpus))


@pytest.mark.parametrize(("articles", "taken"), [(50, None), (50, 20), (None, 30), (None, 0)])
def test_what_is_held_out_is_the_rest(corpus, articles, taken):
    read = list(sampled_texts(corpus, articles, 3))[:taken]
    left = list(held_out_texts(corpus, articles, 3, taken))
    assert not set(read) & set(left)
    assert sorted([*read, *left]) == sorted(texts(corpus))
    places = [text for text in texts(corpus) if text in set(left)]
    assert left != places, "in random order"
    assert left == list(held_out_texts(corpus, articles, 3, taken))


def test_of_a_corpus_that_was_read_whole_nothing_is_held_out(corpus):
    assert list(held_out_texts(corpus, None, 3)) == []
