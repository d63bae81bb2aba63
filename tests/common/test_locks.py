"""Locks that die with their process, and jobs that are asked to stop."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from jeep.__main__ import main
from jeep.common.locks import alone_in
from jeep.common.stopping import SHELL
from jeep.common.storage import atomic, read_jsonl
from jeep.model.progress import Progress

HOLD = """
import sys
from pathlib import Path
from jeep.common.locks import alone_in, held
what, path = sys.argv[1], Path(sys.argv[2])
if what == "held":
    with held(path):
        print("held", flush=True)
        sys.stdin.readline()
else:
    print(alone_in(path), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that holds a lock until it is told to end, or killed; ends all of them."""
    started = []

    def process(what, path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, what, str(path)], env=environment, **pipes))
        return started[-1]

    yield process
    for each in started:
        each.kill()
        each.communicate()


def test_a_file_is_written_by_one_process_at_a_time_until_it_ends_or_is_killed(start, tmp_path):
    first = start("held", tmp_path / "out")
    assert first.stdout.readline() == "held\n"
    second, other = start("held", tmp_path / "out"), start("held", tmp_path / "other")
    assert other.stdout.readline() == "held\n"
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    first.kill()
    assert second.stdout.readline() == "held\n"


def test_a_run_knows_whether_another_is_at_work_in_its_folder(start, tmp_path):
    first = start("alone", tmp_path / "a")
    assert first.stdout.readline() == "True\n"
    assert not alone_in(tmp_path / "a")
    assert start("alone", tmp_path / "b").stdout.readline() == "True\n"
    first.kill()
    first.wait()
    assert start("alone", tmp_path / "a").stdout.readline() == "False\n", "this process has claimed it meanwhile"


def corpus_job(tmp_path):
    source = f'{{"kind": "path", "path": "{tmp_path / "in.jsonl"}"}}'
    return ["corpus", "--source", source, "--out", str(tmp_path / "out.jsonl")]


def test_what_a_killed_process_left_is_removed_by_the_next_run_of_its_job(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"title": "a", "text": "b"}\n')
    with atomic(tmp_path / "out.jsonl") as temporary:
        left = temporary.parent
        (tmp_path / "kept").mkdir()
        left.rename(tmp_path / "kept" / left.name)
        left.mkdir()
        temporary.write_text("")
    (tmp_path / "kept" / left.name).rename(left)
    assert left.exists()
    assert main(corpus_job(tmp_path)) == 0
    assert not left.exists()
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["b"]


def test_scratch_of_a_checkpoint_is_removed_when_it_is_read(tmp_path):
    left = tmp_path / ".c.safetensors.abcdefgh"
    left.mkdir()
    assert Progress(tmp_path / "c.safetensors", "mine").load() == (0, {})
    assert not left.exists()


def job(tmp_path, code):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, *corpus_job(tmp_path)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


ENDLESS = """
import sys, time
from jeep import __main__
def articles(*_):
    print("at work", flush=True)
    while True:
        yield {"title": "", "text": "x"}
        time.sleep(0.01)
import jeep.data.corpus
jeep.data.corpus.articles = articles
sys.exit(__main__.main())
"""


def test_a_job_that_is_asked_to_stop_leaves_nothing_half_written(tmp_path):
    (tmp_path / "in.jsonl").write_text("")
    process = job(tmp_path, ENDLESS)
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert sorted(path.name for path in tmp_path.iterdir() if "jeep-" not in path.name) == ["in.jsonl"]


KEEPING = """
import sys, time
from pathlib import Path
import torch
from jeep.common import stopping
from jeep.model.progress import Progress
with stopping.stoppable():
    progress = Progress(Path(sys.argv[-1]), "mine")
    done, kept = progress.load()
    print(done, flush=True)
    while done < 400:
        time.sleep(0.01)
        done += 1
        print(done, file=sys.stderr, flush=True)
        progress.save(done, lambda: {"sum": torch.tensor([done])})
    progress.end()
    print("end", flush=True)
"""


@pytest.mark.parametrize("whom", ["the job", "all of a rule's processes"])
def test_a_job_that_keeps_checkpoints_writes_one_and_stops(whom, tmp_path):
    """Also where a scheduler asks the log's `tee` to stop in the same moment."""
    path = tmp_path / "out.checkpoint.safetensors"
    command = [sys.executable, "-c", KEEPING, str(path)]
    rule = ["bash", "-c", f"{SHELL} {shlex.join(command)} 2> >(tee {shlex.quote(str(tmp_path / 'log'))} >&2)"]
    alone = whom == "the job"
    first = subprocess.Popen(
        command if alone else rule,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert first.stdout.readline() == "0\n"
    time.sleep(0.3)
    os.killpg(first.pid, signal.SIGTERM)
    first.communicate(timeout=20)
    assert first.returncode == (143 if alone else -signal.SIGTERM)
    if not alone:
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    begun, end = second.stdout.split()
    assert 0 < int(begun) < 400
    assert end == "end"
    assert path.exists(), "who has written the result removes it"
