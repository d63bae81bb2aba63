"""Target vectors: the δ that makes a model give the new answer (Eqs. 8, 11, 12).

The engine of every locate-then-edit method, for one or more sites at once. It runs only what δ can change. Attention
is causal, so no state before the first site's position changes, nor any state below its layer: those are computed
once, and a step runs the later layers on each prompt's suffix, with the constant keys and values in front. Requests
are independent and travel in one packed batch, each with its own clamp and its own stop.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from jeep.attention import Context, KeysValues, Packing
from jeep.facts import Fact
from jeep.hooks import chunks, flat, record_output, shift_output
from jeep.models import EditableModel
from jeep.settings import Optimization, Site
from jeep.tokens import Prompt, encode_answer, locate, locate_subject


@dataclass
class Target:
    """The result for one request; sites in the order they were given."""

    case_id: str
    values: Float[Tensor, "sites d"]
    """Target vectors v = h + δ, float32."""
    states: Float[Tensor, "sites d"]
    """Unedited states h₀ at the lookup positions of the bare prompt, float32."""
    losses: list[float]
    """Total loss of each forward pass that was run."""
    probabilities: list[float]
    """Mean probability of the new answer at each."""

    @property
    def finite(self) -> bool:
        """Whether the optimisation stayed finite; a target that did not must not be written."""
        return bool(torch.isfinite(self.values).all()) and all(map(math.isfinite, self.losses))


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


@dataclass(frozen=True)
class Request:
    """A fact with its rewriting prompts (the first one bare) and its KL prompt, tokenised."""

    case_id: str
    prompts: tuple[Prompt, ...]
    kl_prompt: Prompt
    answer: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer, fact: Fact, prefixes: Sequence[str]) -> "Request":
        """Tokenise a fact under every prefix. Raises InvalidFact where the subject cannot be located."""
        return cls(
            fact.case_id,
            tuple(locate(tokenizer, fact, prefix) for prefix in prefixes),
            locate_subject(tokenizer, fact),
            encode_answer(tokenizer, fact.target_new),
        )


class _Problem:
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
        packing = Packing([len(row) for row in ids], model.device, dtype)
        states = model.embed(flat(ids, model.device), packing.positions)
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

    def select(self, active: Sequence[int]) -> "_Selection":
        """The part of the problem that belongs to the requests `active`."""
        return _Selection(self, active)


class _Selection:
    """The requests that still run, packed: which token is what."""

    def __init__(self, problem: _Problem, active: Sequence[int]):
        self.problem, self.model = problem, problem.model
        wanted = set(active)
        numbers = [number for number, row in enumerate(problem.rows) if row.request in wanted]
        rows = [problem.rows[number] for number in numbers]
        starts = [problem.starts[number] for number in numbers]
        self.suffixes = torch.cat([problem.suffixes[number] for number in numbers])
        device = self.model.device
        index = problem.front_index[torch.tensor(numbers, device=device)]
        self.packing = Packing(
            [len(problem.suffixes[number]) for number in numbers],
            device,
            self.suffixes.dtype,
            starts=starts,
            context=Context(index[:, : max(starts)], problem.front) if max(starts) else None,
        )
        place = list(zip(self.packing.offsets.tolist(), starts, rows, strict=True))

        def tensor(values):
            return torch.tensor(values, device=device)

        self.lookups = [
            (
                tensor([o + row.prompt.position(site.position) - s for o, s, row in place if row.has(site)]),
                tensor([row.request for _, _, row in place if row.has(site)]),
            )
            for site in problem.sites
        ]
        asked = [(o - s, row) for o, s, row in place if row.answer]
        self.answers = tensor([token for _, row in asked for token in row.answer])
        self.answer_index = tensor(
            [base + row.prompt.prediction + step for base, row in asked for step in range(len(row.answer))]
        )
        self.answer_row = tensor([number for number, (_, row) in enumerate(asked) for _ in row.answer])
        self.row_length = tensor([len(row.answer) for _, row in asked])
        self.row_request = tensor([row.request for _, row in asked])
        self.kl_index = tensor([o for o, _, row in place if not row.answer]).long()
        self.kl_request = tensor([row.request for _, _, row in place if not row.answer]).long()
        bare: dict[int, int] = {}
        for number, row in enumerate(rows):
            bare.setdefault(row.request, number)
        self.bare_index = [
            tensor(
                [
                    place[bare[a]][0] + place[bare[a]][2].prompt.position(site.position) - place[bare[a]][1]
                    for a in active
                ]
            )
            for site in problem.sites
        ]

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


def _optimize(
    model: EditableModel, requests: Sequence[Request], sites: Sequence[Site], settings: Optimization
) -> list[Target]:
    """Optimise the δ of one batch of requests."""
    problem = _Problem(model, requests, sites, kl=settings.kl_factor > 0)
    width, count = problem.suffixes[0].shape[1], len(requests)
    deltas = [torch.zeros(count, width, device=model.device, requires_grad=True) for _ in sites]
    optimizer = torch.optim.Adam(deltas, lr=settings.learning_rate)
    unedited = values = torch.zeros(len(sites), count, width, device=model.device)
    traces: list[list[tuple[float, float]]] = [[] for _ in requests]
    active, selection, reference = list(range(count)), problem.select(range(count)), None
    for step in range(settings.steps):
        last = step == settings.steps - 1
        with torch.set_grad_enabled(not last):
            states, bare = selection.forward(deltas)
            nll, probability = selection.answer_losses(states)
            loss = nll
            if step == 0:
                unedited = torch.stack(bare)
                norms = unedited.norm(dim=-1)
            if len(selection.kl_index):
                log_p = selection.kl_log_probabilities(states)
                if reference is None:
                    reference = log_p.detach()
                kl = (log_p.exp() * (log_p - reference[selection.kl_request])).sum(-1)
                loss = loss.index_add(0, selection.kl_request, settings.kl_factor * kl)
            for site, delta, norm in zip(sites, deltas, norms, strict=True):
                loss = loss + site.weight_decay * delta.norm(dim=-1) / norm**2
        values = values.clone()
        for number, (site, delta) in enumerate(zip(sites, deltas, strict=True)):
            base = bare[number] if site.follow else unedited[number][active]
            values[number, active] = base + delta.detach()[active]
        for request, total, chance in zip(
            active, loss.detach()[active].tolist(), probability[active].tolist(), strict=True
        ):
            traces[request].append((total, chance))
        going = [request for request in active if not _stops(settings, *traces[request][-1])]
        if last or not going:
            break
        loss[going].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for site, delta, norm in zip(sites, deltas, norms, strict=True):  # Eq. 12
                delta.mul_((site.clamp * norm / delta.norm(dim=-1)).clamp(max=1)[:, None])
        if going != active:
            active, selection = going, problem.select(going)
    return [
        Target(
            request.case_id,
            values[:, number].cpu(),
            unedited[:, number].cpu(),
            [loss for loss, _ in traces[number]],
            [chance for _, chance in traces[number]],
        )
        for number, request in enumerate(requests)
    ]


def _stops(settings: Optimization, loss: float, probability: float) -> bool:
    """Whether a request has reached its goal, or has left the finite numbers."""
    return (
        not math.isfinite(loss)
        or (settings.stop_loss is not None and loss < settings.stop_loss)
        or (settings.stop_probability is not None and probability >= settings.stop_probability)
    )


def optimize(
    model: EditableModel,
    requests: Sequence[Request],
    sites: Sequence[Site],
    settings: Optimization,
    token_budget: int,
) -> Iterator[list[Target]]:
    """Optimise target vectors for all requests, one batch of at most `token_budget` prompt tokens at a time.

    Minimises Eq. 11 over the δ of all sites together by Adam, each δ projected onto ‖δ‖ ≤ γ‖h₀‖ (Eq. 12) after each
    step; n steps are n forward and n-1 backward passes. A request's result does not depend on its batch beyond
    rounding. Its v is h + δ, h being the state at the site before δ is added: on the unedited model, or with the
    final δ of the other sites in place where the site follows them.
    """
    sizes = [sum(len(p.ids) + len(request.answer) - 1 for p in request.prompts) for request in requests]
    for batch in chunks(sizes, token_budget):
        yield _optimize(model, [requests[number] for number in batch], sites, settings)
