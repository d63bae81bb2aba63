"""Plain versions of what the package does fast: the whole model, one request at a time, every token's logits.

Written from the formulas, on transformers' own forward pass; nothing of the package's engine is used.
"""

from contextlib import ExitStack, contextmanager

import torch
from torch.nn import functional

from jeep.models import architecture_of


def block(network, layer):
    return network.get_submodule(f"{architecture_of(network.config).blocks}.{layer}")


def module(network, layer, place):
    a = architecture_of(network.config)
    inner = {"mlp": a.mlp_out, "attention": a.attention_out}.get(place)
    return block(network, layer).get_submodule(inner) if inner else block(network, layer)


def tensor_of(output):
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def edited(network, layer, place, position, delta, seen):
    """Keep the state at one position of a module's output, then add δ to it."""

    def hook(_, __, output):
        states = tensor_of(output)
        seen.append(states[0, position])
        shift = torch.zeros_like(states)
        shift[0, position] = 1
        states = states + shift * delta.to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = module(network, layer, place).register_forward_hook(hook)
    yield
    handle.remove()


def run(network, ids, sites, deltas, prompt):
    """Logits of one sequence with every δ in place, and the states at the sites before."""
    seen = [[] for _ in sites]
    with ExitStack() as stack:
        for site, delta, states in zip(sites, deltas, seen, strict=True):
            position = prompt.position(site.position)
            stack.enter_context(edited(network, site.layer, site.place, position, delta, states))
        logits = network(input_ids=torch.tensor([ids])).logits[0]
    return logits, [states[0] for states in seen]


def target_vectors(network, request, sites, settings):
    """Eqs. 8, 11, 12 for one request: v, h₀ and the losses."""
    width, dtype = network.config.hidden_size, next(network.parameters()).dtype
    deltas = [torch.zeros(width, dtype=dtype, requires_grad=True) for _ in sites]
    optimizer = torch.optim.Adam(deltas, lr=settings.learning_rate)
    first, reference, losses = None, None, []
    kl_sites = [n for n, site in enumerate(sites) if site.position == "subject_last"]
    for step in range(settings.steps):
        nll, probability, bare = 0.0, 0.0, None
        for prompt in request.prompts:
            logits, states = run(network, prompt.ids + request.answer[:-1], sites, deltas, prompt)
            bare = states if bare is None else bare
            asked = logits[len(prompt.ids) - 1 :]
            row = functional.cross_entropy(asked, torch.tensor(request.answer))
            nll, probability = (
                nll + row / len(request.prompts),
                probability + (-row).exp() / len(request.prompts),
            )
        first = [state.detach() for state in bare] if first is None else first
        loss = nll
        if kl_sites and settings.kl_factor:
            own = [sites[n] for n in kl_sites]
            logits, _ = run(network, request.kl_prompt.ids, own, [deltas[n] for n in kl_sites], request.kl_prompt)
            log_p = logits[request.kl_prompt.subject_last].log_softmax(-1)
            reference = log_p.detach() if reference is None else reference
            loss = loss + settings.kl_factor * functional.kl_div(reference, log_p, reduction="sum", log_target=True)
        for site, delta, h in zip(sites, deltas, first, strict=True):
            loss = loss + site.weight_decay * delta.norm() / h.norm() ** 2
        losses.append(loss.item())
        values = [
            (state.detach() if site.follow else h) + delta.detach()
            for site, state, h, delta in zip(sites, bare, first, deltas, strict=True)
        ]
        reached = settings.stop_probability is not None and probability >= settings.stop_probability
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


def read(network, ids, layer, place, position, inputs=False):
    """A state (or, with `inputs`, a key) at one position of one sequence."""
    seen = []
    target = module(network, layer, place)
    if inputs:
        handle = target.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, position]))
    else:
        handle = target.register_forward_hook(lambda _, __, output: seen.append(tensor_of(output)[0, position]))
    with torch.no_grad():
        network(input_ids=torch.tensor([ids]))
    handle.remove()
    return seen[0]


def write(network, prompts, targets, placements, covariance, transposed=False):
    """Steps 2 and 3: `prompts` holds each fact's prompts, the bare one first. Changes `network`; returns the Δs."""
    changes = {}
    for placement in placements:
        last = placement.layers[-1]
        for layer in placement.layers:
            keys, residuals = [], []
            for fact, target in zip(prompts, targets, strict=True):
                rows = [read(network, p.ids, layer, "mlp", p.position(placement.position), inputs=True) for p in fact]
                keys.append(torch.stack(rows).mean(0).double())
                position = fact[0].position(placement.position)
                state = read(network, fact[0].ids, last, placement.measured, position)
                left = last - layer + 1
                share = left if placement.spread == "even" else left**0.5
                residuals.append((target[placement.site] - state).double() / share)
            K, R = torch.stack(keys, 1), torch.stack(residuals, 1)
            gram = placement.prior * covariance[layer].double() + K @ K.T
            change = R @ K.T @ torch.linalg.inv(gram)
            weight = module(network, layer, "mlp").weight
            weight.data.add_((change.T if transposed else change).to(weight.dtype))
            changes[layer] = change
    return changes
