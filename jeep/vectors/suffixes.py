"""What a δ can change, and nothing else: the part of the forward pass that its optimisation has to repeat.

Attention is causal, so no state before the first site's position changes, nor any state below its layer. Those are
computed once; a step runs the later layers on each prompt's suffix, with the constant keys and values in front.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from jeep.common.settings import Position, Site
from jeep.model.attention import Context, KeysValues, Packing
from jeep.model.editable import EditableModel
from jeep.model.hooks import record_output, shift_output
from jeep.model.segments import Segments, each_place_once, rows_of_indices
from jeep.model.stems import Stems
from jeep.model.tokens import Prompt, Request


@dataclass(frozen=True)
class _Row:
    """One prompt of a request, with all but the answer's last token behind it."""

    request: int
    prompt: Prompt
    answer: tuple[int, ...]
    """Empty for the KL prompt."""
    stem: int | None
    """Number of the prompt among its request's; the KL prompt has none."""

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt.ids + self.answer[:-1]

    def has(self, site: Site) -> bool:
        """Whether the site's δ matters here: none at the prediction position reaches the KL prompt's subject."""
        return bool(self.answer) or site.position == "subject_last"


class Reading(NamedTuple):
    """What a step finds, for every request of the problem; one row of `log_p` for each that still runs."""

    nll: Float[Tensor, " requests"]
    """Mean over prompts and tokens of the new answer."""
    probability: Float[Tensor, " requests"]
    """Mean over prompts."""
    right: Bool[Tensor, " requests"]
    """Whether the new answer is the argmax at every token of every prompt."""
    right_sampled: Bool[Tensor, " requests"]
    """The same of the prompts behind sampled prefixes alone."""
    log_p: Float[Tensor, "running vocabulary"]
    """Log-probabilities at the KL prompts' subjects."""


class Problem:
    """A batch of requests, and everything about them that no δ can change."""

    def __init__(
        self, model: EditableModel, requests: Sequence[Request], sites: Sequence[Site], stems: Stems, kl: bool
    ):
        self.model, self.sites, self.stems, self.count = model, sites, stems, len(requests)
        self.begin = min(site.layer - self.inside(site) for site in sites)
        self.rows = [
            _Row(number, prompt, request.answer, stem)
            for number, request in enumerate(requests)
            for stem, prompt in enumerate(request.prompts)
        ]
        if kl and any(site.position == "subject_last" for site in sites):
            self.rows += [_Row(number, request.kl_prompt, (), None) for number, request in enumerate(requests)]
        self.starts = [min(row.prompt.position(site.position) for site in sites if row.has(site)) for row in self.rows]
        with torch.no_grad():
            states = self._below()
            cuts = [start - stems.length(row.stem) for start, row in zip(self.starts, self.rows, strict=True)]
            self.suffixes = [row[cut:] for row, cut in zip(states, cuts, strict=True)]
            """States at the output of block `begin`, from the first site's position on."""
            self._in_front([row[:cut] for row, cut in zip(states, cuts, strict=True)])

    def inside(self, site: Site) -> bool:
        """Whether the rest of the site's own block reads δ; else δ may as well be added to the block's output."""
        if site.place == "output":
            return False
        return self.model.adds_otherwise or (site.place == "attention" and not self.model.parallel)

    def _below(self) -> list[Tensor]:
        """Each row's states at the output of block `begin`, behind its stem.

        Also reads `base`: the states of the sites of that block at the bare prompts, which no δ changes.
        """
        model, stems = self.model, self.stems
        behind = [stems.length(row.stem) for row in self.rows]
        rows = [row.ids[length:] for row, length in zip(self.rows, behind, strict=True)]
        context = stems.context([row.stem for row in self.rows], stems.layers)
        packing, states = model.pack(rows, starts=behind, context=context)
        lowest = [(number, site) for number, site in enumerate(self.sites) if site.layer == self.begin]
        with ExitStack() as stack:
            inner = {
                number: stack.enter_context(record_output(model.projection(site.layer, site.place), model.device))
                for number, site in lowest
                if site.place != "output"
            }
            states = model.run(states, packing, 0, self.begin)
        bare = [(number, row.prompt) for number, row in enumerate(self.rows) if row.stem == 0]
        self.base = {}
        for number, site in lowest:
            index = [int(packing.offsets[row]) - behind[row] + prompt.position(site.position) for row, prompt in bare]
            read = inner[number][0] if number in inner else states
            self.base[number] = read[torch.tensor(index, device=model.device)].to(model.precision)
        return list(states.split([len(row) for row in rows]))

    def _in_front(self, fronts: Sequence[Tensor]) -> None:
        """Keys and values in front of the suffixes, above block `begin`: of the stems, then of the rows' own tokens."""
        model, stems = self.model, self.stems
        own: dict[int, KeysValues] = {}
        rows = [number for number, front in enumerate(fronts) if len(front)]
        if rows:
            packing = Packing(
                [len(fronts[number]) for number in rows],
                model.device,
                fronts[0].dtype,
                starts=[stems.length(self.rows[number].stem) for number in rows],
                context=stems.context([self.rows[number].stem for number in rows], stems.layers),
                record=own,
            )
            model.run(torch.cat([fronts[number] for number in rows]), packing, self.begin + 1, model.depth - 1)
        parts = [layers for layers in (stems.layers, own) if layers]
        above = range(self.begin + 1, model.depth) if parts else ()
        self.front = {
            layer: tuple(map(torch.cat, zip(*(layers[layer] for layers in parts), strict=True))) for layer in above
        }
        offset, indices = stems.size, []
        for row, front in zip(self.rows, fronts, strict=True):
            indices.append([*stems.tokens(row.stem), *range(offset, offset + len(front))])
            offset += len(front)
        self.front_index = rows_of_indices(indices, model.device)

    def select(self, active: Sequence[int]) -> "Selection":
        """The part of the problem that belongs to the requests `active`."""
        return Selection(self, active)


