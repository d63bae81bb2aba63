"""The layout: imports point down, and Snakemake's linter finds nothing but what was decided otherwise."""

import re

from importlinter.cli import lint_imports
from project import snakemake


def test_imports_point_down(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert lint_imports() == 0


def test_snakemakes_linter_finds_only_that_functions_stand_above_the_rules_they_serve(fresh):
    """Which is meant: a rule and what it is told are read together. What several files share is in common.smk."""
    _, output = snakemake(fresh, "--lint", check=False)
    assert set(re.findall(r"^ +\* (.+):$", output, re.MULTILINE)) == {"Mixed rules and functions in same snakefile."}
