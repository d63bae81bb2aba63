"""What a δ can change, and nothing else: the part of the forward pass that its optimisation has to repeat.

Attention is causal, so no state before the first site's position changes, nor any state below its layer. Those are
computed once; a step runs the later layers on each prompt's suffix, with the constant keys and values in front.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from jeep.attention import Context, KeysValues, Packing
from jeep.hooks import record_output, shift_output
from jeep.models import EditableModel
from jeep.settings import Position, Site
from jeep.tokens import Prompt, Request


@dataclass(frozen=True)
class _Row:
    """One prompt of a request, with all but the answer's last token behind it."""

    request: int
    prompt: Prompt
    answer: tuple[int, ...]
    """Empty for the KL prompt."""

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt.ids + self.answer[:-1]

    def has(self, site: Site) -> bool:
        """Whether the site's δ matters here: none at the prediction position reaches the KL prompt's subject."""
        return bool(self.answer) or site.position == "subject_last"


class Problem:
    """A batch of requests, and everything about them that no δ can change."""

    def __init__(self, model: EditableModel, requests: Sequence[Request], sites: Sequence[Site], kl: bool):
        self.model, self.sites, self.count = model, sites, len(requests)
        # A δ inside a block acts on that block's remaining work, so such a site needs the block itself run again.
        self.begin = min(site.layer - (site.place != "output") for site in sites)
        self.rows = [
            _Row(number, prompt, request.answer)
            for number, request in enumerate(requests)
            for prompt in request.prompts
        ]
        if kl and any(site.position == "subject_last" for site in sites):
            self.rows += [_Row(number, request.kl_prompt, ()) for number, request in enumerate(requests)]
        self.starts = [min(row.prompt.position(site.position) for site in sites if row.has(site)) for row in self.rows]
        self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        """States of the suffixes at the output of block `begin`; keys and values in front of them above it."""
        model, dtype = self.model, self.model.norm.weight.dtype
        ids = [row.ids for row in self.rows]
        packing, states = model.pack(ids)
        states = model.run(states, packing, 0, self.begin)
        per_row = states.split([len(row) for row in ids])
        self.suffixes = [row[start:] for row, start in zip(per_row, self.starts, strict=True)]

        front = [row[:start] for row, start in zip(per_row, self.starts, strict=True)]
        lengths = [len(row) for row in front if len(row)]
        self.front: dict[int, KeysValues] = {}
        if lengths:
            packing = Packing(lengths, model.device, dtype, record=self.front)
            model.run(torch.cat(front), packing, self.begin + 1, model.depth - 1)
        self.front_index = torch.full((len(front), max(self.starts)), -1, device=model.device)
        offset = 0
        for row, start in enumerate(self.starts):
            self.front_index[row, :start] = torch.arange(offset, offset + start)
            offset += start

    def select(self, active: Sequence[int]) -> "Selection":
        """The part of the problem that belongs to the requests `active`."""
        return Selection(self, active)


class Selection:
    """The requests that still run, packed: which token is what."""

    def __init__(self, problem: Problem, active: Sequence[int]):
        self.problem, self.model = problem, problem.model
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

        def requests(where: list[tuple[_Row, int]]) -> Tensor:
            return tensor([row.request for row, _ in where])

        touched = [[(row, base) for row, base in place if row.has(site)] for site in problem.sites]
        self.lookups = [
            (index(where, site.position), requests(where)) for where, site in zip(touched, problem.sites, strict=True)
        ]
        self.bare_index = [index([bare[a] for a in active], site.position) for site in problem.sites]
        self.kl_index, self.kl_request = index(kept, "subject_last"), requests(kept)
        self.answers = tensor([token for row, _ in asked for token in row.answer])
        self.answer_index = tensor(
            [base + row.prompt.prediction + step for row, base in asked for step in range(len(row.answer))]
        )
        self.answer_row = tensor([number for number, (row, _) in enumerate(asked) for _ in row.answer])
        self.row_length = tensor([len(row.answer) for row, _ in asked])
        self.row_request = requests(asked)

    def forward(self, deltas: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Final states with each δ in place, and the states at the lookup positions of the bare prompts before it."""
        problem, states, done = self.problem, self.suffixes, self.problem.begin
        seen: list[Tensor] = [states] * len(problem.sites)
        for layer in sorted({site.layer for site in problem.sites}):
            here = [(n, site) for n, site in enumerate(problem.sites) if site.layer == layer]
            with ExitStack() as stack:
                inside = {}
                for number, site in here:
                    if site.place != "output":
                        module = self.model.projection(layer, site.place)
                        index, request = self.lookups[number]
                        inside[number] = stack.enter_context(record_output(module))
                        stack.enter_context(shift_output(module, index, deltas[number][request]))
                states = self.model.run(states, self.packing, done + 1, layer)
            done = layer
            for number, site in here:
                seen[number] = inside[number][0] if site.place != "output" else states
                if site.place == "output":
                    index, request = self.lookups[number]
                    states = states.index_add(0, index, deltas[number][request].to(states.dtype))
        states = self.model.run(states, self.packing, done + 1, self.model.depth - 1)
        bare = [tensor.detach()[index].float() for tensor, index in zip(seen, self.bare_index, strict=True)]
        return states, bare

    def answer_losses(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Per request (over all of the batch): mean NLL over prompts and tokens, and mean probability over prompts."""
        token_nll = functional.cross_entropy(
            self.model.logits(states[self.answer_index]), self.answers, reduction="none"
        )
        row_nll = token_nll.new_zeros(len(self.row_length)).index_add(0, self.answer_row, token_nll)
        row_nll = row_nll / self.row_length
        return self._per_request(row_nll), self._per_request(torch.exp(-row_nll.detach()))

    def _per_request(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros(self.problem.count)
        count = total.index_add(0, self.row_request, torch.ones_like(rows))
        return total.index_add(0, self.row_request, rows) / count.clamp(min=1)

    def kl_log_probabilities(self, states: Tensor) -> Tensor:
        """Log-probabilities at the KL prompts' subjects, one row for each request that still runs."""
        return functional.log_softmax(self.model.logits(states[self.kl_index]), -1)
