"""Stages of the probes, and their figures.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

import logging
from pathlib import Path

from jeep.stages.options import (
    Backend,
    Checkpoint,
    Corpus,
    Covariances,
    Facts,
    Figure,
    Files,
    Json,
    Limit,
    Norm,
    Out,
    Seed,
    Source,
    Title,
)


def probe_contrast(*, checkpoint: Checkpoint, facts: Facts, limit: Limit = None, norm: Norm = True, out: Out) -> None:
    """Read probability and rank of original and new answers from every layer (Figure 2), one row for each."""
    from jeep.common.storage import atomic
    from jeep.data.facts import load_facts
    from jeep.probes.contrast import contrast

    table = contrast(checkpoint.load(), load_facts(facts)[:limit], norm, checkpoint.token_budget)
    with atomic(out) as temporary:
        table.to_parquet(temporary, index=False)


def probe_prompt(*, checkpoint: Checkpoint, facts: Facts, number: int = 1, norm: Norm = True, out: Out) -> None:
    """Read the original answer's probability and rank at every token of one prompt from every layer (Figure 1).

    Args:
        number: which fact, counted from 1
    """
    from jeep.common.errors import UserError
    from jeep.common.storage import atomic
    from jeep.data.facts import load_facts
    from jeep.probes.contrast import flow_of

    loaded = load_facts(facts)
    if not 1 <= number <= len(loaded):
        raise UserError(f"{facts}: there is no fact number {number}, it has {len(loaded)}")
    fact = loaded[number - 1]
    table = flow_of(checkpoint.load(), fact, norm)
    with atomic(out) as temporary:
        table.assign(answer=fact.target_true).to_csv(temporary, index=False)


def regions(*, contrast: Path, low: int = 6, high: int = 3, edited: Json | None = None, out: Out) -> None:
    """Propose regions to edit from the contrast probe.

    Args:
        contrast: results of the stage `probe-contrast`
        low: most layers of the low region
        high: most layers of the high region
        edited: regions that are edited, to stand beside, as JSON
    """
    import pandas as pd

    from jeep.common.storage import write_json
    from jeep.probes.proposal import propose_regions

    write_json(out, propose_regions(pd.read_parquet(contrast), low, high) | {"edited": edited or {}})


def search_index(*, corpus: Corpus, backend: Backend, out: Out) -> None:
    """Make a search index of the corpus's paragraphs."""
    from jeep.common.storage import read_jsonl
    from jeep.probes.retrieval import build_index

    build_index(read_jsonl(corpus), backend, out)


def related_words(
    *, facts: Facts, limit: Limit = None, index: Path, backend: Backend, paragraphs: int = 100, out: Out
) -> None:
    """Find the paragraphs about each fact's subject by BM25, and their words.

    Args:
        index: as the stage `search-index` wrote it
        paragraphs: the best N for each fact
    """
    from tqdm import tqdm

    from jeep.common.storage import write_jsonl
    from jeep.data.facts import load_facts
    from jeep.probes.retrieval import BACKENDS
    from jeep.probes.word_sets import related_words as related

    found = BACKENDS[backend](index)
    chosen = tqdm(load_facts(facts)[:limit], desc="paragraphs", unit="fact", mininterval=2)
    write_jsonl(out, (related(fact, found, paragraphs) for fact in chosen))


def fact_lists(
    *,
    facts: Facts,
    limit: Limit = None,
    source: Source,
    triples: Path | None = None,
    candidates: int = 50,
    cache: Path = Path("results/fact-lists"),
    seed: Seed = 0,
    out: Out,
) -> None:
    """List facts about each subject and each relation, from a knowledge base or a language model.

    Args:
        triples: triples.jsonl of demo-facts, for a knowledge base
        candidates: of each subject and relation
        cache: where a language model's answers are kept
    """
    from jeep.common.storage import read_jsonl, write_jsonl
    from jeep.data.facts import load_facts
    from jeep.data.sources import parse_source
    from jeep.probes.fact_lists import KnowledgeBase, questions, require_lists, summary

    chosen = load_facts(facts)[:limit]
    origin = parse_source(source)
    if origin.kind == "openai":
        from jeep.probes.openai_lists import OpenAILists

        lists = OpenAILists(origin, candidates, cache)
    else:
        known = [(row["subject"], row["relation"], row["object"]) for row in read_jsonl(triples)]
        lists = KnowledgeBase(known, chosen, candidates, seed)
    rows = lists.rows(questions(chosen))
    logging.info("fact lists: %s", ", ".join(f"{count} {status}" for status, count in summary(rows).items()))
    if origin.kind == "openai":
        require_lists(rows, origin.missing)
    write_jsonl(out, rows)


def probe_words(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    limit: Limit = None,
    related: Path,
    lists: Path,
    norm: Norm = True,
    overlaps: Path,
    out: Out,
) -> None:
    """Read the summed probability and mean rank of word sets from every layer (Figure 5).

    Args:
        related: results of the stage `related-words`
        lists: results of the stage `fact-lists`
        overlaps: where the sets' common tokens are listed
    """
    from jeep.common.storage import atomic, read_jsonl
    from jeep.data.facts import load_facts
    from jeep.probes.fact_lists import candidates_of, phrases
    from jeep.probes.word_sets import probe_words as probe
    from jeep.probes.word_sets import word_sets

    chosen = load_facts(facts)[:limit]
    words = {row["case_id"]: row["words"] for row in read_jsonl(related)}
    candidates = candidates_of(read_jsonl(lists))
    sets = [word_sets(fact, words[fact.case_id], phrases(fact, candidates)) for fact in chosen]
    table, shared = probe(checkpoint.load(), chosen, sets, norm, checkpoint.token_budget)
    for path, content in ((out, table), (overlaps, shared)):
        with atomic(path) as temporary:
            content.to_parquet(temporary, index=False)


def prompt_figure(*, table: Path, title: Title, out: Figure) -> None:
    """Draw Figure 1: one prompt's information flow through layers and positions.

    Args:
        table: results of the stage `probe-prompt`
    """
    from jeep.report.figures.probes import draw_prompt

    draw_prompt(table, title, out)


def contrast_figure(*, table: Path, regions: Path, title: Title, out: Figure) -> None:
    """Draw Figure 2: original and new answers through the layers, at both positions.

    Args:
        table: results of the stage `probe-contrast`
        regions: results of the stage `regions`
    """
    from jeep.report.figures.probes import draw_contrast

    draw_contrast(table, regions, title, out)


def contributions_figure(*, table: Path, title: Title, out: Figure) -> None:
    """Draw what every block's MLP and attention add to both answers, from the contrast probe.

    Args:
        table: results of the stage `probe-contrast`
    """
    from jeep.report.figures.probes import draw_contributions

    draw_contributions(table, title, out)


def words_figure(*, table: Path, title: Title, out: Figure) -> None:
    """Draw Figure 5: word sets through the layers.

    Args:
        table: results of the stage `probe-words`
    """
    from jeep.report.figures.probes import draw_words

    draw_words(table, title, out)


def leaks(
    *,
    checkpoint: Checkpoint,
    facts: Facts,
    limit: Limit = None,
    neighbours: Path,
    covariance: Covariances,
    prior: float,
    out: Out,
) -> None:
    """Foretell from keys alone how much of an edit would reach neighbours, for every W_O with a covariance.

    Args:
        neighbours: subjects of neighbours, as the stage `neighbours` wrote them
        prior: λ of the closed form
    """
    from jeep.common.storage import atomic, read_json
    from jeep.data.facts import load_facts
    from jeep.writing.covariance import read_covariances
    from jeep.writing.leaks import key_leaks

    model, chosen = checkpoint.load(), load_facts(facts)[:limit]
    found = read_covariances(covariance, model)
    table = key_leaks(model, chosen, read_json(neighbours), found, prior, checkpoint.token_budget)
    with atomic(out) as temporary:
        table.to_csv(temporary, index=False)


def leak_costs_figure(*, table: Path, searches: Files, title: Title, out: Figure) -> None:
    """Draw the leak by layer, and locality over what leaked of edits whose high region was moved.

    Args:
        table: results of the stage `leaks`
        searches: results of the stage `search` over the layers of each region
    """
    from jeep.report.figures.leaks import draw_leak_costs

    draw_leak_costs(table, searches, title, out)


def placement_figure(*, searches: Files, configured: Json, regions: Path, title: Title, out: Figure) -> None:
    """Draw Score by the layers of a region, from searches, beside what the contrast probe proposes.

    Args:
        searches: results of the stage `search` over the layers of each region
        configured: the layers of the first draw, by setting, as JSON
        regions: results of the stage `regions`
    """
    from jeep.report.figures.probes import draw_placement

    draw_placement(dict(zip(configured, searches, strict=True)), configured, regions, title, out)
