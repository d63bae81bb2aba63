"""Stages of the probes, and their figures.

Each is a thin function from files to files, with the options of its command. It imports what it needs inside, so that
its code digest covers its own modules and no others.
"""

import argparse
import json
import logging
from pathlib import Path

from jeep.stages.options import BACKEND, CORPUS, FACTS, FIGURE, LIMIT, NORM, OUT, SEED, SOURCE, TITLE, stage


@stage(checkpoint=True, facts=FACTS, limit=LIMIT, norm=NORM, out=OUT)
def probe_contrast(args: argparse.Namespace) -> None:
    """Read probability and rank of original and new answers from every layer (Figure 2), one row for each."""
    from jeep.common.storage import atomic
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.probes.contrast import contrast

    model = load_model(args.model, args.dtype, args.device)
    table = contrast(model, load_facts(args.facts)[: args.limit], args.norm, args.token_budget)
    with atomic(args.out) as temporary:
        table.to_parquet(temporary, index=False)


@stage(
    checkpoint=True,
    facts=FACTS,
    number={"type": int, "default": 1, "help": "which fact, counted from 1"},
    norm=NORM,
    out=OUT,
)
def probe_prompt(args: argparse.Namespace) -> None:
    """Read the original answer's probability and rank at every token of one prompt from every layer (Figure 1)."""
    from jeep.common.errors import UserError
    from jeep.common.storage import atomic
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.probes.contrast import flow_of

    facts = load_facts(args.facts)
    if not 1 <= args.number <= len(facts):
        raise UserError(f"{args.facts}: there is no fact number {args.number}, it has {len(facts)}")
    fact = facts[args.number - 1]
    table = flow_of(load_model(args.model, args.dtype, args.device), fact, args.norm)
    with atomic(args.out) as temporary:
        table.assign(answer=fact.target_true).to_csv(temporary, index=False)


@stage(
    contrast={"help": "results of the stage `probe-contrast`"},
    low={"type": int, "default": 6, "help": "most layers of the low region"},
    high={"type": int, "default": 3, "help": "most layers of the high region"},
    edited={"type": json.loads, "default": {}, "help": "regions that are edited, to stand beside, as JSON"},
    out=OUT,
)
def regions(args: argparse.Namespace) -> None:
    """Propose regions to edit from the contrast probe."""
    import pandas as pd

    from jeep.common.storage import write_json
    from jeep.probes.proposal import propose_regions

    proposed = propose_regions(pd.read_parquet(args.contrast), args.low, args.high)
    write_json(args.out, proposed | {"edited": args.edited})


@stage(corpus=CORPUS, backend=BACKEND, out=OUT)
def search_index(args: argparse.Namespace) -> None:
    """Make a search index of the corpus's paragraphs."""
    from jeep.common.storage import read_jsonl
    from jeep.probes.retrieval import build_index

    build_index(read_jsonl(args.corpus), args.backend, args.out)


@stage(
    facts=FACTS,
    limit=LIMIT,
    index={"help": "index, as the stage `search-index` wrote it"},
    backend=BACKEND,
    paragraphs={"type": int, "default": 100, "help": "the best N for each fact"},
    out=OUT,
)
def related_words(args: argparse.Namespace) -> None:
    """Find the paragraphs about each fact's subject by BM25, and their words."""
    from tqdm import tqdm

    from jeep.common.storage import write_jsonl
    from jeep.data.facts import load_facts
    from jeep.probes.retrieval import BACKENDS
    from jeep.probes.word_sets import related_words as related

    index = BACKENDS[args.backend](args.index)
    facts = tqdm(load_facts(args.facts)[: args.limit], desc="paragraphs", unit="fact", mininterval=2)
    write_jsonl(args.out, (related(fact, index, args.paragraphs) for fact in facts))


