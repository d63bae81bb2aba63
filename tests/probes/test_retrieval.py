"""BM25 over paragraphs: two backends that rank the same."""

import pytest

from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import Fact
from jeep.probes.retrieval import BACKENDS, build_index
from jeep.probes.word_sets import related_words

ARTICLES = [
    {"title": "Paris", "text": "The capital of France lies on the Seine.\nIts river port is the largest in France."},
    {"title": "Seine", "text": "A river in France that flows through Paris. Paris is old."},
    {"title": "Lyon", "text": "A city on the Rhône, not Parisian at all."},
    {"title": "Other", "text": "Nothing to see."},
    *({"title": f"Filler {n}", "text": f"About the matter number {n}."} for n in range(8)),
]


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def index(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / request.param
    build_index(ARTICLES, request.param, folder)
    return BACKENDS[request.param](folder)


def test_only_paragraphs_with_the_subject_in_title_or_text(index):
    found = index.best("Paris", "Paris river", 10)
    assert [paragraph["title"] for paragraph in found] == ["Seine", "Paris", "Paris"]
    assert found[1]["text"].startswith("Its river port"), "of the two, it holds both words of the query"
    assert len(index.best("paris", "Paris river", 2)) == 2
    assert index.best("Seine Paris", "river", 10) == [], "the words, but not in a row"
    assert index.best("Atlantis", "river", 10) == []


def test_a_subject_of_stop_words_is_found_too(index):
    assert [paragraph["title"] for paragraph in index.best("to", "to see", 5)] == ["Other"]


def test_related_words_are_those_of_the_paragraphs_found(index):
    fact = Fact("c", "Lyon", "{} lies on the", "river", "Seine", "Rhône")
    row = related_words(fact, index, 100)
    assert row["paragraphs"] == 1
    assert row["words"] == ["Lyon", "A", "city", "on", "the", "Rhône", "not", "Parisian", "at", "all"]


def test_a_corpus_without_text_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no paragraph"):
        build_index([{"title": "x", "text": " \n"}], "bm25s", tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_both_backends_rank_real_articles_the_same(demo_folder, tmp_path):
    """The 100 best for 120 real subjects in 3 000 articles; equal scores may stand in either order."""
    articles = [row for row, _ in zip(read_jsonl(demo_folder / "corpus.jsonl"), range(3000), strict=False)]
    indices = {}
    for name, backend in BACKENDS.items():
        build_index(articles, name, tmp_path / name)
        indices[name] = backend(tmp_path / name)
    facts = [Fact.from_json(row) for row in read_jsonl(demo_folder / "facts" / "mcf-train.jsonl")]
    several = 0
    for fact in facts[:120]:
        query = f"{fact.subject} {fact.template}"
        one, two = (index.best(fact.subject, query, 100) for index in indices.values())
        assert one == two
        several += len(one) > 1
    assert several > 10
