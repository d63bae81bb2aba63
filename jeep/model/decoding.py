"""Tokens one by one behind prompts, from a cache of keys and values; sequences of any lengths, and none is padded.

A sequence that ends leaves its batch: a step costs what is left. What all prompts of a batch have in front, such as the
examples of a task, runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from jeep.common.errors import NotFinite, UserError
from jeep.model.attention import Context, Packing
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.readout import SILENT, read_out
from jeep.model.segments import each_place_once, rows_of_indices

Choose = Callable[[Float[Tensor, "r vocabulary"], Int[Tensor, " r"], int], Int[Tensor, " r"]]
"""The next token of some sequences, of their logits, their numbers among the prompts, and the tokens written so far."""
Layers = dict[int, tuple[Tensor, Tensor]]
"""Keys and values by layer, as packed lists (n, heads, size) or on grids (B, heads, columns, size)."""


@torch.no_grad()
def decode(
    model: EditableModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    choose: Choose,
    ended: Callable[[Sequence[int]], bool],
    token_budget: int,
) -> list[list[int]]:
    """What the model writes behind each prompt: at most its limit of tokens, or until `ended` says so of them.

    The limits end where the model's positions do. `token_budget` bounds the tokens of a batch, those to come among
    them: its cache holds as many. Raises UserError for a prompt without tokens and one that is too long, NotFinite for
    a model that answers NaN.
    """
    if not all(prompts):
        raise UserError("a prompt without tokens: nothing can be written behind it")
    limits = [min(limit, model.bounds.room(prompt)) for limit, prompt in zip(limits, prompts, strict=True)]
    written: list[list[int]] = [[] for _ in prompts]
    todo = [number for number, limit in enumerate(limits) if limit > 0]

    def run(places: list[int]) -> None:
        numbers = [todo[place] for place in places]
        found = _decode_batch(model, prompts, limits, numbers, choose, ended)
        for number, tokens in zip(numbers, found, strict=True):
            written[number] = tokens

    lengths = [len(prompts[number]) + limits[number] for number in todo]
    with tqdm(total=len(todo), desc="generating", unit="prompt", mininterval=2) as progress:
        for batch, _ in in_batches(lengths, token_budget, run):
            progress.update(len(batch))
    return written


def _decode_batch(
    model: EditableModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    numbers: Sequence[int],
    choose: Choose,
    ended: Callable[[Sequence[int]], bool],
) -> list[list[int]]:
    written: dict[int, list[int]] = {number: [] for number in numbers}
    live = list(numbers)
    cache, states = _begin(model, [prompts[number] for number in live], max(limits[number] for number in live))
    for step in range(max(limits[number] for number in live)):
        tokens = _next_tokens(model, states, live, step, choose)
        for number, token in zip(live, tokens, strict=True):
            written[number].append(token)
        for place in reversed(range(len(live))):
            number = live[place]
            if step + 1 == limits[number] or ended(written[number]):
                cache.drop(place)
                _drop(live, place)
        if not live:
            break
        states = cache.step([written[number][-1] for number in live])
    return list(written.values())


def _next_tokens(
    model: EditableModel, states: Float[Tensor, "b d"], live: Sequence[int], step: int, choose: Choose
) -> list[int]:
    numbers = torch.tensor(live)

    def measure(logits: Tensor, rows: slice) -> list[Tensor]:
        return [choose(logits, numbers[rows], step), logits.amax(-1).isnan()]

    tokens, broken = read_out(model, states, measure)
    if broken.any():
        raise NotFinite(SILENT)
    return tokens.tolist()


def _begin(
    model: EditableModel, prompts: Sequence[Sequence[int]], room: int
) -> tuple["_Grids | _Lists", Float[Tensor, "b d"]]:
    """The prompts' keys and values, with room for so many tokens more, and the final state of their last tokens."""
    shared: Layers = {}
    front = commonprefix([tuple(prompt) for prompt in prompts])  # noqa: RUF071 (of token ids, not of paths)
    front = front[: min(map(len, prompts)) - 1] if len(prompts) > 1 else ()
    context = None
    if front:
        packing, states = model.pack([front], record=shared)
        model.run(states, packing, 0, model.depth - 1)
        context = Context(rows_of_indices([range(len(front))] * len(prompts), model.device), shared)
    own: Layers = {}
    rest = [prompt[len(front) :] for prompt in prompts]
    packing, states = model.pack(rest, starts=[len(front)] * len(rest), context=context, record=own)
    states = model.run(states, packing, 0, model.depth - 1)
    ends = packing.offsets + torch.tensor(packing.lengths) - 1
    kept = (model, packing, shared, own)
    cache = _Lists(*kept) if model.architecture.dense else _Grids(*kept, room)
    return cache, states[ends.to(model.device)]


