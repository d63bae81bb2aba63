"""Uncentered covariance E[k kᵀ] of the input of W_O, for many of them in one pass over text (Eq. 10)."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.places import Where, place_name, place_of
from jeep.common.provenance import code_digest
from jeep.common.settings import Sample
from jeep.common.storage import clear_scratch, each_tensor
from jeep.data.corpus import sampled_texts
from jeep.model.batches import Budget, in_batches
from jeep.model.editable import EditableModel
from jeep.model.files import read_of, write_of
from jeep.model.gram import lower_strips, mirrored
from jeep.model.hooks import record_input
from jeep.model.progress import Progress, fingerprint
from jeep.model.windows import sequences

_BATCHES = 16
"""Full batches between two places where a pass can go on."""
_COUNTS = ("tokens", "rows")
"""What a file of sums has beside the matrices."""


@dataclass
class Sums:
    """Σ k kᵀ over the tokens seen so far."""

    products: dict[Where, Float[Tensor, "..."]] = field(default_factory=dict)
    """(d_in, d_in) in float64, by layer and sub-layer: the lower triangle (`lower_strips`)."""
    tokens: int = 0
    rows: int = 0
    """Sequences."""

    def add(self, where: Where, keys: Float[Tensor, "n d_in"]) -> None:
        """Add keys: their product in float32, the sum in float64, so that no digits are lost however many come."""
        width = keys.shape[1]
        if where not in self.products:
            self.products[where] = keys.new_zeros(width, width, dtype=torch.float64)
        total = self.products[where]
        for rows, columns in lower_strips(width):
            total[rows, columns] += keys[:, rows].mT @ keys[:, columns]

    def mean(self, where: Where) -> Float[Tensor, "d_in d_in"]:
        """E[k kᵀ] of a W_O, in float32 on the CPU."""
        return mirrored((self.products[where] / self.tokens).float().cpu())

    def tensors(self) -> dict[str, Tensor]:
        """As they are kept in a file."""
        counts = {"tokens": torch.tensor(self.tokens), "rows": torch.tensor(self.rows)}
        return counts | {place_name(place): product.cpu() for place, product in self.products.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device | None = None) -> "Sums":
        """The other way round."""
        products = {place_of(name): tensors[name].to(device) for name in tensors if name not in _COUNTS}
        return cls(products, int(tensors["tokens"]), int(tensors["rows"]))

    @classmethod
    def merged(cls, parts: Iterable[Path]) -> "Sums":
        """Over a text whose parts' sums lie in files: one set of sums in memory, and one matrix of a part beside it."""
        merged = cls()
        for path in parts:
            for name, tensor in each_tensor(path):
                if name in _COUNTS:
                    setattr(merged, name, getattr(merged, name) + int(tensor))
                elif place_of(name) in merged.products:
                    merged.products[place_of(name)] += tensor
                else:
                    merged.products[place_of(name)] = tensor
        return merged


@torch.no_grad()
def accumulate(
    model: EditableModel, rows: Iterable[Sequence[int]], places: Sequence[Where], token_budget: int, sums: Sums
) -> Iterator[Sums]:
    """Add the inputs of every W_O in `places` at the tokens of `rows` to `sums`; yields it from time to time.

    One pass that stops at the highest layer. A batch that does not fit into memory is made smaller (`in_batches`).
    """
    rows, budget = iter(rows), Budget(token_budget)
    top = max(layer for layer, _ in places)
    with ExitStack() as stack:
        seen = {place: stack.enter_context(record_input(model.projection(*place), model.device)) for place in places}

        def run(batch: list[tuple[int, ...]]) -> None:
            for kept in seen.values():
                kept.clear()  # of a batch that did not fit
            packing, states = model.pack(batch)
            model.run(states, packing, 0, top)

        while portion := list(_portion(rows, _BATCHES * token_budget)):
            lengths = [len(row) for row in portion]
            for batch, _ in in_batches(lengths, budget, lambda numbers: run([portion[n] for n in numbers])):
                for place in places:
                    sums.add(place, seen[place].pop().float())
                sums.tokens += sum(lengths[number] for number in batch)
            sums.rows += len(portion)
            yield sums


