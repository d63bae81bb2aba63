"""Fact lists asked of a server that speaks the OpenAI protocol: one that misbehaves, and one with a real model."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from openai_server import Server

from jeep.__main__ import main
from jeep.common.errors import UserError
from jeep.common.storage import read_jsonl
from jeep.data.facts import Fact, dump_facts
from jeep.data.sources import OpenAISource
from jeep.probes.fact_lists import require_lists
from jeep.probes.openai_lists import OpenAILists


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def lists(server, cache, **settings):
    options = {"model": "m", "timeout": 1.0, "retries": 3} | settings
    return OpenAILists(OpenAISource(kind="openai", base_url=server.url, **options), 50, cache)


def ask(server, cache, *subjects, **settings):
    rows = lists(server, cache, **settings).rows([("subject", subject) for subject in subjects])
    return {row["key"]: row for row in rows}


def test_answers_are_validated_and_what_is_wrong_is_recorded(server, tmp_path):
    lists = ("France", "Fenced", "Thinking", "Example", "Once")
    others = ("Garbage", "Half", "Refused", "Cut", "Empty", "Blank", "Lost")
    rows = ask(server, tmp_path, *lists, *others)
    for key in lists:
        assert rows[key]["status"] == "ok"
        assert rows[key]["candidates"] == ["capital", "Paris", "continent", "Europe"]
    assert {rows[key]["status"] for key in others} == {"broken", "refused"}
    assert rows["Refused"]["note"] == "I cannot help with that."
    assert {rows[key]["note"] for key in ("Garbage", "Half", "Lost")} == {"not the JSON asked for"}
    assert {rows[key]["note"] for key in ("Empty", "Blank")} == {"an empty list"}
    assert rows["Cut"]["note"] == "cut at max_tokens: 4096"
    assert (server.asked["Once"], server.asked["Garbage"], server.asked["Refused"]) == (2, 2, 1)
    assert len(list(tmp_path.iterdir())) == len(lists), "what is no list is not kept"


@pytest.mark.parametrize(
    "unknown", [["max_completion_tokens"], ["response_format"], ["temperature", "response_format"]]
)
def test_a_server_is_asked_as_it_can_be(server, tmp_path, unknown, caplog):
    server.refuses = unknown
    rows = ask(server, tmp_path, *(f"Place {number}" for number in range(6)), concurrency=3)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.asked["good"] == 6
    for name in unknown:
        assert server.asked[f"refuses {name}"] <= 3, "learnt once, by those under way"
        assert f"does not take {name}" in caplog.text


def test_a_request_that_no_leaving_out_mends_has_failed(server, tmp_path):
    server.refuses = ["messages"]
    rows = ask(server, tmp_path, "France")
    assert rows["France"]["status"] == "failed"
    assert "'messages' is not supported" in rows["France"]["note"]
    assert server.asked["refuses messages"] == 1


@pytest.mark.parametrize(("subject", "least", "most"), [("Later", 90, 90), ("Busy", 100, 120)])
def test_a_server_that_asks_for_time_is_given_it(server, tmp_path, monkeypatch, subject, least, most):
    pauses = []
    monkeypatch.setattr("jeep.probes.openai_lists.time.sleep", pauses.append)
    assert ask(server, tmp_path, subject)[subject]["status"] == "ok"
    assert least <= max(pauses) <= most


def test_a_server_that_fails_at_everything_is_not_asked_for_hours(server, tmp_path):
    """One that answers now and then is asked on."""
    with pytest.raises(UserError, match=r"2\d requests failed in a row: InternalServerError: .*500"):
        ask(server, tmp_path, *(f"Failing {n}" for n in range(100)), concurrency=1, retries=0)
    assert 20 <= server.asked["Failing"] < 25, "those under way"
    mixed = [name for n in range(12) for name in (f"Failing {n}", f"Failing, again {n}", f"Place {n}")]
    rows = ask(server, tmp_path, *mixed, concurrency=1, retries=0)
    assert Counter(row["status"] for row in rows.values()) == {"ok": 12, "failed": 24}


def test_lists_that_are_missing_are_no_result(server, tmp_path, caplog):
    rows = [*ask(server, tmp_path, "France", "Garbage", "Failing", "Fenced").values()]
    require_lists(rows, 0.5)
    with pytest.raises(UserError, match=r"2 of 4 are missing \(1 broken, 1 failed\), such as .* 'Garbage'"):
        require_lists(rows, 0.49)
    require_lists(rows[:1], 0.0)


def test_a_job_without_its_lists_fails_and_the_next_one_asks_for_the_rest(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    facts = [Fact(str(n), subject, "{} is in", "", "Rome") for n, subject in enumerate(["France", "Once", "Half"])]
    Path("facts.jsonl").write_text(dump_facts(facts))
    source = {"kind": "openai", "model": "m", "base_url": server.url, "timeout": 1, "retries": 0}

    def job(**more):
        return main(
            ["fact-lists", "--facts", "facts.jsonl", "--source", json.dumps(source | more), "--out", "lists.jsonl"]
        )

    assert job() == 2
    assert "2 of 4 are missing (2 broken), such as that of the subject 'Half'" in capsys.readouterr().err
    assert not Path("lists.jsonl").exists()
    before = Counter(server.asked)
    assert job(missing=0.5) == 0
    assert server.asked - before == {"Half": 2, "good": 2}, "and the relation, of which it lists the wrong things"
    assert [row["status"] for row in read_jsonl(Path("lists.jsonl"))] == ["ok", "ok", "broken", "broken"]


def test_rate_limits_and_stalls_are_waited_out_and_errors_reported(server, tmp_path, caplog):
    rows = ask(server, tmp_path, "Limited", "Stalling", "Failing", "NotJson")
    assert rows["Limited"]["status"] == rows["Stalling"]["status"] == "ok"
    assert server.asked["Limited"] == 3
    assert rows["Failing"]["status"] == "failed"
    assert server.asked["Failing"] == 4, "one try and three more"
    assert rows["NotJson"]["status"] == "failed"
    assert "Failing" in caplog.text
    assert "sk-test-secret" not in caplog.text


def test_a_rerun_asks_only_what_was_never_answered_by_a_list(server, tmp_path):
    ask(server, tmp_path, "France", "Garbage", "Failing")
    before = Counter(server.asked)
    again = ask(server, tmp_path, "France", "Garbage", "Failing")
    assert server.asked["good"] == before["good"]
    assert server.asked["Garbage"] > before["Garbage"]
    assert server.asked["Failing"] > before["Failing"]
    assert again["France"]["status"] == "ok"
    assert ask(server, tmp_path, "France", temperature=0.5)["France"]["status"] == "ok"
    assert server.asked["good"] == before["good"] + 1, "another temperature is another request"
    assert all("sk-test-secret" not in path.read_text() for path in tmp_path.iterdir())


def test_requests_are_limited_at_a_time_and_in_all(server, tmp_path):
    rows = ask(server, tmp_path, *(f"Place {n}" for n in range(12)), concurrency=2, budget=300)
    assert server.most <= 2
    statuses = Counter(row["status"] for row in rows.values())
    assert 6 <= statuses["ok"] <= 7, "300 tokens are six answers of 50, and those under way"
    assert statuses["over budget"] == 12 - statuses["ok"]
    assert ask(server, tmp_path, "Place 0", "Place 11")["Place 11"]["status"] == "ok", "the next run goes on"


def test_a_refused_key_stops_the_run_in_one_line(server, tmp_path):
    with pytest.raises(UserError, match="Incorrect API key"):
        ask(server, tmp_path, "Forbidden")


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    source = OpenAISource(kind="openai", model="m", base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(UserError, match=r"127.0.0.1:9/v1/: .*refused"):
        OpenAILists(source, 5, tmp_path).rows([("subject", "France")])


def test_without_a_key_nothing_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        lists(server, tmp_path)


@pytest.fixture(scope="module")
def served(smollm2, tmp_path_factory):
    """SmolLM2 behind transformers' own OpenAI-compatible server."""
    folder = tmp_path_factory.mktemp("served") / "model"
    smollm2.save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).parent / "transformers"
    log = folder.parent / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", str(folder)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1"},
        )
    try:
        for _ in range(120):
            if process.poll() is not None:
                pytest.fail(log.read_text()[-2000:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail(log.read_text()[-2000:])
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("transformers", path=str(Path(sys.executable).parent)), reason="no server")
def test_a_real_model_behind_a_real_server_is_asked_and_read(served, tmp_path, monkeypatch):
    """A model of 135 million parameters answers; whether in the asked form or not is recorded."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url, model = served
    source = OpenAISource(
        kind="openai", base_url=url, model=model, max_tokens=80, concurrency=1, timeout=120, retries=0
    )
    asked = [("subject", "France"), ("relation", "{} is a city in")]
    rows = OpenAILists(source, 5, tmp_path).rows(asked)
    assert [row["status"] in ("ok", "broken") for row in rows] == [True, True], rows
    assert len(list(tmp_path.iterdir())) == sum(row["status"] == "ok" for row in rows)
    assert [row["status"] for row in OpenAILists(source, 5, tmp_path).rows(asked)] == [row["status"] for row in rows]