@dataclass
class Step(Packing):
    """One token of each of B sequences, behind its keys and values on grids (B, heads, columns, size).

    A token's column is its position: a sequence's columns are one run, whatever the lengths of the others.
    """

    grids: Layers = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        self.columns = max(self.starts) + 1

    def behind_context(self, states: Float[Tensor, "1 heads n size"], layer: int, which: int) -> Tensor:
        """Keys (`which` 0) or values (1) of all tokens, the new ones written to their columns."""
        grid, rows = self.grids[layer][which], self.once("rows", lambda: self.row.to(self.device))
        with each_place_once():
            grid[rows, :, self.positions] = states[0].transpose(0, 1)
        return grid[:, :, : self.columns]

    def _mask(self, window: int | None) -> Tensor:
        column, position = torch.arange(self.columns), torch.tensor(self.starts)[:, None, None]
        seen = column <= position
        if window is not None:
            seen = seen & (position - column < window)
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, float("-inf"))


class _Grids:
    """Keys and values for models whose attention is ours: a step writes its own and copies nothing."""

    def __init__(
        self,
        model: EditableModel,
        packing: Packing,
        shared: Layers,
        own: Layers,
        room: int,
    ):
        """Those of prompts that were run as `packing` behind what they share, emptying `own`; `room`: for more."""
        self.model, front = model, packing.starts[0]
        self.lengths = [front + length for length in packing.lengths]
        index = rows_of_indices(_places(packing), torch.device("cpu"))
        self.layers: Layers = {}
        for layer in list(own):
            parts = zip(shared.get(layer, (None, None)), own.pop(layer), strict=True)
            self.layers[layer] = tuple(self._grid(index, front, room, *part) for part in parts)

    @staticmethod
    def _grid(index: Tensor, front: int, room: int, shared: Tensor | None, own: Tensor) -> Tensor:
        rows = own[index.clamp(min=0).to(own.device)].transpose(1, 2)
        count, heads, width, size = rows.shape
        grid = own.new_zeros(count, heads, front + width + room, size)
        if shared is not None:
            grid[:, :, :front] = shared.transpose(0, 1)
        grid[:, :, front : front + width] = rows
        return grid

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "b d"]:
        """The final state of the next token of each sequence."""
        model = self.model
        packing = Step([1] * len(tokens), model.device, model.norm.weight.dtype, starts=self.lengths, grids=self.layers)
        states = model.embed(torch.tensor(tokens, device=model.device), packing.positions)
        self.lengths = [length + 1 for length in self.lengths]
        return model.run(states, packing, 0, model.depth - 1)

    def drop(self, place: int) -> None:
        """Forget a sequence; the last one takes its place."""
        _drop(self.lengths, place)
        for layer, pair in self.layers.items():
            for grid in pair:
                grid[place] = grid[-1]
            self.layers[layer] = tuple(grid[:-1] for grid in pair)


class _Lists:
    """Keys and values for models that compute attention themselves: one list of tokens, a step's behind it."""

    def __init__(self, model: EditableModel, packing: Packing, shared: Layers, own: Layers):
        """As of `_Grids`."""
        self.model, front = model, packing.starts[0]
        self.layers = _behind(shared, own) if shared else own
        self.index = [[*range(front), *(front + place for place in row)] for row in _places(packing)]

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "b d"]:
        """As of `_Grids`."""
        model, new = self.model, {}
        context = Context(rows_of_indices(self.index, model.device), self.layers)
        options = {"starts": [len(row) for row in self.index], "context": context, "record": new}
        packing, states = model.pack([[token] for token in tokens], **options)
        states = model.run(states, packing, 0, model.depth - 1)
        size = len(self.layers[0][0])
        for number, row in enumerate(self.index):
            row.append(size + number)
        self.layers = _behind(self.layers, new)
        return states

    def drop(self, place: int) -> None:
        """As of `_Grids`."""
        _drop(self.index, place)


def _places(packing: Packing) -> list[range]:
    """Where each sequence's tokens stand in the packed list."""
    return [range(start, start + size) for start, size in zip(packing.offsets.tolist(), packing.lengths, strict=True)]


def _behind(front: Layers, new: Layers) -> Layers:
    return {layer: tuple(map(torch.cat, zip(front[layer], new[layer], strict=True))) for layer in new}


def _drop(rows: list, place: int) -> None:
    rows[place] = rows[-1]
    rows.pop()
