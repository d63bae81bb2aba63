"""The layout: imports point down, and Snakemake's linter finds nothing but what was decided otherwise."""

import re
from collections import Counter

from importlinter.cli import lint_imports
from project import snakemake


def test_imports_point_down(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert lint_imports() == 0


def test_snakemakes_linter_finds_only_that_functions_stand_above_the_rules_they_serve(fresh):
    """Which is meant: a rule and what it is told are read together. What several files share is in common.smk."""
    _, output = snakemake(fresh, "--lint", check=False)
    assert set(re.findall(r"^ +\* (.+):$", output, re.MULTILINE)) == {"Mixed rules and functions in same snakefile."}


def test_no_two_test_files_have_one_name(request):
    """pytest imports each by its name: of two it collects one, or says that the other is a mismatch."""
    names = Counter(path.name for path in (request.config.rootpath / "tests").rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []
