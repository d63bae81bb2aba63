"""What a configuration of large models takes: operations, GPU hours and gigabytes, and what each rule's jobs ask for.

Models stand on the meta device, made from their Hugging Face configurations: no weights are needed.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from benchmarks.operations import Needed
from benchmarks.report import replace_table
from jeep.common.settings import UNEDITED
from jeep.common.storage import read_json
from jeep.config.config import Config, load_config
from jeep.config.demands import Demands
from jeep.config.needs import Sizes
from jeep.config.plan import Plan
from jeep.data.facts import Fact, load_facts
from jeep.measure.evaluate import items
from jeep.model.editable import EditableModel
from jeep.model.tokens import Request, load_tokenizer

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Rates:
    """Operations a second that a GPU does in each precision, of those that `Needed` counts."""

    float32: float
    half: float

    def of(self, dtype: str) -> float:
        """The rate of a precision."""
        return self.float32 if dtype == "float32" else self.half


class Scale:
    """A configuration's work on one model."""

    def __init__(self, config: Config, name: str, network, tokenizer: PreTrainedTokenizerBase, prefixes: Sequence[str]):
        self.config, self.name, self.prefixes = config, name, prefixes
        self.model = EditableModel(network, tokenizer)
        self.needed = Needed(self.model)
        self.parameters = sum(parameter.numel() for parameter in network.parameters())

    @property
    def sizes(self) -> Sizes:
        """What the memory of its jobs follows from."""
        return Sizes.configured(self.model.network.config.to_dict(), self.parameters)

    def cells(self) -> Iterator[tuple[str, str, list[int]]]:
        """(data set, method, edit counts) of every run on the model."""
        counts: dict[tuple[str, str], set[int]] = {}
        for grid in self.config.experiment.grids.values():
            if self.name in grid.models:
                for dataset in grid.datasets:
                    for method in grid.methods:
                        numbers = grid.counts(dataset, self.config.experiment.edits)
                        counts.setdefault((dataset, method), set()).update(numbers)
        for (dataset, method), numbers in counts.items():
            yield dataset, method, sorted(numbers)

    def rows(self, facts: Sequence[Fact], rates: Rates) -> Iterator[dict[str, object]]:
        """Operations, hours and bytes of each stage; `facts` stand for all facts."""
        requests = [Request.of(self.model.tokenizer, fact, self.prefixes) for fact in facts]
        asked = {kind: self.needed.evaluation(list(items(facts, kind))) for kind in ("counterfact", "zsre")}
        yield from self.statistics(rates)
        shared = set()
        for dataset, method, counts in self.cells():
            kind = self.config.datasets[dataset].metrics
            dtype, seeds = self.config.models[self.name].dtype, len(self.config.seeds)
            if method != UNEDITED:
                editor = self.config.editor(method, self.name, dataset)
                dtype = editor.dtype or dtype
                spec = editor.spec
                if spec and (dataset, spec.model_dump_json()) not in shared:
                    shared.add((dataset, spec.model_dump_json()))
                    total = self.needed.targets(requests, spec.sites, spec.optimization.steps)
                    per_edit = total / len(facts)
                    yield self.row("target vectors", per_edit * max(counts) * seeds, dtype, rates)
                if editor.placements:
                    total = self.needed.writing([request.prompts for request in requests], editor.placements)
                    yield self.row("writing", total / len(facts) * sum(counts) * seeds, dtype, rates)
                size = sum(self.model.projection(*place).weight.numel() for place in editor.covariances)
                yield self.row("edits", 0.0, dtype, rates, size * 4 * len(counts) * seeds)
            runs = 1 if method == UNEDITED else seeds
            measured = max(counts) if method == UNEDITED else sum(counts)
            yield self.row("evaluation", asked[kind] / len(facts) * measured * runs, dtype, rates)

    def statistics(self, rates: Rates) -> Iterator[dict[str, object]]:
        """One pass over the corpus for all layers that some method edits; and the model's own weights."""
        places = {
            place
            for dataset, method, _ in self.cells()
            if method != UNEDITED
            for place in self.config.editor(method, self.name, dataset).covariances
        }
        entry = self.config.statistics_of(self.name)
        tokens = entry.tokens or (entry.articles or 0) * (entry.length or self.model.positions)
        widths = [self.model.inputs(*place) for place in places]
        passes = tokens * (1 + max(layer for layer, _ in places)) * self.needed.linear
        products = tokens * sum(width**2 for width in widths)
        dtype = entry.dtype or self.config.models[self.name].dtype
        yield self.row("model", 0.0, dtype, rates, self.parameters * BYTES[self.config.models[self.name].dtype])
        yield self.row("covariances", passes + products, dtype, rates, sum(4 * width**2 for width in widths))

    def row(self, stage: str, operations: float, dtype: str, rates: Rates, size: float = 0.0) -> dict[str, object]:
        """One part of a stage."""
        return {
            "model": self.config.models[self.name].label or self.name,
            "stage": stage,
            "10¹⁵ operations": operations / 1e15,
            "GPU hours": operations / rates.of(dtype) / 3600,
            "GB on disk": size / GIGA,
        }


def asked(config: Config, sizes: Mapping[str, Sizes]) -> str:
    """What the largest job of each rule asks for, as Markdown."""
    rows = pd.DataFrame(Demands(Plan(config)).table(sizes))
    rows["model"] = [config.models[name].label or name for name in rows["model"]]
    shown = {"mem_mb": "memory (`mem_mb`)", "runtime": "minutes (`runtime`)"}
    return rows.rename(columns=shown).to_markdown(index=False)


def main() -> int:
    """Count, and write the tables into a Markdown file."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a configuration")
    parser.add_argument("--hf", nargs="+", required=True, help="NAME=TYPE: each model's Hugging Face model_type")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a checkpoint folder, for the tokens of facts")
    parser.add_argument("--facts", type=Path, required=True, help="facts that stand for all, JSON lines")
    parser.add_argument("--prefixes", type=Path, required=True, help="prefixes")
    parser.add_argument("--tera", type=float, nargs=2, default=(9, 90), help="Tflop/s in float32 and half")
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file with places for the tables")
    arguments = parser.parse_args()
    config, tokenizer = load_config(arguments.config), load_tokenizer(arguments.tokenizer)
    facts, rates = load_facts(arguments.facts)[:50], Rates(*(TERA * rate for rate in arguments.tera))
    rows: list[dict[str, object]] = []
    sizes: dict[str, Sizes] = {}
    for name, kind in (item.split("=") for item in arguments.hf):
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind))
        scale = Scale(config, name, network, tokenizer, read_json(arguments.prefixes))
        rows += scale.rows(facts, rates)
        sizes[name] = scale.sizes
    table = pd.DataFrame(rows).groupby(["model", "stage"], sort=False).sum()
    table.loc[("all", ""), :] = table.sum()
    text = table.round(1).reset_index().to_markdown(index=False)
    replace_table(arguments.out, f"{text}\n\nAt {arguments.tera[0]:g} and {arguments.tera[1]:g} Tflop/s.")
    replace_table(arguments.out, asked(config, sizes), "demands")
    sys.stderr.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
