"""Sets of words around a fact, and what the model says of each of them in every layer (Appendix A, Figure 5)."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from jeep.data.facts import Fact
from jeep.model.editable import EditableModel
from jeep.model.readout import read_out
from jeep.model.tokens import encode_word, first_tokens, locate
from jeep.probes.lens import flows
from jeep.probes.retrieval import Index
from jeep.probes.words import STOP_WORDS, words

SETS = ("original", "related", "factual", "stop words", "non-factual", "unrelated")


def related_words(fact: Fact, index: Index, count: int) -> dict[str, object]:
    """The words of the `count` best paragraphs about the fact's subject; the query is its subject and relation."""
    query = f"{fact.subject} {fact.template.replace('{}', ' ')}"
    found = index.best(fact.subject, query, count)
    text = "\n".join(f"{paragraph['title']}\n{paragraph['text']}" for paragraph in found)
    return {"case_id": fact.case_id, "paragraphs": len(found), "words": list(dict.fromkeys(words(text)))}


def word_sets(fact: Fact, related: Iterable[str], phrases: Iterable[str]) -> dict[str, list[str]]:
    """The sets that are lists of words: related, factual, stop words and non-factual; the object is in none of them.

    Non-factual is related without factual and without stop words, compared in lower case.
    """
    its_object = {word.lower() for word in words(fact.target_true or "")}

    def without(candidates: Iterable[str], left_out: set[str] | frozenset[str]) -> list[str]:
        return [word for word in dict.fromkeys(candidates) if word.lower() not in left_out]

    stops = set(STOP_WORDS) - its_object
    related = without(related, its_object)
    factual = without((word for phrase in phrases for word in words(phrase)), its_object | stops)
    known = {word.lower() for word in factual}
    return {
        "related": related,
        "factual": factual,
        "stop words": sorted(stops),
        "non-factual": without(related, known | stops),
    }


class TokenSets:
    """The first tokens of every set of one fact, as columns of a mask over the tokens that occur in any."""

    def __init__(self, sets: Mapping[str, Sequence[int]], device: torch.device):
        union = sorted(set().union(*sets.values()))
        place = {token: number for number, token in enumerate(union)}
        self.union: Int[Tensor, " u"] = torch.tensor(union, device=device)
        self.member: Bool[Tensor, "u sets"] = torch.zeros(len(union), len(sets), dtype=torch.bool, device=device)
        for column, tokens in enumerate(sets.values()):
            self.member[[place[token] for token in tokens], column] = True
        self.sizes = {name: len(set(tokens)) for name, tokens in sets.items()}

    def measure(self, logits: Float[Tensor, "r vocabulary"]) -> tuple[Tensor, Tensor]:
        """Summed probability and mean rank of every set, and of all other tokens, in each row."""
        vocabulary = logits.shape[1]
        wanted = logits[:, self.union]
        probability = (wanted - logits.logsumexp(1, keepdim=True)).exp()
        ordered = logits.sort(1).values
        rank = (vocabulary - torch.searchsorted(ordered, wanted.contiguous(), right=True)).to(logits.dtype)
        member = self.member.to(logits.dtype)
        sums, ranks = probability @ member, rank @ member
        rest = 1 - probability.sum(1, keepdim=True)
        left = vocabulary - len(self.union)
        rest_rank = (vocabulary * (vocabulary - 1) / 2 - rank.sum(1, keepdim=True)) / max(left, 1)
        return (
            torch.cat([sums, rest.clamp(min=0)], 1),
            torch.cat([ranks / member.sum(0).clamp(min=1), rest_rank], 1),
        )


@torch.no_grad()
def probe_words(
    model: EditableModel,
    facts: Sequence[Fact],
    sets: Sequence[Mapping[str, Sequence[str]]],
    norm: bool,
    token_budget: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summed probability and mean rank of every set's first tokens at the prediction position, after every layer.

    Stop words and punctuation count in every way that text has them (`first_tokens`): a comma follows its word without
    a space. The words of the other sets count as they are written, behind a space.

    Returns rows of case_id, layer, set, tokens, probability, rank; and rows of case_id, one, other, shared: how many
    first tokens two sets have in common. `unrelated` is every token that is in no other set.
    """
    first = cache(lambda word: encode_word(model.tokenizer, word)[0])
    ways = cache(lambda word: first_tokens(model.tokenizer, word))
    prompts = [locate(model.tokenizer, fact) for fact in facts]
    tables, overlaps = {}, []
    found = flows(model, [p.ids for p in prompts], [[p.prediction] for p in prompts], token_budget)
    for number, flow in tqdm(found, total=len(facts), desc="word sets", unit="prompt", mininterval=2):
        fact = facts[number]
        tokens = {"original": [first(fact.target_true)]}
        tokens |= {name: [first(word) for word in listed] for name, listed in sets[number].items()}
        tokens["stop words"] = sorted(set().union(*map(ways, sets[number]["stop words"])) - set(tokens["original"]))
        token_sets = TokenSets(tokens, model.device)
        probability, rank = read_out(
            model, flow.hidden[0], lambda logits, _, its=token_sets: list(its.measure(logits)), norm=norm
        )
        tables[number] = _table(fact.case_id, token_sets, probability, rank, model)
        overlaps += _overlaps(fact.case_id, token_sets)
    overlap = pd.DataFrame(overlaps, columns=["case_id", "one", "other", "shared"])
    return pd.concat([tables[number] for number in sorted(tables)], ignore_index=True), overlap


def _table(case_id: str, sets: TokenSets, probability: Tensor, rank: Tensor, model: EditableModel) -> pd.DataFrame:
    sizes = {**sets.sizes, "unrelated": model.head.weight.shape[0] - len(sets.union)}
    keys = [(case_id, layer, name, size) for layer in range(len(probability)) for name, size in sizes.items()]
    table = pd.DataFrame(keys, columns=["case_id", "layer", "set", "tokens"])
    return table.assign(probability=probability.flatten().cpu().numpy(), rank=rank.flatten().cpu().numpy())


def _overlaps(case_id: str, sets: TokenSets) -> list[tuple[str, str, str, int]]:
    member = sets.member.to(torch.long)
    shared = (member.mT @ member).tolist()
    names = list(sets.sizes)
    return [
        (case_id, one, other, shared[i][j]) for i, one in enumerate(names) for j, other in enumerate(names) if i < j
    ]
