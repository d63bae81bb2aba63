"""REPORT.md: a run in five minutes, from a template and its results."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from jeep.common.storage import atomic
from jeep.report.claims import families
from jeep.report.texts import render

_PACKAGES = ("torch", "transformers", "snakemake", "numpy", "pandas")
TEMPLATE = Path(__file__).with_name("report.md.jinja")


def write_report(
    about: Mapping[str, Any],
    facts: Sequence[Path],
    tables: Sequence[Path],
    figures: Sequence[Path],
    claims: Path,
    out: Path,
    template: Path | None = None,
) -> None:
    """Render the template: what was run and with what, which claims hold, tables, figures by relative links.

    `about` holds the run's title, edits, seeds, presets and the sources of its models and data; `facts` are the
    edited facts, whose digests are given. The template is the package's own where there is none.
    """
    found = pd.read_csv(claims, keep_default_na=False)
    whose = families(found)
    paper = found[whose == "paper"]
    text = render(
        template or TEMPLATE,
        about=about,
        digests={"/".join(path.with_suffix("").parts[-2:]): _digest(path) for path in facts},
        versions={name: version(name) for name in _PACKAGES},
        tables={path.stem: path.read_text(encoding="utf-8").strip() for path in tables},
        claims=paper.to_dict("records"),
        ours=found[whose == "ours"].to_dict("records"),
        later=found[whose == "later"].to_dict("records"),
        beyond=found[whose == "beyond"].to_dict("records"),
        verdicts=paper["verdict"].value_counts().to_dict(),
        corrected=paper["corrected"].value_counts().to_dict(),
        figures={path.stem: os.path.relpath(path, out.parent) for path in figures},
    )
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
