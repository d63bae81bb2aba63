"""Target vectors: the δ that makes a model give the new answer (Eqs. 8, 11, 12).

The engine of every locate-then-edit method, for one or more sites at once. It runs only what δ can change
(`suffixes`). Requests are independent and travel in one packed batch, each with its own clamp and its own stop.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.settings import Optimization, Site, TargetSpec
from jeep.data.facts import Fact
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.stems import Stems
from jeep.model.tokens import Request
from jeep.vectors.suffixes import Problem, Reading, Selection


@dataclass
class Target:
    """The result for one request; sites in the order they were given."""

    case_id: str
    values: Float[Tensor, "sites d"]
    """Target vectors v = h + δ, in the model's `precision`."""
    states: Float[Tensor, "sites d"]
    """Unedited states h₀ at the lookup positions of the bare prompt, likewise."""
    losses: list[float]
    """Total loss of each forward pass that was run."""
    probabilities: list[float]
    """Mean probability of the new answer at each."""

    @property
    def finite(self) -> bool:
        """Whether the optimisation stayed finite; a target that did not must not be written."""
        return bool(torch.isfinite(self.values).all()) and all(map(math.isfinite, self.losses))


class _Descent:
    """One Adam run over every δ of a batch of requests; a request that has reached its goal leaves it."""

    def __init__(
        self,
        model: EditableModel,
        requests: Sequence[Request],
        sites: Sequence[Site],
        settings: Optimization,
        stems: Stems,
    ):
        self.requests, self.sites, self.settings = requests, sites, settings
        self.problem = Problem(model, requests, sites, stems, kl=settings.kl_factor > 0)
        count, width = len(requests), self.problem.suffixes[0].shape[1]
        like = {"device": model.device, "dtype": model.precision}
        self.deltas = [torch.zeros(count, width, **like, requires_grad=True) for _ in sites]
        self.optimizer = torch.optim.Adam(self.deltas, lr=settings.learning_rate)
        self.values = torch.zeros(len(sites), count, width, **like)
        self.traces: list[list[tuple[float, float]]] = [[] for _ in requests]
        # What the first pass finds, where every δ is zero: states, and log-probabilities at the KL prompts.
        self.unedited: Tensor | None = None
        self.reference: Tensor | None = None
        self.nll_factor = torch.ones(count, **like)
        self.steps_right = torch.zeros(count, dtype=torch.long, device=model.device)

    def run(self) -> list[Target]:
        """Descend until every request has stopped."""
        active = list(range(len(self.requests)))
        selection = self.problem.select(active)
        for step in range(self.settings.steps):
            last = step == self.settings.steps - 1
            with torch.set_grad_enabled(not last):
                loss, stopped = self._evaluate(selection, active)
            going = [request for request in active if not stopped[request]]
            if last or not going:
                break
            self._step(loss[going].sum())
            if going != active:
                active, selection = going, self.problem.select(going)
        return [self._target(number) for number in range(len(self.requests))]

    def _evaluate(self, selection: Selection, active: list[int]) -> tuple[Tensor, list[bool]]:
        """Eq. 11 for each request, and whether it has reached its goal; keeps its trace, and v as it stands."""
        states, bare = selection.forward(self.deltas)
        judged = self.settings.relax is not None or self.settings.stop_right is not None
        reading = selection.read(states, right=judged)
        if self.unedited is None:
            self.unedited = torch.stack(bare)
        kl = self._divergence(reading.log_p, selection)
        loss = self.nll_factor * reading.nll + kl
        for site, delta, state in zip(self.sites, self.deltas, self.unedited, strict=True):
            loss = loss + site.weight_decay * delta.norm(dim=-1) / _positive(state.norm(dim=-1) ** 2)
        for number, (site, delta) in enumerate(zip(self.sites, self.deltas, strict=True)):
            base = bare[number] if site.follow else self.unedited[number, active]
            self.values[number, active] = base + delta.detach()[active]
        losses, probabilities = loss.detach().tolist(), reading.probability.tolist()
        for request in active:
            self.traces[request].append((losses[request], probabilities[request]))
        return loss, self._stopped(loss.detach(), reading, kl.detach())

    def _divergence(self, log_p: Tensor, selection: Selection) -> Tensor:
        """α KL(P with δ ‖ P without) of every request; zero without a KL prompt."""
        total = self.nll_factor.new_zeros(len(self.requests))
        if not len(log_p):
            return total
        if self.reference is None:
            self.reference = log_p.detach()
        kl = (log_p.exp() * (log_p - self.reference[selection.kl_request])).sum(-1)
        return total.index_add(0, selection.kl_request, self.settings.kl_factor * kl)

    def _stopped(self, loss: Tensor, reading: Reading, kl: Tensor) -> list[bool]:
        """Which requests have reached their goal, or have left the finite numbers."""
        settings, relax = self.settings, self.settings.relax
        stopped = ~torch.isfinite(loss)
        if settings.stop_loss is not None:
            stopped |= loss < settings.stop_loss
        if settings.stop_probability is not None:
            stopped |= reading.probability >= settings.stop_probability
        if relax is not None:
            self.nll_factor = torch.where(reading.right, relax.nll, 1.0).to(self.nll_factor)
            stopped |= reading.right & (kl <= relax.stop_kl)
        if settings.stop_right is not None:
            every = settings.stop_right.prefixes == "all"
            self.steps_right += reading.right if every else reading.right_sampled
            stopped |= self.steps_right >= settings.stop_right.steps
        return stopped.tolist()

    def _step(self, loss: Tensor) -> None:
        """One step of Adam, and every δ back onto its ball (Eq. 12)."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for site, delta, state in zip(self.sites, self.deltas, self.unedited, strict=True):
                radius = site.clamp * state.norm(dim=-1)
                delta.mul_((radius / _positive(delta.norm(dim=-1))).clamp(max=1)[:, None])

    def _target(self, number: int) -> Target:
        losses, probabilities = zip(*self.traces[number], strict=True)
        return Target(
            self.requests[number].case_id,
            self.values[:, number].cpu(),
            self.unedited[:, number].cpu(),
            list(losses),
            list(probabilities),
        )


def _positive(norms: Tensor) -> Tensor:
    """Norms to divide by: a state may be zero (attention that is switched off), and then its δ stays zero."""
    return norms.clamp(min=torch.finfo(norms.dtype).tiny)


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
    if not requests:
        return
    stems = Stems(model, [request.prompts for request in requests])
    for _, targets in in_batches(
        [request.tokens for request in requests],
        token_budget,
        lambda batch: _Descent(model, [requests[number] for number in batch], sites, settings, stems).run(),
        order=[request.suffix for request in requests],
    ):
        yield targets


def with_finite_targets(facts: Sequence[Fact], targets: Sequence[Target]) -> tuple[list[Fact], list[Target]]:
    """The facts that can be written, and their targets."""
    pairs = [(fact, target) for fact, target in zip(facts, targets, strict=True) if target.finite]
    return [fact for fact, _ in pairs], [target for _, target in pairs]


def report_unusable(targets: Iterable[Target]) -> None:
    """Log the case ids of facts whose optimisation left the finite numbers."""
    for target in targets:
        if not target.finite:
            logging.warning("fact %s: the loss did not stay finite; it is left out", target.case_id)


def optimize_facts(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], spec: TargetSpec, token_budget: int
) -> list[Target]:
    """The target vectors of facts, in their order; those that did not stay finite are reported."""
    requests = [Request.of(model.tokenizer, fact, prefixes) for fact in facts]
    batches = optimize(model, requests, spec.sites, spec.optimization, token_budget)
    found = {target.case_id: target for batch in batches for target in batch}
    report_unusable(found.values())
    return [found[fact.case_id] for fact in facts]