@stage(
    facts=FACTS,
    limit=LIMIT,
    source=SOURCE,
    triples={"default": None, "help": "triples.jsonl of demo-facts, for a knowledge base"},
    candidates={"type": int, "default": 50, "help": "of each subject and relation"},
    cache={"default": Path("results/fact-lists"), "help": "where a language model's answers are kept"},
    seed=SEED,
    out=OUT,
)
def fact_lists(args: argparse.Namespace) -> None:
    """List facts about each subject and each relation, from a knowledge base or a language model."""
    from jeep.common.storage import read_jsonl, write_jsonl
    from jeep.data.facts import load_facts
    from jeep.data.sources import parse_source
    from jeep.probes.fact_lists import KnowledgeBase, questions, summary

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


@stage(
    checkpoint=True,
    facts=FACTS,
    limit=LIMIT,
    related={"help": "results of the stage `related-words`"},
    lists={"help": "results of the stage `fact-lists`"},
    norm=NORM,
    overlaps={"help": "where the sets' common tokens are listed"},
    out=OUT,
)
def probe_words(args: argparse.Namespace) -> None:
    """Read the summed probability and mean rank of word sets from every layer (Figure 5)."""
    from jeep.common.storage import atomic, read_jsonl
    from jeep.data.facts import load_facts
    from jeep.model.editable import load_model
    from jeep.probes.fact_lists import candidates_of, phrases
    from jeep.probes.word_sets import probe_words as probe
    from jeep.probes.word_sets import word_sets

    facts = load_facts(args.facts)[: args.limit]
    related = {row["case_id"]: row["words"] for row in read_jsonl(args.related)}
    candidates = candidates_of(read_jsonl(args.lists))
    sets = [word_sets(fact, related[fact.case_id], phrases(fact, candidates)) for fact in facts]
    model = load_model(args.model, args.dtype, args.device)
    table, overlaps = probe(model, facts, sets, args.norm, args.token_budget)
    for path, content in ((args.out, table), (args.overlaps, overlaps)):
        with atomic(path) as temporary:
            content.to_parquet(temporary, index=False)


@stage(table={"help": "results of `probe-prompt`"}, title=TITLE, out=FIGURE)
def prompt_figure(args: argparse.Namespace) -> None:
    """Draw Figure 1: one prompt's information flow through layers and positions."""
    from jeep.report.figures.probes import draw_prompt

    draw_prompt(args.table, args.title, args.out)


@stage(table={"help": "results of `probe-contrast`"}, regions={"help": "results of `regions`"}, title=TITLE, out=FIGURE)
def contrast_figure(args: argparse.Namespace) -> None:
    """Draw Figure 2: original and new answers through the layers, at both positions."""
    from jeep.report.figures.probes import draw_contrast

    draw_contrast(args.table, args.regions, args.title, args.out)


@stage(table={"help": "results of `probe-contrast`"}, title=TITLE, out=FIGURE)
def contributions_figure(args: argparse.Namespace) -> None:
    """Draw what every block's MLP and attention add to both answers, from the contrast probe."""
    from jeep.report.figures.probes import draw_contributions

    draw_contributions(args.table, args.title, args.out)


@stage(table={"help": "results of `probe-words`"}, title=TITLE, out=FIGURE)
def words_figure(args: argparse.Namespace) -> None:
    """Draw Figure 5: word sets through the layers."""
    from jeep.report.figures.probes import draw_words

    draw_words(args.table, args.title, args.out)


@stage(
    searches={"nargs": "+", "help": "results of `tune` over the layers of each region"},
    configured={"type": json.loads, "help": "the layers of the first draw, by setting, as JSON"},
    regions={"help": "results of `regions`"},
    title=TITLE,
    out=FIGURE,
)
def placement_figure(args: argparse.Namespace) -> None:
    """Draw Score by the layers of a region, from searches, beside what the contrast probe proposes."""
    from jeep.report.figures.probes import draw_placement

    searches = dict(zip(args.configured, args.searches, strict=True))
    draw_placement(searches, args.configured, args.regions, args.title, args.out)
