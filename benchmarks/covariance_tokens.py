"""How much text covariances need: the metrics of the same edit over the number of tokens they were estimated from.

python -m benchmarks.covariance_tokens --help
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import seaborn as sns

from benchmarks.report import replace_table
from jeep.common.storage import atomic
from jeep.config.config import load_config
from jeep.data.corpus import sampled_texts
from jeep.data.facts import load_facts
from jeep.model.loading import load_model
from jeep.tuning.bench import Bench, DevelopmentSet
from jeep.vectors.prefixes import sample_prefixes
from jeep.writing.covariance import covariances, sequences

LENGTH, TOKEN_BUDGET = 256, 2048


def measure(arguments: argparse.Namespace) -> pd.DataFrame:
    """A row for each method and number of tokens. Target vectors, which need no covariance, are optimised once."""
    config, model = load_config(arguments.config), load_model(arguments.checkpoint, device=arguments.device)
    facts = load_facts(arguments.facts)[: arguments.edits]
    measured = DevelopmentSet(arguments.dataset, facts, config.datasets[arguments.dataset].metrics)
    editors = {method: config.editor(method, arguments.model, arguments.dataset) for method in arguments.methods}
    prefixes = {method: sample_prefixes(model, 0, editor.prefix_kinds) for method, editor in editors.items()}
    places = sorted({place for editor in editors.values() for place in editor.covariances})
    inputs = max(model.inputs(*place) for place in places)
    targets, rows = {}, []
    for number in arguments.tokens:
        texts = sampled_texts(arguments.corpus, None, 0)
        tokens = int(number * inputs)
        sampled = list(sequences(model.tokenizer, texts, LENGTH, tokens))
        covariance = covariances(model, sampled, places, TOKEN_BUDGET)
        for method, editor in editors.items():
            bench = Bench(model, [measured], prefixes[method], covariance, TOKEN_BUDGET)
            if method not in targets:
                targets[method] = bench.prepare(editor, [facts], 0)[0][0]
            found = bench.score(editor, facts, measured, targets[method], {})
            label = config.methods[method].label or method
            rows.append({"method": label, "tokens per input": number, "tokens": tokens, **found})
            sys.stderr.write(f"{rows[-1]}\n")
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, out: Path) -> None:
    """Score over tokens for each input of W_O, with its 95 % half-width."""
    grid = sns.relplot(table, x="tokens per input", y="Score", hue="method", style="method", markers=True, kind="line")
    for _, rows in table.groupby("method", sort=False):
        low, high = rows["Score"] - rows["ci95"], rows["Score"] + rows["ci95"]
        grid.ax.fill_between(rows["tokens per input"], low, high, alpha=0.15)
    grid.set(xscale="log", ylim=(0, 100))
    with atomic(out) as temporary:
        grid.savefig(temporary, dpi=150)


def main() -> int:
    """Measure, draw, and write the table into a Markdown file."""
    parser = argparse.ArgumentParser(prog="benchmarks.covariance_tokens", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a configuration, for the methods' settings")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--dataset", required=True, help="the data set's name there")
    parser.add_argument("--methods", nargs="+", default=["jeep", "memit"], help="methods")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the model's folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--facts", type=Path, required=True, help="facts to edit, JSON lines")
    parser.add_argument("--edits", type=int, default=50, help="how many of them")
    parser.add_argument("--corpus", type=Path, required=True, help="text, JSON lines")
    parser.add_argument("--tokens", type=float, nargs="+", default=[1, 2, 5, 10, 30, 100], help="for each input")
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file with a place for the table")
    parser.add_argument("--figure", type=Path, required=True, help="a PNG")
    arguments = parser.parse_args()
    table = measure(arguments)
    draw(table, arguments.figure)
    replace_table(arguments.out, table.to_markdown(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
