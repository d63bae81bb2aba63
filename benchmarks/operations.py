"""Floating-point operations: how many the mathematics needs, and how many a run spends.

Counted are matrix products, as torch's FlopCounterMode counts them: 2·n·k·m for (n, k) times (k, m).
"""

from collections.abc import Callable, Sequence

from torch.utils.flop_counter import FlopCounterMode

from jeep.common.settings import Placement, Site
from jeep.measure.evaluate import Item
from jeep.model.editable import EditableModel
from jeep.model.stems import Stems
from jeep.model.tokens import Prompt, Request


def spent(run: Callable[[], object]) -> float:
    """Operations that `run` spends."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


class Needed:
    """Operations that each task needs at least on a model, with every state computed once that nothing changes."""

    def __init__(self, model: EditableModel):
        config, self.model = model.network.config, model
        block = model.blocks[0]
        self.linear = 2.0 * sum(p.numel() for p in block.parameters() if p.dim() == 2)
        self.mlp_out = 2.0 * model.projection(0).weight.numel()
        self.key_width = model.inputs(0)
        heads, width = config.num_attention_heads, config.hidden_size
        shared = getattr(config, "num_key_value_heads", None) or heads
        self.qkv = 2.0 * width * width * (1 + 2 * shared / heads)
        self.pair = 4.0 * width
        """Scores and weighted values of one query and one key, all heads."""
        self.head = 2.0 * model.head.weight.numel()

    def blocks(self, count: int, first: int, stop: int) -> float:
        """`count` blocks on the tokens first..stop-1 of a sequence, the ones before being given."""
        tokens = stop - first
        return count * (tokens * self.linear + self.pair * tokens * (first + stop + 1) / 2)

    def targets(self, requests: Sequence[Request], sites: Sequence[Site], steps: int) -> float:
        """Target vectors of all requests: the constant part once, then forward and backward on the suffixes.

        In the first block above δ, only its own token has a new query, key and value; in the last, only the tokens that
        are read go on behind them.
        """
        depth, low = self.model.depth, min(site.layer for site in sites)
        stems = Stems(self.model, [request.prompts for request in requests])
        total = sum(self.blocks(depth, 0, len(stem)) for stem in stems.ids)
        for request in requests:
            rows = [
                (p, len(p.ids) + len(request.answer) - 1, len(request.answer), n) for n, p in enumerate(request.prompts)
            ]
            rows += [(request.kl_prompt, len(request.kl_prompt.ids), 1, None)]
            for prompt, length, read, stem in rows:
                behind, start = stems.length(stem), prompt.subject_last
                total += self.blocks(low + 1, behind, length) + self.blocks(depth - low - 1, behind, start)
                suffix = length - start
                forward = self.blocks(depth - low - 1, start, length) + read * self.head
                forward -= (suffix - 1) * self.qkv + (suffix - read) * (self.linear - self.qkv)
                own_pairs = (depth - low - 1) * self.pair * suffix * (suffix + 1) / 2
                total += steps * forward + (steps - 1) * (forward + own_pairs)
        return total

    def covariance(self, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> float:
        """One pass to the highest layer's keys, and half of each symmetric k kᵀ."""
        top = max(layers)
        passes = sum(self.blocks(top + 1, 0, len(row)) - len(row) * self.mlp_out for row in rows)
        return passes + sum(map(len, rows)) * len(layers) * float(self.key_width) ** 2

    def evaluation(self, items: Sequence[Item]) -> float:
        """Each distinct prompt once, its answers behind it, logits where an answer's token is predicted."""
        distinct: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for item in items:
            asked, answers = item.encoded(self.model.tokenizer)
            distinct.setdefault(asked, set()).update(answers)
        total = 0.0
        for prompt, answers in ((len(asked), answers) for asked, answers in distinct.items()):
            total += self.blocks(self.model.depth, 0, prompt)
            for tokens in map(len, answers):
                total += self.blocks(self.model.depth, prompt, prompt + tokens - 1) + tokens * self.head
        return total

    def writing(self, prompts: Sequence[Sequence[Prompt]], placements: Sequence[Placement]) -> float:
        """Keys under every prefix on the way up, and the bare prompts to the region's last layer before each update."""
        stems = Stems(self.model, prompts)
        reach = "prediction" if len(placements) > 1 else placements[0].position
        top = placements[-1].layers[-1]
        total = sum(self.blocks(top + 1, 0, len(stem)) for stem in stems.ids)
        for fact in prompts:
            for number, prompt in enumerate(fact):
                total += self.blocks(top + 1, stems.length(number), prompt.position(reach) + 1)
            for placement in placements:
                end = fact[0].position(placement.position) + 1
                ahead = sum(placement.layers[-1] - layer for layer in placement.layers)
                total += self.blocks(ahead, stems.length(0), end)
        return total
