"""Time the package against the plain way on a real model: `make bench`, or `python -m benchmarks --help`.

Both ways run in turn in one process, on the same facts; ratios come from neighbouring runs, with the smallest and the
largest beside the median. Early stopping is off.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from benchmarks import plain
from benchmarks.operations import Needed, spent
from benchmarks.report import write_report
from benchmarks.timing import seconds
from jeep.common.settings import Optimization
from jeep.common.storage import read_json, write_json
from jeep.data.corpus import texts
from jeep.data.facts import Fact
from jeep.editors import load_editor
from jeep.measure.evaluate import evaluate, items
from jeep.model.loading import load_model
from jeep.model.selection import Asking, select
from jeep.model.tokens import Request
from jeep.vectors.targets import Target, optimize
from jeep.vectors.task import Task
from jeep.writing.covariance import covariances, sequences
from jeep.writing.regions import write_regions

REGION = {"clamp": 0.75, "prior": 250}
EDITOR = load_editor(
    "jeep",
    {
        "optimization": {"steps": 30},
        "low": {**REGION, "layers": [6, 7, 8, 9], "spread": "sqrt"},
        "high": {**REGION, "layers": [20, 21, 22], "spread": "even"},
    },
)
PLACES = list(EDITOR.covariances)
LAYERS = [layer for layer, _ in PLACES]
GROWTH_STEPS = 2


def in_turn(plain_way: Callable[[], object], ours: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Seconds of both ways, run in turn."""
    return [(seconds(plain_way), seconds(ours)) for _ in range(rounds)]


def row(what: str, times: Sequence[tuple[float, float]], unit: str, counts: dict[str, float]) -> dict[str, object]:
    """One result: medians, the ratio of neighbours with its spread, and operations."""
    ratios = [plain_way / ours for plain_way, ours in times]
    return {
        "what": what,
        "unit": unit,
        "plain_seconds": statistics.median(plain_way for plain_way, _ in times),
        "ours_seconds": statistics.median(ours for _, ours in times),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        **counts,
    }


