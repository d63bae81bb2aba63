"""Files that appear whole or not at all; safetensors and JSON lines; content digests."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, TextIO

from jeep.common.errors import UserError

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""A disk or a quota that is full, a file that grows too large, a file system that is read-only."""


@contextmanager
def written(path: Path | str) -> Iterator[None]:
    """A full disk, or one that may not be written, is a UserError that names `path`, whatever in the block says so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of safetensors and shutil only the text says what the operating system has
        number, text = getattr(error, "errno", None), str(error)
        reason = next((os.strerror(each) for each in _REFUSED if each == number or os.strerror(each) in text), None)
        if reason is None:
            raise
        raise UserError(f"{path}: cannot be written ({reason})") from error


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block ends without an exception.

    What the block writes may be a file or a folder. After an exception nothing is left of it. Raises UserError where
    the disk is full or may not be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with written(path):
            yield scratch / path.name
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def clear_scratch(path: Path) -> None:
    """Remove what a killed process has left of `path`; no other may be writing it."""
    for scratch in path.parent.glob(f".{escape(path.name)}.{'?' * 8}"):
        shutil.rmtree(scratch, ignore_errors=True)


def unfinished(path: Path) -> Path:
    """Where a long job keeps what it has done of a file, beside it."""
    return path.with_name(f".{path.stem}.checkpoint{path.suffix}")


def write_json(path: Path | str, value: object) -> None:
    """Write one JSON document, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> object:
    """Read one JSON document. Raises UserError where the file is missing or broken."""
    with _text(path) as file:
        return _parsed(file.read(), str(path))


@contextmanager
def _text(path: Path | str) -> Iterator[TextIO]:
    """A text file, with or without a byte order mark. Raises UserError where there is none."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, where a file is due") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason})") from None


def _parsed(text: str, where: str) -> Any:
    """The JSON value of a text. Raises UserError where it is none."""
    if text.startswith("version https://git-lfs"):
        raise UserError(f"{where}: the pointer of a file in git-lfs, not the file; git lfs pull fetches it")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error}); is the file complete?") from None
    except RecursionError:
        raise UserError(f"{where}: JSON that is too deep") from None


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Write JSON lines, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path | str) -> Iterator[dict]:
    """Yield the objects of a JSON-lines file, a line at a time, or of a JSON list that is called so.

    Raises UserError with the line's number where one is broken.
    """
    with _text(path) as file:
        first = True
        for number, line in enumerate(file, start=1):
            if first and line.lstrip().startswith("["):
                yield from _parsed(line + file.read(), str(path))
                return
            if line.strip():
                first = False
                yield _parsed(line, f"{path}, line {number}")


def write_tensors(path: Path | str, tensors: dict, provenance: dict | None = None) -> None:
    """Write tensors as safetensors, with `provenance` as JSON in the file's metadata, atomically."""
    from safetensors.torch import save_file

    metadata = {"provenance": json.dumps(provenance, ensure_ascii=False)} if provenance is not None else None
    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_tensors` wrote: the tensors (on the CPU) and the provenance.

    Raises UserError where the file is missing or broken.
    """
    with _opened(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _provenance(file)  # noqa: SIM118 (not a dict)


def each_tensor(path: Path | str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a file by name, one in memory at a time. Raises UserError as `read_tensors` does."""
    with _opened(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            yield name, file.get_tensor(name)


def read_provenance(path: Path | str) -> dict[str, Any]:
    """The provenance of a file of tensors, without them."""
    with _opened(path, "numpy") as file:
        return _provenance(file)


@contextmanager
def _opened(path: Path | str, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def _provenance(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("provenance", "{}"))


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
