"""The plain way: the whole model, one request at a time, every token's logits, one pass for each layer.

Written from the formulas on transformers' own forward pass, as the methods' authors publish it; nothing of the
package's engine is used. Tests compare the package with it, the benchmark times the package against it.
"""

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch.nn import functional

from jeep.model.editable import architecture_of


def block(network, layer):
    return network.get_submodule(f"{architecture_of(network.config).blocks}.{layer}")


def module(network, layer, place):
    a = architecture_of(network.config)
    inner = {"mlp": a.mlp_out, "attention": a.attention_out}.get(place)
    return block(network, layer).get_submodule(inner) if inner else block(network, layer)


def tensor_of(output):
    return output[0] if isinstance(output, tuple) else output


def padded(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Sequences padded at the right, as a model takes them."""
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row] + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


@contextmanager
def edited(network, layer, place, positions, delta, seen):
    """Keep the states at each row's position of a module's output, then add δ to them; -1 leaves a row alone."""
    positions = torch.tensor(positions)
    rows = torch.arange(len(positions))

    def hook(_, __, output):
        states = tensor_of(output)
        seen.append(states[rows, positions])
        shift = torch.zeros_like(states)
        shift[rows, positions] = (positions >= 0)[:, None].to(states.dtype)
        states = states + shift * delta.to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = module(network, layer, place).register_forward_hook(hook)
    yield
    handle.remove()


def target_vectors(network, request, sites, settings):
    """Eqs. 8, 11, 12 for one request: v, h₀ and the losses. All its prompts run as one padded batch."""
    width, dtype = network.config.hidden_size, next(network.parameters()).dtype
    deltas = [torch.zeros(width, dtype=dtype, requires_grad=True) for _ in sites]
    optimizer = torch.optim.Adam(deltas, lr=settings.learning_rate)
    kl = settings.kl_factor > 0 and any(site.position == "subject_last" for site in sites)
    rows = [[*prompt.ids, *request.answer[:-1]] for prompt in request.prompts] + [list(request.kl_prompt.ids)] * kl
    batch = padded(rows)
    positions = [
        [prompt.position(site.position) for prompt in request.prompts]
        + [request.kl_prompt.subject_last if site.position == "subject_last" else -1] * kl
        for site in sites
    ]
    answer = torch.tensor(request.answer)
    first, reference, losses, factor, times_right = None, None, [], 1.0, 0
    for step in range(settings.steps):
        seen = [[] for _ in sites]
        with ExitStack() as stack:
            for site, delta, where, states in zip(sites, deltas, positions, seen, strict=True):
                stack.enter_context(edited(network, site.layer, site.place, where, delta, states))
            log_p = network(**batch).logits.log_softmax(-1)
        asked = torch.stack(
            [log_p[n, len(p.ids) - 1 :][: len(answer)] for n, p in enumerate(request.prompts)]
        )  # (prompts, answer, vocabulary)
        nll = -asked.gather(2, answer.expand(len(asked), -1)[..., None]).squeeze(2).mean(1)
        probability = (-nll).exp().mean()
        bare = [states[0][0] for states in seen]
        first = [state.detach() for state in bare] if first is None else first
        loss, divergence = factor * nll.mean(), torch.zeros(())
        if kl:
            own = log_p[-1, request.kl_prompt.subject_last]
            reference = own.detach() if reference is None else reference
            divergence = settings.kl_factor * functional.kl_div(reference, own, reduction="sum", log_target=True)
        loss = loss + divergence
        for site, delta, h in zip(sites, deltas, first, strict=True):
            loss = loss + site.weight_decay * delta.norm() / h.norm() ** 2
        losses.append(loss.item())
        values = [
            (state.detach() if site.follow else h) + delta.detach()
            for site, state, h, delta in zip(sites, bare, first, deltas, strict=True)
        ]
        reached = settings.stop_probability is not None and probability >= settings.stop_probability
        if settings.relax is not None:
            right = bool((asked.argmax(2) == answer).all())
            factor = settings.relax.nll if right else 1.0
            reached |= right and divergence.item() <= settings.relax.stop_kl
        if settings.stop_right is not None:
            judged = asked.argmax(2) == answer
            times_right += bool((judged if settings.stop_right.prefixes == "all" else judged[1:]).all())
            reached |= times_right >= settings.stop_right.steps
        if reached or (settings.stop_loss is not None and loss < settings.stop_loss) or step == settings.steps - 1:
            return torch.stack(values), torch.stack(first), losses
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for site, delta, h in zip(sites, deltas, first, strict=True):
                radius = site.clamp * h.norm()
                if delta.norm() > radius:
                    delta.mul_(radius / delta.norm())
    raise AssertionError("the last step returns")


@torch.no_grad()
def read(network, rows, layer, place, positions, inputs=False):
    """States (or, with `inputs`, keys) at one position of each row; the pass goes through the whole model."""
    seen = []
    target = module(network, layer, place)
    at = (torch.arange(len(rows)), torch.tensor(positions))

    def by_row(states):
        return states.reshape(len(rows), -1, states.shape[-1])  # some blocks run their MLP on a list of tokens

    if inputs:
        handle = target.register_forward_pre_hook(lambda _, args: seen.append(by_row(args[0])[at]))
    else:
        handle = target.register_forward_hook(lambda _, __, output: seen.append(by_row(tensor_of(output))[at]))
    network(**padded(rows))
    handle.remove()
    return seen[0]


def write(network, prompts, targets, placements, covariance, transposed=False, adds=None):
    """Steps 2 and 3: `prompts` holds each fact's prompts, the bare one first. Changes `network`; returns the Δs.

    `adds(layer, place, output)` is what a block adds to its state, where that is not W_O's output.
    """
    changes = {}
    steps = [(layer, placement) for placement in placements for layer in placement.layers]
    for layer, placement in sorted(steps, key=lambda step: step[0]):
        keys, residuals = [], []
        for fact, target in zip(prompts, targets, strict=True):
            positions = [prompt.position(placement.position) for prompt in fact]
            rows = [prompt.ids for prompt in fact]
            keys.append(read(network, rows, layer, placement.edited, positions, inputs=True).mean(0).double())
            last = placement.layers[-1]
            (state,) = read(network, rows[:1], last, placement.measured, positions[:1])
            left = last - layer + 1
            share = left if placement.region.spread == "even" else left**0.5
            residual = (target[placement.site] - state).double() / share
            if adds is not None and placement.measured == "output":
                (output,) = read(network, rows[:1], layer, placement.edited, positions[:1])
                residual *= (output / adds(layer, placement.edited, output)).double()
            residuals.append(residual)
        K, R = torch.stack(keys, 1), torch.stack(residuals, 1)
        gram = placement.region.prior * covariance[layer, placement.edited].double() + K @ K.T
        change = R @ K.T @ torch.linalg.inv(gram)
        weight = module(network, layer, placement.edited).weight
        weight.data.add_((change.T if transposed else change).to(weight.dtype))
        changes[layer, placement.edited] = change
    return changes


class _Reached(Exception):
    """The layer that was wanted has run."""


@torch.no_grad()
def covariance(network, rows, layer, place="mlp"):
    """E[k kᵀ] of one layer: one pass over the text, a sequence at a time, that stops at the layer."""
    sums, count = 0.0, 0

    def hook(_, args):
        nonlocal sums, count
        keys = args[0].flatten(0, -2)
        sums, count = sums + (keys.T @ keys).double(), count + len(keys)
        raise _Reached

    handle = module(network, layer, place).register_forward_pre_hook(hook)
    for row in rows:
        with suppress(_Reached):
            network(input_ids=torch.tensor([row]))
    handle.remove()
    return (sums / count).float()


@torch.no_grad()
def score(network, prompts, answers):
    """Log-probability of each answer's tokens, and whether each is the argmax: one record's prompts as one batch."""
    pairs = [(prompt, answer) for prompt, group in zip(prompts, answers, strict=True) for answer in group]
    log_p = network(**padded([[*prompt, *answer[:-1]] for prompt, answer in pairs])).logits.log_softmax(-1)
    scored = []
    for row, (prompt, answer) in zip(log_p, pairs, strict=True):
        asked, ids = row[len(prompt) - 1 :][: len(answer)], torch.tensor(answer)
        scored.append((asked.gather(1, ids[:, None])[:, 0], asked.argmax(-1) == ids))
    return scored