class Bench:
    """The measured tasks on one model and one set of facts."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.model = load_model(arguments.model, "float32", "cpu", compiled=arguments.compile)
        self.network = AutoModelForCausalLM.from_pretrained(arguments.model).eval().requires_grad_(False)
        self.prefixes = read_json(arguments.prefixes)
        self.budget, self.rounds = arguments.token_budget, arguments.rounds
        self.needed = Needed(self.model)
        sets = [
            select(path, "jsonl", metrics, Asking(self.model.tokenizer), None, "skip")[0]
            for path, metrics in ((arguments.counterfact, "counterfact"), (arguments.zsre, "zsre"))
        ]
        self.counterfact = sets[0]
        # Half from each data set, in turn.
        self.facts = [fact for pair in zip(*sets, strict=False) for fact in pair]
        self.pool = [self.request(fact) for fact in self.facts[: arguments.pool]]
        self.pool.sort(key=lambda request: request.tokens)
        middle = len(self.pool) / arguments.sample
        self.sample = [self.pool[int((n + 0.5) * middle)] for n in range(arguments.sample)]

    def request(self, fact: Fact) -> Request:
        """A fact's tokenised prompts."""
        return Request.of(self.model.tokenizer, fact, self.prefixes)

    def optimize(self, requests: Sequence[Request], steps: int, budget: int) -> list[Target]:
        """Our target vectors."""
        settings = Optimization(steps=steps)
        return [t for batch in optimize(self.model, requests, EDITOR.sites, settings, budget) for t in batch]

    def plain_target(self, request: Request, steps: int) -> torch.Tensor:
        """The plain way's."""
        return plain.target_vectors(self.network, request, EDITOR.sites, Optimization(steps=steps))[0]

    def operations(self, requests: Sequence[Request], steps: int, budget: int) -> dict[str, float]:
        """Operations an edit: spent (a further step costs what the third does) and needed."""
        one, three = (spent(lambda steps=steps: self.optimize(requests, steps, budget)) for steps in (1, 3))
        return {
            "operations": (one + (steps - 1) * (three - one) / 2) / len(requests),
            "operations_needed": self.needed.targets(requests, EDITOR.sites, steps) / len(requests),
        }

    def targets(self) -> Iterator[dict[str, object]]:
        """Target vectors, one request at a time and in the best batches."""
        steps = EDITOR.optimization.steps
        for request in self.sample:  # torch.compile works at the first shapes it sees
            self.optimize([request], 2, 1)
        self.optimize(self.pool, 2, self.budget)
        alone, together = [], []
        share = -(-len(self.sample) // self.rounds)
        for start in range(0, len(self.sample), share):
            for request in self.sample[start : start + share]:
                alone += in_turn(
                    lambda r=request: self.plain_target(r, steps), lambda r=request: self.optimize([r], steps, 1), 1
                )
            together.append(seconds(lambda: self.optimize(self.pool, steps, self.budget)) / len(self.pool))
        counts = [self.operations([request], steps, 1) for request in self.sample]
        mean = {key: statistics.mean(count[key] for count in counts) for key in counts[0]}
        per_edit = statistics.mean(plain_way for plain_way, _ in alone)
        first = row("targets/batch1", alone, "edit", mean)
        # Requests differ in length, so the ratio is that of the means.
        first |= {"plain_seconds": per_edit, "ours_seconds": statistics.mean(ours for _, ours in alone)}
        yield first | {"ratio": first["plain_seconds"] / first["ours_seconds"]}
        yield row(
            "targets/best",
            [(per_edit, ours) for ours in together],
            "edit",
            self.operations(self.pool, steps, self.budget),
        )

    def growth(self) -> Iterator[dict[str, object]]:
        """Target vectors of more and more edits, with few steps; the plain way is run for a few and extrapolated."""

        def plain_way(count: int) -> float:
            took = (seconds(lambda r=r: self.plain_target(r, GROWTH_STEPS)) for r in self.sample)
            return count * statistics.mean(took)

        for count in self.arguments.growth:
            requests = [self.request(fact) for fact in self.facts[:count]]
            counts = self.operations(requests[:50], GROWTH_STEPS, self.budget)
            counts = {key: value * len(requests) for key, value in counts.items()}
            times = [
                (plain_way(count), seconds(lambda r=requests: self.optimize(r, GROWTH_STEPS, self.budget)))
                for _ in range(self.rounds)
            ]
            result = row(f"targets/{len(requests)}", times, f"{len(requests)} edits, {GROWTH_STEPS} steps", counts)
            yield result | {"plain_extrapolated_from": len(self.sample)}

    def start(self) -> Iterator[dict[str, object]]:
        """A process that loads the model, as every job does that runs it; the plain way by transformers alone."""
        folder = str(self.arguments.model)
        plain_way, ours = (
            [sys.executable, "-c", f"{code}; load({folder!r})"]
            for code in (
                "from transformers import AutoModelForCausalLM as m, AutoTokenizer as t; "
                "load = lambda path: (m.from_pretrained(path), t.from_pretrained(path))",
                "from jeep.model.loading import load_model; load = lambda path: load_model(path, 'float32', 'cpu')",
            )
        )

        def run(command: list[str]) -> None:
            subprocess.run(command, check=True, capture_output=True)

        yield row("start", in_turn(lambda: run(plain_way), lambda: run(ours), self.rounds), "job", {})

    def covariance(self) -> Iterator[dict[str, object]]:
        """Covariances of seven layers; also a bare pass to the top one."""
        corpus = list(sequences(self.model.tokenizer, texts(self.arguments.corpus), 256, self.arguments.tokens))

        def ours() -> dict[int, torch.Tensor]:
            return covariances(self.model, corpus, PLACES, self.budget)

        def bare() -> None:
            for sequence in corpus:
                packing, states = self.model.pack([sequence])
                with torch.no_grad():
                    self.model.run(states, packing, 0, LAYERS[-1])
            for _ in LAYERS:
                for sequence in corpus:
                    keys = torch.ones(len(sequence), self.needed.key_width)
                    torch.matmul(keys.mT, keys)

        self.statistics = ours()
        times = in_turn(lambda: [plain.covariance(self.network, corpus, layer) for layer in LAYERS], ours, self.rounds)
        over = statistics.median(seconds(ours) / seconds(bare) for _ in range(self.rounds))
        counts = {"operations": spent(ours), "operations_needed": self.needed.covariance(corpus, LAYERS)}
        result = row("covariance", times, f"{sum(map(len, corpus))} tokens, {len(LAYERS)} layers", counts)
        yield result | {"ratio_to_bare_pass": over}

    def keys(self) -> Iterator[dict[str, object]]:
        """Keys, current states and the closed form of seven layers."""
        chosen = self.facts[: self.arguments.records]
        requests = [self.request(fact) for fact in chosen]
        task = Task(chosen, self.prefixes, self.budget, self.optimize(requests, 1, self.budget), self.statistics)
        prompts = [request.prompts for request in requests]
        values = [target.values for target in task.targets]

        def ours() -> object:
            return write_regions(self.model, task, EDITOR.placements, pool="mean")

        def plain_way() -> None:
            saved = {name: value.clone() for name, value in self.network.state_dict().items() if "mlp" in name}
            plain.write(self.network, prompts, values, EDITOR.placements, self.statistics)
            self.network.load_state_dict(saved, strict=False)

        counts = {
            "operations": spent(ours),
            "operations_needed": self.needed.writing(prompts, EDITOR.placements),
        }
        yield row("keys", in_turn(plain_way, ours, self.rounds), f"{len(chosen)} edits, {len(LAYERS)} layers", counts)

    def evaluation(self) -> Iterator[dict[str, object]]:
        """CounterFact's metrics."""
        chosen = self.counterfact[: self.arguments.records]

        def plain_way() -> None:
            for fact in chosen:
                asked = [item.encoded(self.model.tokenizer) for item in items([fact], "counterfact")]
                plain.score(self.network, [list(prompt) for prompt, _ in asked], [answers for _, answers in asked])

        def ours() -> object:
            return evaluate(self.model, chosen, "counterfact", self.budget)

        needed = self.needed.evaluation(list(items(chosen, "counterfact")))
        counts = {"operations": spent(ours), "operations_needed": needed}
        yield row("evaluation", in_turn(plain_way, ours, self.rounds), f"{len(chosen)} records", counts)


def machine() -> dict[str, object]:
    """The machine, and the rate of its matrix products: float32, sizes of a large batch of SmolLM2."""
    left, right = torch.randn(1024, 576), torch.randn(576, 1536)
    repeats = 100
    rate = max(
        2.0 * repeats * 1024 * 576 * 1536 / seconds(lambda: [left @ right for _ in range(repeats)]) for _ in "abc"
    )
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "operations_per_second": rate,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []


def main() -> int:
    """Run the benchmark; write the results as JSON and as a table of the README."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--prefixes", type=Path, required=True, help="prefixes of the model")
    parser.add_argument("--counterfact", type=Path, required=True, help="facts with counterfactual answers, JSON lines")
    parser.add_argument("--zsre", type=Path, required=True, help="facts as questions, JSON lines")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus, JSON lines")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--readme", type=Path, default=None, help="a file whose table of results is written anew")
    parser.add_argument("--pool", type=int, default=16, help="requests of the best batch")
    parser.add_argument("--sample", type=int, default=6, help="of them, requests run the plain way")
    parser.add_argument("--records", type=int, default=6, help="facts written and evaluated")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of the covariances")
    parser.add_argument("--growth", type=int, nargs="*", default=[1, 10, 100, 1000], help="numbers of edits")
    parser.add_argument("--token-budget", type=int, default=2048, help="most tokens in one forward pass")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="through torch.compile")
    parser.add_argument("--rounds", type=int, default=3, help="times each task is measured")
    arguments = parser.parse_args()
    bench, results = Bench(arguments), []
    tasks = (bench.start, bench.covariance, bench.keys, bench.evaluation, bench.targets, bench.growth)
    for task in tqdm(tasks, unit="task"):
        for result in task():
            sys.stderr.write(json.dumps(result) + "\n")
            results.append(result)
    write_json(arguments.out, results)
    write_json(arguments.out.with_name("machine.json"), machine())
    if arguments.readme:
        write_report(arguments.out, arguments.readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
