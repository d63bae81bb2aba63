"""Files that appear whole or not at all; safetensors and JSON lines; content digests."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jeep.common.errors import UserError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block ends without an exception.

    What the block writes may be a file or a folder. After an exception nothing is left of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path | str, value: object) -> None:
    """Write one JSON document, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> object:
    """Read one JSON document. Raises UserError where the file is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); is the file complete?") from None


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> None:
    """Write JSON lines, atomically."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_jsonl(path: Path | str) -> Iterator[dict]:
    """Yield the objects of a JSON-lines file. Raises UserError with the line's number where one is broken."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not valid JSON ({error})") from None


def write_tensors(path: Path | str, tensors: dict, provenance: dict | None = None) -> None:
    """Write tensors as safetensors, with `provenance` as JSON in the file's metadata, atomically."""
    from safetensors.torch import save_file

    metadata = {"provenance": json.dumps(provenance, ensure_ascii=False)} if provenance is not None else None
    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)


def read_tensors(path: Path | str) -> tuple[dict, dict]:
    """Read what `write_tensors` wrote: the tensors (on the CPU) and the provenance."""
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            provenance = json.loads((file.metadata() or {}).get("provenance", "{}"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    return tensors, provenance


def write_covariances(path: Path | str, covariances: dict[tuple[int, str], object], provenance: dict) -> None:
    """Write covariances by layer and place; the tensors are named like `9.mlp`."""
    write_tensors(path, {f"{layer}.{place}": matrix for (layer, place), matrix in covariances.items()}, provenance)


def read_covariances(path: Path | str) -> dict[tuple[int, str], object]:
    """Read what `write_covariances` wrote."""
    named = {name.partition("."): matrix for name, matrix in read_tensors(path)[0].items()}
    return {(int(layer), place): matrix for (layer, _, place), matrix in named.items()}


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
