"""Digests of the code a job runs, so that Snakemake repeats a job when its code changes and not when a comment does."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[1]


@cache
def code_digest(*entries: str) -> str:
    """Digest of the syntax trees of modules of this package and of all modules of it that they import.

    An entry is a module ("jeep.vectors.targets") or a function of one ("jeep.stages.edit:targets"), which stands for
    itself, without its decorators, and what it imports. Comments, formatting and docstrings change nothing.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    todo = list(entries)
    while todo:
        entry = todo.pop()
        if entry in seen:
            continue
        seen.add(entry)
        todo += _imports(entry)
    for entry in sorted(seen):
        digest.update(f"{entry}\n{ast.dump(_tree(entry))}\n".encode())
    return digest.hexdigest()[:16]


def _path(module: str) -> Path | None:
    """The file of a module of this package; None for anything else."""
    parts = module.split(".")
    if parts[0] != _ROOT.name:
        return None
    base = _ROOT.joinpath(*parts[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _tree(entry: str) -> ast.AST:
    """The syntax tree of an entry, without docstrings."""
    module, _, function = entry.partition(":")
    path = _path(module)
    if path is None:
        raise ValueError(f"no module {module} in this package")
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if function:
        tree = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
        tree.decorator_list = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]
    return tree


def _is_text(line: ast.AST) -> bool:
    """A docstring, of a module, a function or a field."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


@cache
def _imports(entry: str) -> tuple[str, ...]:
    """The modules of this package that an entry imports, anywhere in it."""
    return tuple(name for name in _imported_names(_tree(entry)) if _path(name))


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
