"""Commands for one's own model: edit facts in it, check a file of facts, clear what was kept. No rule runs them."""

import logging
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from jeep.common.settings import Dtype
from jeep.data.facts import Format
from jeep.stages.options import Json, Out, Seed

ModelName = Annotated[str, Parameter(help="checkpoint folder, or repository of the Hugging Face hub")]
FactsFile = Annotated[Path, Parameter(help="file of facts")]
Form = Annotated[Format | None, Parameter(name="--format", help="format of the file (default: by its ending)")]
Revision = Annotated[str | None, Parameter(help="branch, tag or commit of the repository")]


def edit_facts(
    model: ModelName,
    facts: FactsFile,
    *,
    method: Literal["jeep", "memit", "pmet", "rome", "ft-wd"] = "jeep",
    settings: Json | None = None,
    regions: Literal["probe"] | None = None,
    format: Form = None,
    on_invalid: Literal["error", "skip"] = "error",
    text: Path | None = None,
    tokens: int | None = None,
    dtype: Dtype | Literal["auto"] = "auto",
    device: str = "auto",
    revision: Revision = None,
    token_budget: int = 2048,
    seed: Seed = 0,
    report: Path | None = None,
    out: Out,
) -> None:
    """Edit facts in a model, say what took and what did not, and save the edited checkpoint.

    Args:
        settings: replace some of the method's settings for this model, as JSON
        regions: take JEEP's layers from the contrast probe on these facts
        on_invalid: stop at a record that cannot be used, or leave it out
        text: text for the covariances, JSON lines or plain (default: leads of Wikipedia)
        tokens: of that text (default: ten for each input of W_O)
        dtype: precision (default: the checkpoint's on an accelerator, float32 on a CPU)
        device: auto, cpu, cuda, ...
        token_budget: most tokens in one forward pass
        report: an HTML page about every prompt
    """
    from jeep.api import edit, load
    from jeep.common.errors import UserError

    if not facts.expanduser().is_file():
        raise UserError(f"{facts}: no such file")
    done = edit(
        load(model, dtype=dtype, device=device, revision=revision),
        facts,
        method,
        settings=settings,
        regions=regions,
        text=text,
        tokens=tokens,
        form=format,
        on_invalid=on_invalid,
        seed=seed,
        token_budget=token_budget,
    )
    for row in done.refused:
        logging.warning("record %s left out: %s", row["case_id"], row["reason"])
    logging.info("%s", done)
    logging.info("saved in %s", done.save(out))
    if report is not None:
        logging.info("report in %s", done.report(report))


def check_facts(facts: FactsFile, *, model: ModelName, format: Form = None, revision: Revision = None) -> None:
    """Say what is wrong with a file of facts for a model's tokenizer, before anything runs."""
    from jeep.api.facts import check_facts as check
    from jeep.api.facts import contradictions
    from jeep.api.models import folder_of
    from jeep.common.errors import UserError
    from jeep.model.tokens import load_tokenizer

    usable, refused = check(facts, load_tokenizer(folder_of(model, revision, weights=False)), format)
    for row in refused:
        logging.warning("record %s: %s", row["case_id"], row["reason"])
    for one, other in contradictions(usable).items():
        logging.warning("record %s: contradicted by record %s", one, other)
    if refused:
        raise UserError(f"{facts}: {len(refused)} of {len(usable) + len(refused)} records cannot be used")
    logging.info("%s: all %d records can be edited", facts, len(usable))


def clear_cache() -> None:
    """Remove the texts and covariances that were kept for one's own models."""
    import shutil

    from jeep.api.statistics import cache_folder

    folder = cache_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    logging.info("removed %s (%.0f MB)", folder, size / 1e6)
