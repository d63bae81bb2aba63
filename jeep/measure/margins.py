"""How far ahead the new answers are in a model as it is: of the original ones, or of every other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from jeep.common.settings import Rival
from jeep.data.facts import Fact
from jeep.measure.evaluate import Scored, score
from jeep.model.editable import EditableModel
from jeep.model.tokens import Request, encode_pair


def answer_margins(
    model: EditableModel, facts: Sequence[Fact], prefixes: Sequence[str], token_budget: int, rival: Rival = "best"
) -> Float[Tensor, " m"]:
    """Each fact's margin in nats, the least over all `prefixes`, under teacher forcing. On the CPU.

    best: log-probability of the new answer's token minus that of the best other token, the least over its tokens: above
    0, the answer is the argmax at each of them. original: mean token log-probability of the new answer minus that of
    the original one, as CounterFact's metrics compare them; best, for a fact without an original answer.
    """
    prompts, answers = [], []
    for fact in facts:
        request = Request.of(model.tokenizer, fact, prefixes)
        own = [request.answer]
        if rival == "original" and fact.target_true is not None:
            own.append(encode_pair(model.tokenizer, fact.prompt, fact.target_true, fact.joiner)[1])
        prompts += [prompt.ids for prompt in request.prompts]
        answers += [own for _ in request.prompts]
    scored = iter(score(model, prompts, answers, token_budget, leads=True))
    return torch.tensor([min(_margin(*next(scored)) for _ in prefixes) for _ in facts])


def _margin(new: Scored, original: Scored | None = None) -> float:
    if original is None:
        return float(new.leads.min())
    return float(new.log_probabilities.mean() - original.log_probabilities.mean())
