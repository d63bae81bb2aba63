"""Wikipedia text from an embedded package, the hub or a local file, as JSON lines of title, description and text."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.storage import read_json, read_jsonl
from jeep.data.fetch import wheel_file
from jeep.data.sources import HubSource, PathSource, WheelSource


def articles(source: WheelSource | HubSource | PathSource, limit: int | None) -> Iterator[dict[str, str]]:
    """The first `limit` articles: title, text, and a one-line description (empty where the source has none).

    Raises UserError when the source is unreachable or an article has no text.
    """
    yield from tqdm(islice(_articles(source), limit), total=limit, desc="articles", unit="art", mininterval=2)


def _articles(source: WheelSource | HubSource | PathSource) -> Iterator[dict[str, str]]:
    if isinstance(source, WheelSource):
        with wheel_file(source) as path:
            summaries = read_json(path)
        for title, entry in summaries.items():
            yield _article(title, entry["extract"], entry.get("description") or "")
    elif isinstance(source, HubSource):
        from datasets import load_dataset

        rows = load_dataset(source.repository, source.subset, revision=source.revision, split="train", streaming=True)
        for row in rows:
            yield _article(row["title"], row["text"], "")
    else:
        for row in read_jsonl(source.path):
            if "text" not in row:
                raise UserError(f"{source.path}: an article without a field 'text'")
            yield _article(row.get("title", ""), row["text"], row.get("description", ""))


def _article(title: str, text: str, description: str) -> dict[str, str]:
    return {"title": title, "description": description, "text": text}


def texts(path: Path | str) -> Iterator[str]:
    """The articles' texts of a file that an earlier stage wrote."""
    for row in read_jsonl(path):
        yield row["text"]


def sampled_texts(path: Path | str, articles: int | None, seed: int) -> Iterator[str]:
    """The texts of `articles` articles of such a file (all where None), drawn without replacement, in random order.

    A dump's order is by age or topic: its first articles are no sample of it. Only the lines' offsets are in memory.
    """
    yield from _texts_at(path, _drawn(_starts(path), articles, seed))


def held_out_texts(path: Path | str, articles: int | None, seed: int, taken: int | None = None) -> Iterator[str]:
    """The texts that `sampled_texts` does not give for the same arguments, in random order.

    `taken`: only its first so many were read, and what it gives later is held out too.
    """
    starts = _starts(path)
    read = set(_drawn(starts, articles, seed)[:taken])
    left = [start for start in starts if start not in read]
    yield from _texts_at(path, _drawn(left, None, seed))


def _starts(path: Path | str) -> list[int]:
    """Where each line begins."""
    starts, start = [], 0
    with Path(path).open("rb") as file:
        for line in file:
            starts.append(start)
            start += len(line)
    return starts


def _drawn(starts: Sequence[int], articles: int | None, seed: int) -> list[int]:
    return random.Random(seed).sample(starts, min(articles or len(starts), len(starts)))


def _texts_at(path: Path | str, starts: Sequence[int]) -> Iterator[str]:
    with Path(path).open("rb") as file:
        for start in starts:
            file.seek(start)
            yield json.loads(file.readline())["text"]
