"""The contrast of original and new answers through the layers (§4.1; Figures 1 and 2)."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.readout import read_out
from jeep.model.tokens import encode_pair, locate
from jeep.probes.lens import Flow, flows, probability_and_rank

POSITIONS = ("subject_last", "prediction")
ANSWERS = ("original", "new")
PARTS = ("state", "without_mlp", "without_attention")
"""The state itself, and the state after a block without what its MLP or its attention has added."""


@torch.no_grad()
def contrast(model: EditableModel, facts: Sequence[Fact], norm: bool, token_budget: int) -> pd.DataFrame:
    """Probability and rank of the first token of both answers, at both lookup positions, after every layer.

    One row for each fact, position, layer (0 is the embedding), part (see PARTS) and answer: case_id, position, layer,
    part, answer, probability, rank. Raises UserError for a fact without an original answer.
    """
    prompts = [locate(model.tokenizer, fact) for fact in facts]
    tokens = [answer_tokens(model, fact) for fact in facts]
    places = [[prompt.position(name) for name in POSITIONS] for prompt in prompts]
    tables = []
    found = flows(model, [prompt.ids for prompt in prompts], places, token_budget)
    for number, flow in tqdm(found, total=len(facts), desc="contrast", unit="prompt", mininterval=2):
        tables.append((number, _measure(model, facts[number].case_id, tokens[number], flow, norm)))
    tables.sort(key=lambda entry: entry[0])
    return pd.concat([table for _, table in tables], ignore_index=True)


def answer_tokens(model: EditableModel, fact: Fact) -> list[int]:
    """The first tokens of a fact's original and new answer. Raises UserError for a fact without an original one."""
    if fact.target_true is None:
        raise UserError(f"record {fact.case_id}: no target_true, which the probe contrasts the new answer with")
    answers = (fact.target_true, fact.target_new)
    return [encode_pair(model.tokenizer, fact.prompt, answer, fact.joiner)[1][0] for answer in answers]


def _measure(model: EditableModel, case_id: str, tokens: list[int], flow: Flow, norm: bool) -> pd.DataFrame:
    after = flow.hidden[:, 1:]
    rows = torch.cat([flow.hidden, after - flow.mlp, after - flow.attention], 1)  # (positions, 3 layers - 2, d)
    ids = torch.tensor([tokens], device=rows.device)

    def measure(logits: Tensor, _: slice) -> list[Tensor]:
        return list(probability_and_rank(logits, ids.expand(len(logits), -1)))

    probability, rank = read_out(model, rows.flatten(0, 1), measure, norm=norm)
    layers = range(flow.hidden.shape[1])
    parts = [(layer, "state") for layer in layers]
    parts += [(layer, part) for part in PARTS[1:] for layer in layers[1:]]
    keys = [(case_id, place, layer, part, answer) for place in POSITIONS for layer, part in parts for answer in ANSWERS]
    table = pd.DataFrame(keys, columns=["case_id", "position", "layer", "part", "answer"])
    return table.assign(probability=probability.flatten().cpu().numpy(), rank=rank.flatten().cpu().numpy())


@torch.no_grad()
def flow_of(model: EditableModel, fact: Fact, norm: bool) -> pd.DataFrame:
    """The original answer's probability and rank at every token of a fact's prompt, after every layer (Figure 1).

    Columns: index, token, place (subject_last, prediction or empty), layer, probability, rank.
    """
    prompt = locate(model.tokenizer, fact)
    ids = prompt.ids
    ((_, flow),) = flows(model, [ids], [range(len(ids))], len(ids))
    wanted = torch.tensor([answer_tokens(model, fact)[:1]], device=model.device)

    def measure(logits: Tensor, _: slice) -> list[Tensor]:
        return list(probability_and_rank(logits, wanted.expand(len(logits), -1)))

    probability, rank = read_out(model, flow.hidden.flatten(0, 1), measure, norm=norm)
    layers = flow.hidden.shape[1]
    places = {prompt.prediction: "prediction", prompt.subject_last: "subject_last"}
    keys = [
        (index, model.tokenizer.decode([token]), places.get(index, ""), layer)
        for index, token in enumerate(ids)
        for layer in range(layers)
    ]
    table = pd.DataFrame(keys, columns=["index", "token", "place", "layer"])
    return table.assign(probability=probability[:, 0].cpu().numpy(), rank=rank[:, 0].cpu().numpy())
