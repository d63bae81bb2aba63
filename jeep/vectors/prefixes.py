"""Random prefixes p_j of Eq. 8: short texts that the unedited model samples itself."""

from collections.abc import Sequence

import torch

from jeep.model.editable import EditableModel
from jeep.model.tokens import encode

OPENERS = ("The", "Therefore", "Because", "I", "You")
BARE = "{}"
"""The empty prefix, which always comes first."""


@torch.no_grad()
def sample_prefixes(
    model: EditableModel, seed: int, kinds: Sequence[tuple[int, int]] = ((5, 10),), top_k: int = 5
) -> list[str]:
    """The empty prefix, then of each kind (texts, tokens) so many texts of so many sampled tokens, each with `{}`.

    The texts begin with the openers in turn. Every token is drawn from the model's `top_k` most probable ones. The
    same model, seed and kinds give the same texts.
    """
    generator = torch.Generator().manual_seed(seed)
    prefixes = [BARE]
    for number, tokens in ((number, tokens) for texts, tokens in kinds for number in range(texts)):
        ids = encode(model.tokenizer, OPENERS[number % len(OPENERS)])
        for _ in range(tokens):
            packing, states = model.pack([ids])
            states = model.run(states, packing, 0, model.depth - 1)
            top = model.logits(states[-1:])[0].cpu().topk(top_k)
            choice = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
            ids.append(int(top.indices[choice]))
        text = model.tokenizer.decode(ids, skip_special_tokens=True)
        text = " ".join(text.replace("{", " ").replace("}", " ").split())
        prefixes.append(f"{text}. {BARE}")
    return prefixes