def _portion(rows: Iterator[Sequence[int]], tokens: int) -> Iterator[tuple[int, ...]]:
    """The next rows, of about so many tokens in all."""
    size = 0
    for row in rows:
        yield tuple(row)
        size += len(row)
        if size >= tokens:
            return


def covariances(
    model: EditableModel, rows: Iterable[Sequence[int]], places: Sequence[Where], token_budget: int
) -> dict[Where, Float[Tensor, "..."]]:
    """E[k kᵀ] in float32 for every W_O in `places` (layer, sub-layer), k its input at a token of `rows`."""
    sums = Sums()
    for _ in accumulate(model, rows, places, token_budget, sums):
        pass
    return {place: sums.mean(place) for place in places}


def collect(
    model: EditableModel,
    sample: Sample,
    places: Sequence[Where],
    token_budget: int,
    unfinished: Path,
    shard: tuple[int, int] = (0, 1),
) -> Sums:
    """One pass over a sample, or over shard (i, n) of it: every n-th sequence from the i-th on.

    A pass that was killed goes on from its last checkpoint, the file `unfinished`.
    """
    text, (first, shards) = sample.corpus.stat(), shard
    content = (sample, shard, text.st_size, text.st_mtime_ns, code_digest("jeep.writing.covariance"))
    progress = Progress(unfinished, fingerprint(model, *content))
    _, kept = progress.load()
    sums = Sums.of(kept, model.device) if kept else Sums()
    if set(places) <= set(sums.products):
        sums.products = {place: sums.products[place] for place in places}
    else:
        sums = Sums()
    texts = sampled_texts(sample.corpus, sample.articles, sample.seed)
    whole = sequences(model.tokenizer, texts, sample.length or model.positions, sample.tokens)
    rows = islice(whole, first + sums.rows * shards, None, shards)
    total = sample.tokens and math.ceil(sample.tokens / shards)
    with tqdm(total=total, initial=sums.tokens, desc="covariance", unit="tok", mininterval=2) as bar:
        for _ in accumulate(model, rows, places, token_budget, sums):
            bar.update(sums.tokens - bar.n)
            progress.save(sums.rows, sums.tensors)
    return sums


def estimate(
    model: EditableModel,
    sample: Sample,
    places: Sequence[Where],
    token_budget: int,
    made_of: Mapping[str, Any],
    folder: Path,
) -> None:
    """One pass over a sample, and the covariance of each W_O in a file of `folder` (`write_covariances`)."""
    unfinished = folder / ".checkpoint.safetensors"
    write_covariances(model, collect(model, sample, places, token_budget, unfinished), made_of, folder)
    unfinished.unlink(missing_ok=True)


def covariance_file(folder: Path, where: Where) -> Path:
    """Where the covariance of a W_O lies."""
    return folder / f"{place_name(where)}.safetensors"


def write_covariances(model: EditableModel, sums: Sums, made_of: Mapping[str, Any], folder: Path) -> None:
    """Write E[k kᵀ] of each W_O to its own file, with what it is made of. Raises UserError where there was no text."""
    if not sums.tokens:
        raise UserError("the corpus has no text to estimate covariances from")
    identity, provenance = model.identity, {"tokens": sums.tokens, "made_of": dict(made_of)}
    for place in sums.products:
        clear_scratch(covariance_file(folder, place))
        write_of(identity, covariance_file(folder, place), {place_name(place): sums.mean(place)}, provenance)


def read_covariances(paths: Iterable[Path], model: EditableModel) -> dict[Where, Float[Tensor, "d_in d_in"]]:
    """What `write_covariances` wrote, by layer and sub-layer. Raises UserError where it is of another model."""
    paths = list(paths)
    identity = model.identity if paths else ""
    return {place_of(name): matrix for path in paths for name, matrix in read_of(identity, path)[0].items()}
