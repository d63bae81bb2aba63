"""The best paragraphs about a subject by BM25, from a corpus of any size.

Two backends rank the same (Okapi BM25, k₁ 1.5, b 0.75; stop words are left out on both sides): `rank-bm25` holds every
paragraph's term counts in memory, `bm25s` keeps scores that were computed once in memory-mapped files.
"""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import bm25s
import numpy as np
from rank_bm25 import BM25Okapi
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.storage import atomic, read_jsonl, write_jsonl
from jeep.probes.words import content_terms, terms

Backend = Literal["rank-bm25", "bm25s"]
Paragraph = dict[str, str]
"""title and text."""
_PARAGRAPHS = "paragraphs.jsonl"


def paragraphs(articles: Iterable[dict[str, str]]) -> Iterator[Paragraph]:
    """The paragraphs of articles, each with its article's title."""
    for article in articles:
        for text in article["text"].split("\n"):
            if text.strip():
                yield {"title": article["title"], "text": text.strip()}


def _phrase(text: str) -> str:
    """Terms in a row with a space on either side of each, in which a phrase is found as whole words."""
    return f" {' '.join(terms(text))} "


def _searched(paragraph: Paragraph) -> str:
    return f"{paragraph['title']} {paragraph['text']}"


class Index(ABC):
    """Paragraphs that can be searched."""

    def best(self, subject: str, query: str, count: int) -> list[Paragraph]:
        """The `count` paragraphs with the greatest score that hold the subject in title or text; the best first."""
        found = self._holding(subject)
        if not len(found):
            return []
        scores = self._scores(list(dict.fromkeys(content_terms(query))), found)
        order = np.lexsort((found, -scores))[:count]  # ties: the earlier paragraph first
        return [self._paragraph(int(found[n])) for n in order]

    @abstractmethod
    def _holding(self, subject: str) -> np.ndarray:
        """Numbers of the paragraphs that hold the subject's words in a row."""

    @abstractmethod
    def _scores(self, query: Sequence[str], numbers: np.ndarray) -> np.ndarray:
        """Their scores."""

    @abstractmethod
    def _paragraph(self, number: int) -> Paragraph: ...


class RankBm25(Index):
    """In memory, by rank-bm25."""

    def __init__(self, folder: Path):
        self.paragraphs = list(read_jsonl(folder / _PARAGRAPHS))
        self.phrases = [_phrase(_searched(paragraph)) for paragraph in self.paragraphs]
        self.index = BM25Okapi([content_terms(_searched(paragraph)) for paragraph in self.paragraphs])

    @staticmethod
    def build(corpus: Iterable[Paragraph], folder: Path) -> None:
        """Write what the index is made from."""
        write_jsonl(folder / _PARAGRAPHS, corpus)

    def _holding(self, subject):
        phrase = _phrase(subject)
        return np.array([number for number, text in enumerate(self.phrases) if phrase in text], dtype=int)

    def _scores(self, query, numbers):
        return np.array(self.index.get_batch_scores(query, numbers.tolist()))

    def _paragraph(self, number):
        return self.paragraphs[number]


class Bm25s(Index):
    """On disk, by bm25s: a query reads the postings of its terms and of the subject's."""

    def __init__(self, folder: Path):
        self.index = bm25s.BM25.load(folder, load_corpus=True, mmap=True, show_progress=False)

    @staticmethod
    def build(corpus: Iterable[Paragraph], folder: Path) -> None:
        """Compute the scores of every term in every paragraph and write them.

        Of the text itself only the numbers of its terms are held, four bytes each.
        """
        vocabulary: dict[str, int] = {}
        numbers: list[array[int]] = []

        def read():
            for paragraph in corpus:
                terms = content_terms(_searched(paragraph))
                numbers.append(array("i", [vocabulary.setdefault(term, len(vocabulary)) for term in terms]))
                yield paragraph

        write_jsonl(folder / _PARAGRAPHS, read())
        # Robertson's idf with ATIRE's term weight is rank-bm25's Okapi, where no term is in half of the paragraphs.
        index = bm25s.BM25(method="atire", idf_method="robertson", dtype="float64")
        index.index((numbers, vocabulary), show_progress=False)
        index.save(folder, corpus=read_jsonl(folder / _PARAGRAPHS), show_progress=False)
        (folder / _PARAGRAPHS).unlink()

    def _holding(self, subject):
        found = None
        for term in dict.fromkeys(content_terms(subject)):
            number = self.index.vocab_dict.get(term)
            if number is None:
                return np.array([], dtype=int)
            start, stop = self.index.scores["indptr"][number : number + 2]
            postings = np.asarray(self.index.scores["indices"][start:stop])
            found = postings if found is None else np.intersect1d(found, postings)
        if found is None:  # a subject of stop words alone
            found = np.arange(self.index.scores["num_docs"])
        phrase = _phrase(subject)
        return np.array([n for n in sorted(found) if phrase in _phrase(_searched(self._paragraph(int(n))))], dtype=int)

    def _scores(self, query, numbers):
        known = [term for term in query if term in self.index.vocab_dict]
        return self.index.get_scores(known)[numbers] if known else np.zeros(len(numbers))

    def _paragraph(self, number):
        return self.index.corpus[number]


BACKENDS: dict[str, type[RankBm25] | type[Bm25s]] = {"rank-bm25": RankBm25, "bm25s": Bm25s}


def build_index(articles: Iterable[dict[str, str]], backend: Backend, out: Path) -> None:
    """Make a backend's index folder of articles. Raises UserError when there is no text."""
    corpus = paragraphs(articles)
    first = next(corpus, None)
    if first is None:
        raise UserError("the corpus has no paragraph to search")
    with atomic(out) as folder:
        folder.mkdir()
        BACKENDS[backend].build(_and(first, corpus), folder)


def _and(first: Paragraph, rest: Iterator[Paragraph]) -> Iterator[Paragraph]:
    yield first
    yield from tqdm(rest, desc="paragraphs", unit="par", mininterval=2)
