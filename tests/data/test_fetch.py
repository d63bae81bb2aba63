"""A package is fetched over a line that breaks."""

import hashlib
import http.server
import threading
import zipfile

import pytest

from jeep.data.fetch import fetch_file
from jeep.data.sources import WheelSource

NAME = "toy-1.0-py3-none-any.whl"
PIECE = 40_000
"""What the line carries before it breaks."""


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/data.txt", "data" * 100_000)
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def index(wheel, monkeypatch):
    """A package index; of the wheel it sends at most PIECE bytes a request, and breaks off."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.endswith(".whl"):
                return self._send(200, f'<a href="/{NAME}">{NAME}</a>'.encode(), {"Content-Type": "text/html"})
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            asked.append(first)
            rest = {"Content-Range": f"bytes {first}-{len(wheel) - 1}/{len(wheel)}", "ETag": '"1"'}
            return self._send(206 if first else 200, wheel[first:], rest | {"Accept-Ranges": "bytes"})

        def _send(self, status, content, headers):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:PIECE])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "INDEX_URL": f"http://127.0.0.1:{server.server_address[1]}/simple",
            "NO_CACHE_DIR": "1",
        }.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "NO_INDEX"):
            monkeypatch.delenv(f"PIP_{name}", raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        yield asked
        server.shutdown()


def test_a_package_is_whole_though_the_line_breaks_again_and_again(index, wheel, tmp_path):
    digest = hashlib.sha256(wheel).hexdigest()
    source = WheelSource(kind="wheel", package="toy", version="1.0", sha256=digest, file="toy/data.txt")
    fetch_file(source, tmp_path / "data")
    assert (tmp_path / "data").read_text() == "data" * 100_000
    assert index == list(range(0, len(wheel), PIECE)), "each time where it was"
