"""The lines of a run: what is done, how fast, and how long the rest takes."""

import json
import logging
import types

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from jeep import console
from jeep.console import LogHandler, Tally, earlier, edits, spelled
from jeep.launcher import with_lines


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("all --cores 2", "all --cores 2 --logger jeep"),
        ("--cores 2 -- all", "--cores 2 --logger jeep -- all"),
        ("-n all", "-n all"),
        ("all -np", "all -np"),
        ("all --dry-run", "all --dry-run"),
        ("all --logger=other", "all --logger=other"),
        ("--cores 2 -- -n", "--cores 2 --logger jeep -- -n"),
    ],
)
def test_a_run_has_the_projects_lines_unless_others_are_asked_for(typed, shown):
    assert with_lines(typed.split()) == shown.split()


def test_the_rest_takes_what_others_of_its_rule_took(tmp_path, monkeypatch):
    """Two edits of 10 s and 20 s are done in 15 s, two at a time; two more, 30 s of targets known from before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/benchmarks/targets/m").mkdir(parents=True)
    (tmp_path / "results/benchmarks/targets/m/0.tsv").write_text("s\th:m:s\n30.0\t0:00:30\n")
    planned = {"edit": 4, "targets": 1, "table": 1}
    run = Tally(planned, {rule: earlier(rule) for rule in planned}, began=100.0)
    assert run.left(100.0) is None
    run.taken["edit"] += [10.0, 20.0]
    # 2 edits of 15 s, targets of 30 s, a table of the mean of both; half of it at a time
    assert run.left(115.0) == pytest.approx((30 + 30 + 22.5) / 2)
    run.started[7] = 111.0
    assert run.left(115.0) == pytest.approx((82.5 - 4) * 15 / 34)
    assert (run.done, run.total) == (2, 6)
    assert earlier("table") is None


def test_times_and_rates_in_words(tmp_path):
    assert [spelled(each) for each in (5.4, 89.0, 600.0, 7200.0)] == ["5 s", "89 s", "10 min", "2.0 h"]
    one, other = tmp_path / "seed0.seconds.json", tmp_path / "0.seconds.json"
    one.write_text(json.dumps({"loading": 1.0, "10": 2.0, "50": 3.0}))
    other.write_text(json.dumps({"kept": 0.0, "of": {"a": 1.0, "b": 1.0}}))
    assert edits([str(tmp_path / "x.parquet"), str(one)]) == ", 50 edits at 16.7 edits/s"
    assert edits([str(other)]) == ", 2 edits at 1.0 edits/s"
    assert edits([str(tmp_path / "none.seconds.json")]) == ""


def test_a_line_for_each_finished_job_and_snakemakes_words_for_an_error(monkeypatch, capsys):
    monkeypatch.setattr(console.time, "monotonic", iter([0.0, 0.0, 0.0, 8.0, 8.0, 8.0, 8.0]).__next__)
    settings = types.SimpleNamespace(stdout=False, nocolor=True)
    handler = LogHandler(settings, None)
    handler.setFormatter(logging.Formatter("theirs: %(message)s"))

    def say(event, message="", **fields):
        handler.emit(logging.makeLogRecord({"event": event, "msg": message, "levelno": logging.INFO} | fields))

    say(LogEvent.RUN_INFO, "Job stats", stats={"edit": 2, "total": 2})
    say(LogEvent.JOB_INFO, jobid=5, rule_name="edit", output=["a"], wildcards={"model": "m", "method": "jeep"})
    say(LogEvent.JOB_STARTED, "Execute 1 jobs...")
    say(LogEvent.JOB_FINISHED, "Finished", job_id=5)
    say(LogEvent.PROGRESS, "1 of 2 steps")
    say(None, "Select jobs to execute...")
    say(LogEvent.JOB_ERROR, "it broke")
    first, line, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("theirs: Job stats", "theirs: it broke")
    assert line.endswith("  1 of 2, about 8 s left: edit m/jeep (8 s)")
