"""Commands for one's own model: edit facts, search settings, check a file, clear what was kept. No rule runs them."""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from jeep.common.settings import Dtype
from jeep.data.formats import Format
from jeep.stages.options import JsonOrFile, Out, Seed

if TYPE_CHECKING:
    from jeep.model.editable import EditableModel

ModelName = Annotated[str, Parameter(help="checkpoint folder, or repository of the Hugging Face hub")]
FactsFile = Annotated[Path, Parameter(help="file of facts")]
Form = Annotated[Format | None, Parameter(name="--format", help="format of the records (default: by their fields)")]
Revision = Annotated[str | None, Parameter(help="branch, tag or commit of the repository")]
Method = Literal["jeep", "memit", "pmet", "rome", "ft-wd"]


@Parameter(name="*")
@dataclass(frozen=True)
class OwnModel:
    """A model from anywhere, and how it is run."""

    model: ModelName
    _: KW_ONLY
    revision: Revision = None
    dtype: Dtype | Literal["auto"] = "auto"
    """precision (default: the checkpoint's on an accelerator, float32 on a CPU)"""
    device: str = "auto"
    """auto, cpu, cuda, ..., or balanced: spread over all accelerators, memory and disk"""

    def load(self) -> EditableModel:
        """The model."""
        from jeep.api import load

        return load(self.model, dtype=self.dtype, device=self.device, revision=self.revision)


@Parameter(name="*")
@dataclass(frozen=True)
class OwnFacts:
    """Facts, and what they are written with."""

    facts: FactsFile
    _: KW_ONLY
    format: Form = None
    on_invalid: Literal["error", "skip"] = "error"
    """stop at a record that cannot be used, or leave it out"""
    chat: bool = False
    """ask each prompt as the user's turn of the tokenizer's chat template"""
    text: Path | None = None
    """text for the covariances, JSON lines or plain (default: leads of Wikipedia)"""
    tokens: int | None = None
    """of that text (default: ten for each input of W_O)"""
    token_budget: int = 2048
    """most tokens in one forward pass"""
    seed: Seed = 0

    def options(self) -> dict[str, Any]:
        """As `jeep.edit` and `jeep.tune` take them. Raises UserError before a model is loaded in vain."""
        from jeep.common.errors import UserError

        if not self.facts.expanduser().is_file():
            raise UserError(f"{self.facts}: no such file")
        given = asdict(self)
        given["form"] = given.pop("format")
        return given


def edit_facts(
    source: OwnModel,
    given: OwnFacts,
    *,
    method: Method = "jeep",
    settings: JsonOrFile | None = None,
    regions: Literal["probe"] | None = None,
    neighbours: Path | None = None,
    damage: bool = False,
    report: Path | None = None,
    out: Out,
) -> None:
    """Edit facts in a model, say what took and what did not, and save the edited checkpoint.

    Args:
        settings: replace some of the method's settings for this model: JSON, or a file of it such as `tune` writes
        regions: take JEEP's layers from the contrast probe on these facts
        neighbours: file of facts of the same relations that are neither edited nor asked about; settings may spare them
        damage: ask what else has changed: free answers, and perplexity and drift on text that was not used
        report: an HTML page about every prompt, and about this
    """
    from jeep.api import edit

    options = given.options()
    model = source.load()
    done = edit(model, method=method, settings=settings, regions=regions, neighbours=neighbours, **options)
    for row in done.refused:
        logging.warning("record %s left out: %s", row["case_id"], row["reason"])
    logging.info("%s", done)
    logging.info("saved in %s", done.save(out))
    if damage:
        logging.info("%s", done.damage(token_budget=given.token_budget).to_string(index=False))
    if report is not None:
        logging.info("report in %s", done.report(report))


def tune(
    source: OwnModel,
    given: OwnFacts,
    *,
    method: Method = "jeep",
    space: JsonOrFile | None = None,
    draws: int = 6,
    variants: int = 4,
    finalists: int = 3,
    out: Out,
) -> None:
    """Search a method's settings for a model, on facts like those to edit but none of them.

    Args:
        space: values to try by the path of a setting: JSON, or a file of it (default: around the usual ones)
        draws: draws of the settings that target vectors depend on
        variants: draws of the others, for each of them
        finalists: how many of the best are tried on other facts
    """
    from jeep.api import tune as search
    from jeep.common.errors import UserError
    from jeep.common.storage import atomic, unfinished, write_json

    options, table = given.options(), out.with_suffix(".csv")
    if table == out:
        raise UserError(f"{out}: settings are JSON; all trials are put beside them as CSV")
    notes = unfinished(out.with_suffix(".jsonl"))
    tried = {"space": space, "draws": draws, "variants": variants, "finalists": finalists}
    found = search(source.load(), method=method, notes=notes, **tried, **options)
    with atomic(table) as temporary:
        found.trials.to_csv(temporary, index=False)
    write_json(out, found.settings)
    notes.unlink()
    logging.info("%s\n%s", found, found.trials.to_string(index=False))
    logging.info("settings in %s, all trials in %s", out, table)


def check_facts(
    facts: FactsFile, *, model: ModelName, format: Form = None, revision: Revision = None, chat: bool = False
) -> None:
    """Say what is wrong with a file of facts for a model's tokenizer, before anything runs.

    Args:
        chat: ask each prompt as the user's turn of the tokenizer's chat template
    """
    from jeep.api.facts import check_facts as check
    from jeep.api.models import folder_of
    from jeep.common.errors import UserError
    from jeep.model.bounds import Bounds
    from jeep.model.selection import Asking, contradictions
    from jeep.model.tokens import load_tokenizer

    folder = folder_of(model, revision, weights=False)
    asking = Asking(load_tokenizer(folder), Bounds.in_folder(folder), chat=chat)
    usable, refused = check(facts, asking, format)
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
