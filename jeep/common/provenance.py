"""Digests of the code that a job runs: it is repeated when its code changes, not when a comment or a message does."""

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
    itself, without its decorators, and what it imports. Comments, formatting, docstrings, annotations and the words of
    errors, logs and progress bars change nothing.
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
    """The syntax tree of an entry, without what only people read."""
    module, _, function = entry.partition(":")
    path = _path(module)
    if path is None:
        raise ValueError(f"no module {module} in this package")
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if function:
        tree = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
        tree.decorator_list = []
    return _Silent().visit(tree)


class _Silent(ast.NodeTransformer):
    """Takes out what only people read: docstrings, annotations of functions, the words of errors, logs and progress."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A line that is a string, or a call of the log."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return None if _called(node.value).startswith("logging.") else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """The kind of an error counts, its words do not; but those of an InvalidFact are kept in a file."""
        if isinstance(node.exc, ast.Call) and _called(node.exc) != "InvalidFact":
            node.exc = node.exc.func
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A progress bar is its iterable."""
        if _called(node) == "tqdm":
            node.keywords = []
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Without its type, which checkers and help texts are made of."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Without the type of what it returns."""
        node.returns = None
        return self.generic_visit(node)


def _called(node: ast.AST) -> str:
    """What a call calls, such as logging.info; nothing for what is no call."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


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
