"""What an edit does to a model on text that has nothing to do with it: perplexity before and after, and drift.

Drift is the mean KL(P_unedited ‖ P_edited) of the next token, paired by construction: it shows damage that a perplexity
over some thousand tokens does not. Text is held out from the covariances, which tell an editor what to keep.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from jeep.common.errors import NotFinite, UserError
from jeep.common.settings import Sample
from jeep.data.corpus import held_out_texts, sampled_texts
from jeep.model.batches import in_batches
from jeep.model.editable import EditableModel
from jeep.model.readout import SILENT, read_out
from jeep.model.windows import sequences, windows

LENGTH = 512
"""Tokens of a window; so long is the stride, too."""
SHORT = 128
"""Where there are few tokens: an interval is over windows."""


def held_out_windows(
    model: EditableModel, sample: Sample, tokens: int = 50_000, length: int = LENGTH
) -> list[tuple[int, ...]]:
    """Windows of about `tokens` tokens in all, from articles that the covariances' `sample` did not read.

    Raises UserError where the sample has left none, or too few for a window.
    """
    taken = articles_taken(model, sample)
    texts = held_out_texts(sample.corpus, sample.articles, sample.seed, taken)
    try:
        return windows(model.tokenizer, texts, min(length, model.positions), tokens)
    except UserError as error:
        raise UserError(f"{sample.corpus}: {error}: covariances have read {taken} of its articles") from None


def articles_taken(model: EditableModel, sample: Sample) -> int:
    """How many articles of its draw a sample reads before it has its tokens."""
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for text in sampled_texts(sample.corpus, sample.articles, sample.seed):
            taken += 1
            yield text

    for _ in sequences(model.tokenizer, counted(), sample.length or model.positions, sample.tokens):
        pass
    return taken


@dataclass(frozen=True)
class Reference:
    """What an unedited model predicts in some windows: kept once, for all edits that are held against it."""

    windows: Sequence[tuple[int, ...]]
    states: Sequence[Float[Tensor, "..."]]
    """For each window the final states (t, d) in front of its scored tokens, on the CPU: logits would be far larger."""
    nll: Sequence[Float[Tensor, "..."]]
    """For each window those of its t scored tokens, in nats."""


@torch.no_grad()
def unedited(model: EditableModel, windows: Sequence[tuple[int, ...]], token_budget: int) -> Reference:
    """What a model predicts in each window, of all tokens but the first. Raises NotFinite where it answers NaN."""
    states: dict[int, Tensor] = {}
    nll: dict[int, Tensor] = {}
    for number, found in _run(model, windows, token_budget):
        wanted = torch.tensor(windows[number][1:], device=found.device)
        (losses,) = read_out(model, found, lambda logits, rows, wanted=wanted: [_losses(logits, wanted[rows])])
        _require_numbers(losses)
        states[number], nll[number] = found.cpu(), losses.cpu()
    order = range(len(windows))
    return Reference(windows, [states[number] for number in order], [nll[number] for number in order])


def _run(
    model: EditableModel, windows: Sequence[tuple[int, ...]], token_budget: int
) -> Iterator[tuple[int, Float[Tensor, "t d"]]]:
    """The final states of each window but at its last token."""

    def run(batch: list[int]) -> list[Tensor]:
        packing, states = model.pack([windows[number] for number in batch])
        states = model.run(states, packing, 0, model.depth - 1)
        return [each[:-1] for each in states.split(list(packing.lengths))]

    lengths = [len(window) for window in windows]
    with tqdm(total=sum(lengths), desc="held-out text", unit="tok", mininterval=2) as progress:
        for batch, found in in_batches(lengths, token_budget, run):
            yield from zip(batch, found, strict=True)
            progress.update(sum(lengths[number] for number in batch))


def _losses(logits: Float[Tensor, "r vocabulary"], wanted: Tensor) -> Float[Tensor, " r"]:
    return functional.cross_entropy(logits, wanted, reduction="none")


def _require_numbers(losses: Tensor) -> None:
    if losses.isnan().any():
        raise NotFinite(f"held-out text: {SILENT}")


@torch.no_grad()
def drift(model: EditableModel, reference: Reference, token_budget: int) -> pd.DataFrame:
    """One row per window: window, tokens (scored), nll_before, nll_after and kl, each the sum over its tokens, in nats.

    `model` is edited, `reference` the same one without the edit. Both models' logits are made a few rows at a time.
    Raises NotFinite for a model that answers NaN, UserError for an edit of the final norm or the head: the unedited
    logits could not be made from the kept states.
    """
    rows = []
    for number, states in _run(model, reference.windows, token_budget):
        wanted = torch.tensor(reference.windows[number][1:], device=states.device)
        before, after, kl = _compared(model, states, reference.states[number].to(states.device), wanted)
        _require_numbers(after)
        if not torch.allclose(before.cpu(), reference.nll[number], rtol=1e-2, atol=1e-2):
            raise UserError("held-out text: the final norm or the head was edited: drift needs them as they were")
        rows.append((number, len(wanted), *(float(each.double().sum()) for each in (before, after, kl))))
    columns = ["window", "tokens", "nll_before", "nll_after", "kl"]
    return pd.DataFrame(rows, columns=columns).sort_values("window", ignore_index=True)


def _compared(
    model: EditableModel, states: Float[Tensor, "t d"], unedited: Float[Tensor, "t d"], wanted: Tensor
) -> list[Float[Tensor, " t"]]:
    """The tokens' NLL by the kept states and by the model's, and KL(P_unedited ‖ P_edited)."""

    def measure(logits: Tensor, rows: slice) -> list[Tensor]:
        p, q = (each.log_softmax(-1) for each in (model.logits(unedited[rows]), logits))
        losses = [-each.gather(1, wanted[rows, None])[:, 0] for each in (p, q)]
        return [*losses, functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)]

    return read_out(model, states, measure)


def summarize_drift(rows: pd.DataFrame) -> dict[str, int | float]:
    """Of `drift`'s rows: perplexity before and after, their ratio, the mean KL, and 95 % half-widths over windows.

    perplexity_before, perplexity_after: exp of the mean token NLL. ratio: after over before, and ratio_low, ratio_high
    the ends of its interval, paired over windows. kl: nats a token, and kl_ci95. tokens: scored. Infinite where a
    perplexity is beyond a float.
    """
    tokens = rows["tokens"].sum()
    before, after, kl = (rows[name].sum() / tokens for name in ("nll_before", "nll_after", "kl"))
    half = {
        "rise": _half_width(rows["nll_after"] - rows["nll_before"], rows["tokens"]),
        "kl": _half_width(rows["kl"], rows["tokens"]),
    }
    return {
        "tokens": int(tokens),
        "perplexity_before": _exp(before),
        "perplexity_after": _exp(after),
        "ratio": _exp(after - before),
        "ratio_low": _exp(after - before - half["rise"]),
        "ratio_high": _exp(after - before + half["rise"]),
        "kl": float(kl),
        "kl_ci95": half["kl"],
    }


def _half_width(sums: pd.Series, tokens: pd.Series) -> float:
    """1.96 s/√n of the windows' means; NaN of one window."""
    return float(1.96 * (sums / tokens).std() / np.sqrt(len(sums)))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