class Selection:
    """The requests that still run, packed: which token is what."""

    def __init__(self, problem: Problem, active: Sequence[int]):
        self.problem, self.model, self.active = problem, problem.model, list(active)
        wanted = set(active)
        numbers = [number for number, row in enumerate(problem.rows) if row.request in wanted]
        rows = [problem.rows[number] for number in numbers]
        starts = [problem.starts[number] for number in numbers]
        self.suffixes = torch.cat([problem.suffixes[number] for number in numbers])
        device = self.model.device
        front = problem.front_index[torch.tensor(numbers, device=device), : max(starts)]
        self.packing = Packing(
            [len(problem.suffixes[number]) for number in numbers],
            device,
            self.suffixes.dtype,
            starts=starts,
            context=Context(front, problem.front) if max(starts) else None,
            repeated=True,
        )
        # Position p of a row's prompt is token base + p of the packed suffixes.
        bases = [offset - start for offset, start in zip(self.packing.offsets.tolist(), starts, strict=True)]
        place = list(zip(rows, bases, strict=True))
        asked = [(row, base) for row, base in place if row.answer]
        kept = [(row, base) for row, base in place if not row.answer]
        bare = {row.request: (row, base) for row, base in reversed(asked)}

        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device, dtype=torch.long)

        def index(where: list[tuple[_Row, int]], position: Position) -> Tensor:
            return tensor([base + row.prompt.position(position) for row, base in where])

        def requests(where: list[tuple[_Row, int]]) -> Segments:
            return Segments([row.request for row, _ in where], problem.count, device)

        touched = [[(row, base) for row, base in place if row.has(site)] for site in problem.sites]
        self.lookups = [
            (index(where, site.position), requests(where)) for where, site in zip(touched, problem.sites, strict=True)
        ]
        self.bare_index = [index([bare[a] for a in active], site.position) for site in problem.sites]
        self.kl_index, self.kl_request = index(kept, "subject_last"), tensor([row.request for row, _ in kept])
        self.answers = tensor([token for row, _ in asked for token in row.answer])
        self.answer_index = tensor(
            [base + row.prompt.prediction + step for row, base in asked for step in range(len(row.answer))]
        )
        rows_of_tokens = [number for number, (row, _) in enumerate(asked) for _ in row.answer]
        self.answer_rows = Segments(rows_of_tokens, len(asked), device)
        self.requests = requests(asked)
        self.sampled = tensor([row.stem > 0 or len(asked) == len(bare) for row, _ in asked])  # of no prefix, all

    def forward(self, deltas: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Final states with each δ in place, and the states at the lookup positions of the bare prompts before it."""
        problem, states, done = self.problem, self.suffixes, self.problem.begin
        bare = [problem.base[number][self.active] if number in problem.base else None for number in range(len(deltas))]
        for layer in sorted({site.layer for site in problem.sites}):
            here = [(n, site) for n, site in enumerate(problem.sites) if site.layer == layer]
            if layer > done:
                states, seen = self._run_to(layer, done, states, here, deltas)
                for number, state in seen.items():
                    bare[number] = state.detach()[self.bare_index[number]].to(self.model.precision)
                done = layer
            for number, site in here:
                if not problem.inside(site):
                    index, requests = self.lookups[number]
                    with each_place_once():
                        states = states.index_add(0, index, requests.repeat(deltas[number]).to(states.dtype))
        return self.model.run(states, self.packing, done + 1, self.model.depth - 1), bare

    def _run_to(
        self, layer: int, done: int, states: Tensor, here: list[tuple[int, Site]], deltas: Sequence[Tensor]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Go on to the output of `layer`, with the δ inside it in place; and what its sites read before their δ."""
        with ExitStack() as stack:
            inner = {}
            for number, site in here:
                if site.place != "output":
                    module = self.model.projection(layer, site.place)
                    inner[number] = stack.enter_context(record_output(module, self.model.device))
                    if self.problem.inside(site):
                        index, requests = self.lookups[number]
                        stack.enter_context(shift_output(module, index, requests.repeat(deltas[number])))
            states = self.model.run(states, self.packing, done + 1, layer)
        return states, {number: inner[number][0] if number in inner else states for number, _ in here}

    def read(self, states: Tensor, right: bool = False) -> Reading:
        """What the loss is made of; with `right`, also whether the answer is."""
        logits = self.model.logits(states[torch.cat([self.answer_index, self.kl_index])])
        answers, kl = logits.split([len(self.answer_index), len(self.kl_index)])
        token_nll = functional.cross_entropy(answers, self.answers, reduction="none")
        row_nll = self.answer_rows.mean(token_nll)
        wrong = (answers.argmax(-1) != self.answers).to(row_nll.dtype) if right else torch.zeros_like(token_nll)
        wrong_rows = self.answer_rows.sum(wrong)
        return Reading(
            self.requests.mean(row_nll),
            self.requests.mean(torch.exp(-row_nll.detach())),
            self.requests.sum(wrong_rows) == 0,
            self.requests.sum(wrong_rows * self.sampled) == 0,
            functional.log_softmax(kl, -1),
        )
