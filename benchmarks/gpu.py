"""Time the package at the shapes of GPT-J 6B and LLaMA 7B on whatever card there is: `make bench-gpu`.

Weights are random and nothing is downloaded: what is measured depends on shapes, lengths and numbers alone. The plain
way runs beside it, for one fact. A table and its numbers are written, named by the card.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import plain
from benchmarks.operations import Needed
from benchmarks.timing import seconds
from jeep.common.devices import make_repeatable
from jeep.common.errors import UserError
from jeep.common.storage import atomic, write_json
from jeep.editors import load_editor
from jeep.measure.evaluate import score
from jeep.model.editable import EditableModel
from jeep.model.loading import pick_device, with_fused_gelu
from jeep.model.tokens import Prompt, Request
from jeep.vectors.targets import optimize
from jeep.writing.covariance import covariances
from jeep.writing.solve import closed_form_update

SMALL = {
    "gptj": {"n_embd": 64, "n_head": 4, "rotary_dim": 8, "vocab_size": 500},
    "llama": {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 500},
}
"""What makes a shape small enough for a test; heads and proportions stay."""
PREFIXES, PREFIX, SUBJECT, RELATION, ANSWER = 6, 11, 3, 6, 2
"""Rewriting prompts of a fact (the bare one among them), and tokens of their parts."""
RECORD = 13
"""Prompts of a CounterFact record, with two answers each."""
ROUNDS = 3


def card(device: torch.device) -> str:
    """The name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of square matrix products, the best of four tries."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 10 * 2.0 * size**3 / min(seconds(lambda: [left @ right for _ in range(10)]) for _ in range(4))


class Shape:
    """A random model of a shape, and made-up facts for it."""

    def __init__(
        self, kind: str, dtype: torch.dtype, device: torch.device, layers: int | None, small: bool, limit: float = 60.0
    ):
        depth = {"gptj": "n_layer", "llama": "num_hidden_layers"}[kind]
        changes = (SMALL[kind] if small else {}) | ({depth: layers} if layers else {})
        with device:
            config = AutoConfig.for_model(kind, **changes)
            network = with_fused_gelu(AutoModelForCausalLM.from_config(config, dtype=dtype))
        self.model, self.kind, self.dtype = EditableModel(network, None), kind, str(dtype).removeprefix("torch.")
        self.needed, self.device, self.limit = Needed(self.model), device, limit
        self.random = random.Random(0)
        self.prefixes = [self.tokens(PREFIX) for _ in range(PREFIXES - 1)]
        low, high = (max(0, round(share * self.model.depth) - 1) for share in (0.35, 0.8))
        region = {"clamp": 0.75, "prior": 1000, "spread": "even"}
        layers_of = {"low": [max(0, low - 1), low] if low else [0], "high": [max(low + 1, high)]}
        parts = {name: region | {"layers": chosen} for name, chosen in layers_of.items()}
        self.editor = load_editor("jeep", {"optimization": {"steps": 25}} | parts)

    def tokens(self, count: int) -> tuple[int, ...]:
        """Made-up tokens."""
        return tuple(self.random.randrange(self.model.bounds.embeddings) for _ in range(count))

    def request(self, number: int) -> Request:
        """A made-up fact under the shape's prefixes."""
        fact = self.tokens(SUBJECT + RELATION)
        prompts = [Prompt((*prefix, *fact), len(prefix) + SUBJECT - 1) for prefix in ((), *self.prefixes)]
        return Request(str(number), tuple(prompts), Prompt(fact[:SUBJECT], SUBJECT - 1), self.tokens(ANSWER))

    def row(self, what: str, count: int, unit: str, run: Callable[[], object], needed: float) -> dict[str, object]:
        """One measurement: the median of rounds and its spread, memory, and operations that it needs."""
        run_once = seconds(run)  # also what is compiled, allocated or tuned at first
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        rounds = sorted(seconds(run) for _ in range(ROUNDS)) if ROUNDS * run_once < self.limit else [run_once]
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else float("nan")
        middle = rounds[len(rounds) // 2]
        about = {"model": self.kind, "layers": self.model.depth, "dtype": self.dtype, "what": what, "unit": unit}
        numbers = {"count": count, "seconds": middle, "seconds_low": rounds[0], "seconds_high": rounds[-1]}
        return about | numbers | {"peak_gb": peak, "operations_needed": needed}

    def targets(self, facts: Sequence[int], budget: int) -> Iterator[dict[str, object]]:
        """Target vectors of more and more facts, 25 steps, as long as the limit allows; the plain way for one."""
        sites, settings = self.editor.sites, self.editor.optimization
        requests = [self.request(number) for number in range(max(facts))]
        with self.device:
            alone = [
                seconds(lambda: plain.target_vectors(self.model.network, requests[0], sites, settings)) for _ in "12"
            ]
        each = 0.0
        for count in facts:
            if each * count > self.limit:
                continue  # nobody waits for it
            chosen = requests[:count]
            needed = self.needed.targets(chosen, sites, settings.steps)
            found = self.row("targets", count, "edits", lambda chosen=chosen: self.optimize(chosen, budget), needed)
            each = found["seconds"] / count
            yield found | {"plain_seconds": min(alone) * count, "plain_extrapolated_from": 1}

    def optimize(self, requests: Sequence[Request], budget: int) -> None:
        """All steps of all requests. Raises UserError where one ended early, which would be no measurement."""
        batches = optimize(self.model, requests, self.editor.sites, self.editor.optimization, budget)
        if not all(target.finite for batch in batches for target in batch):
            raise UserError(f"{self.kind} in {self.dtype}: a target vector did not stay finite")

    def covariance(self, tokens: int, budget: int) -> Iterator[dict[str, object]]:
        """Covariances of the layers of both regions."""
        rows = [self.tokens(min(512, tokens)) for _ in range(max(1, tokens // 512))]
        places = list(self.editor.covariances)
        needed = self.needed.covariance(rows, [layer for layer, _ in places])
        count = sum(map(len, rows))
        yield self.row("covariances", count, "tokens", lambda: covariances(self.model, rows, places, budget), needed)

    def closed_form(self, facts: Sequence[int]) -> Iterator[dict[str, object]]:
        """The update of one W_O."""
        inputs = self.model.inputs(0)
        outputs = self.model.projection(0).weight.numel() // inputs
        covariance = torch.eye(inputs, device=self.device)
        for count in facts:
            keys, residuals = (torch.randn(size, count, device=self.device) for size in (inputs, outputs))
            needed = inputs**3 / 3 + 3.0 * inputs**2 * count + 2.0 * outputs * inputs * count
            yield self.row(
                f"closed form, d_in {inputs}",
                count,
                "edits",
                lambda keys=keys, residuals=residuals: closed_form_update(residuals, keys, covariance, 1000.0),
                needed,
            )

    def evaluation(self, records: int, budget: int) -> Iterator[dict[str, object]]:
        """Records of CounterFact's form."""
        prompts = [self.tokens(SUBJECT + RELATION) for _ in range(RECORD * records)]
        answers = [[self.tokens(ANSWER), self.tokens(ANSWER)] for _ in prompts]
        length = SUBJECT + RELATION
        one = self.needed.blocks(self.model.depth, 0, length) + self.needed.head
        one += 2 * (self.needed.blocks(self.model.depth, length, length + ANSWER - 1) + (ANSWER - 1) * self.needed.head)
        needed = one * len(prompts)
        yield self.row("evaluation", records, "records", lambda: score(self.model, prompts, answers, budget), needed)


def table(rows: Sequence[dict[str, object]], device: str, rates: dict[str, float]) -> str:
    """The measurements as Markdown, and the card that they are of."""
    found = pd.DataFrame(rows)
    found["rate"] = found["dtype"].map(rates).where(~found["what"].str.startswith("closed"), rates["float64"])
    each = found["seconds"] / found["count"]
    shown = pd.DataFrame(
        {
            "model": found["model"] + ", " + found["layers"].astype(str) + " layers",
            "precision": found["dtype"],
            "what": found["what"],
            "of": found["count"].astype(str) + " " + found["unit"],
            "seconds": [f"{r.seconds:.2f} ({r.seconds_low:.2f}-{r.seconds_high:.2f})" for r in found.itertuples()],
            "each": each.map("{:.2e} s".format),
            "plain / ours": [_ratio(row) for row in found.to_dict("records")],
            "of the matrix rate": (100 * found["operations_needed"] / found["seconds"] / found["rate"]).map(
                "{:.0f} %".format
            ),
            "peak": found["peak_gb"].map(lambda peak: "" if pd.isna(peak) else f"{peak:.1f} GB"),
        }
    )
    products = ", ".join(f"{rate / 1e12:.2f} in {dtype}" for dtype, rate in rates.items())
    return (
        f"{shown.to_markdown(index=False)}\n\n{device}, PyTorch {torch.__version__}; matrix products: {products} "
        "Tflop/s. \\*: the plain way was run for one edit, times their number.\n"
    )


def _ratio(row: dict) -> str:
    plain_seconds = row.get("plain_seconds")
    return "" if pd.isna(plain_seconds) else f"{plain_seconds / row['seconds']:.1f}\\*"


def main() -> int:
    """Measure; write the numbers and a table of them."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(SMALL), default=list(SMALL), help="shapes")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "float32"], help="precisions")
    parser.add_argument("--layers", type=int, default=None, help="blocks (default: the shape's own)")
    parser.add_argument("--facts", type=int, nargs="+", default=[10, 100, 1000], help="numbers of edits")
    parser.add_argument("--records", type=int, default=100, help="records evaluated")
    parser.add_argument("--tokens", type=int, default=65536, help="tokens of the covariances")
    parser.add_argument("--token-budget", type=int, default=8192, help="most tokens in one forward pass")
    parser.add_argument("--limit", type=float, default=60, help="most seconds of one measurement")
    parser.add_argument("--device", default="auto", help="auto, cuda, cpu, ...")
    parser.add_argument("--small", action="store_true", help="narrow models, to try this anywhere")
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu-CARD.json and gpu-CARD.md")
    arguments = parser.parse_args()
    make_repeatable()
    device = pick_device(arguments.device)
    dtypes = {name: getattr(torch, name) for name in (*arguments.dtypes, "float64")}
    size = 256 if arguments.small else 8192
    rates = {name: matrix_rate(device, dtype, size) for name, dtype in dtypes.items()}
    rows: list[dict[str, object]] = []
    path = arguments.out / f"gpu-{re.sub(r'[^A-Za-z0-9]+', '-', card(device))}.json"
    for kind, name in tqdm([(kind, name) for kind in arguments.models for name in arguments.dtypes], unit="model"):
        shape = Shape(kind, dtypes[name], device, arguments.layers, arguments.small, arguments.limit)
        for part in (
            shape.targets(arguments.facts, arguments.token_budget),
            shape.covariance(arguments.tokens, arguments.token_budget),
            shape.closed_form(arguments.facts),
            shape.evaluation(arguments.records, arguments.token_budget),
        ):
            for row in part:
                sys.stderr.write(json.dumps(row) + "\n")
                rows.append(row)
                write_json(path, {"card": card(device), "rates": rates, "rows": rows})
        del shape
    with atomic(path.with_suffix(".md")) as temporary:
        temporary.write_text(table(rows, card(device), rates), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
