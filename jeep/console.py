"""What a run of the pipeline says on the terminal: a line for each finished job, and about how long the rest takes.

A logger plugin of Snakemake (its interface: `LogHandler`), which the launcher registers; `--logger` names another. A
job's own progress bars and Snakemake's errors stand between the lines; all of Snakemake's words are in .snakemake/log.
"""

import json
import logging
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_UNSAID = (LogEvent.JOB_STARTED, LogEvent.PROGRESS)
_REFUSED = re.compile(r"^(?:OSError|PermissionError): (\[Errno (?:13|28|30|122)\] .*)$", re.MULTILINE)
"""Another user's file, a disk or a quota that is full, a file system that is read-only, at the end of a traceback."""


def plainly(words: str) -> str | None:
    """One line in the place of Snakemake's words, where these are a traceback, or name a remedy that is none here."""
    if words.startswith("LockException"):
        return (
            "error: another run makes the same files in this folder; wait for its end "
            "(only where files cannot be locked and a run was killed: --unlock)"
        )
    refused = _REFUSED.findall(words)
    return f"error: {refused[-1]}" if refused else None


@dataclass
class Tally:
    """How far a run is: jobs by rule, and the seconds that each has taken."""

    planned: Mapping[str, int]
    before: Mapping[str, float | None]
    """The mean seconds of a rule's jobs in earlier runs."""
    began: float
    started: dict[int, float] = field(default_factory=dict)
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def done(self) -> int:
        """Jobs that have finished."""
        return sum(map(len, self.taken.values()))

    @property
    def total(self) -> int:
        """All jobs."""
        return sum(self.planned.values())

    def left(self, now: float) -> float | None:
        """Seconds that the rest takes, if each job takes what others of its rule took, here or in an earlier run.

        As many run at once as did so far. None before anything is known.
        """
        known = {**self.before, **{rule: sum(took) / len(took) for rule, took in self.taken.items()}}
        means = [each for each in known.values() if each is not None]
        under_way = sum(now - begin for begin in self.started.values())
        busy = sum(map(sum, self.taken.values())) + under_way
        if not means or not busy or now <= self.began:
            return None
        typical = sum(means) / len(means)
        jobs = {rule: count - len(self.taken.get(rule, ())) for rule, count in self.planned.items()}
        work = sum(count * (typical if known[rule] is None else known[rule]) for rule, count in jobs.items())
        return max(0.0, work - under_way) * (now - self.began) / busy


def earlier(rule: str) -> float | None:
    """The mean seconds of a rule's jobs in earlier runs, from their benchmark files; None without any."""
    found, name = [], re.sub(r"^(covariance)_\d+_.*", r"\1", rule)
    for path in [*Path("results/benchmarks").glob(f"{name}.tsv"), *Path("results/benchmarks", name).rglob("*.tsv")]:
        try:
            found.append(float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0]))
        except (OSError, ValueError, IndexError):
            continue
    return sum(found) / len(found) if found else None


def spelled(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def edits(outputs: list[str]) -> str:
    """How many edits a job made and how fast, without loading and measuring; nothing where it made none."""
    for path in outputs:
        if path.endswith(".seconds.json"):
            try:
                took = json.loads(Path(path).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if "of" in took:  # target vectors; those that an earlier job made are no part of it
                count, seconds = len(took["of"]), sum(took["of"].values())
            else:
                count = max(map(int, filter(str.isdigit, took)), default=0)
                seconds = took.get(str(count), 0)
            return f", {count} edits at {count / seconds:.1f} edits/s" if seconds else ""
    return ""


class LogHandler(LogHandlerBase):
    """Snakemake's events as lines; of what is no event of a job, Snakemake's own words."""

    writes_to_stream, writes_to_file, has_filter, has_formatter, needs_rulegraph = True, False, False, False, False

    def __post_init__(self) -> None:
        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.words = ColorizingTextHandler(nocolor=self.common_settings.nocolor, stream=stream)
        self.jobs: dict[int, Any] = {}
        self.run: Tally | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Say a line, or keep what a later one needs."""
        event, now = getattr(record, "event", None), time.monotonic()
        if event == LogEvent.RUN_INFO and getattr(record, "stats", None):
            planned = {rule: int(count) for rule, count in record.stats.items() if rule != "total"}
            self.run = Tally(planned, {rule: earlier(rule) for rule in planned}, now)
        if event == LogEvent.JOB_INFO and self.run:
            self.jobs[record.jobid], self.run.started[record.jobid] = record, now
        elif event == LogEvent.JOB_FINISHED and self.run and record.job_id in self.jobs:
            self._say(self.line(record.job_id, now))
        elif event == LogEvent.JOB_ERROR and self.run:
            self.run.started.pop(getattr(record, "jobid", None), None)
            self._theirs(record)
        elif event not in _UNSAID and not record.getMessage().startswith("Select jobs to execute"):
            self._theirs(record)

    def _say(self, line: str, level: int = logging.INFO) -> None:
        self.words.setFormatter(logging.Formatter())
        self.words.emit(logging.makeLogRecord({"msg": line, "levelno": level}))

    def _theirs(self, record: logging.LogRecord) -> None:
        line = plainly(record.getMessage()) if record.levelno >= logging.ERROR else None
        if line:
            self._say(line, record.levelno)
        else:
            self.words.setFormatter(self.formatter)
            self.words.emit(record)

    def line(self, number: int, now: float) -> str:
        """Of a job that has finished: when, which, how long it took; and what is left."""
        job, run = self.jobs.pop(number), self.run
        seconds = now - run.started.pop(number)
        run.taken[job.rule_name].append(seconds)
        outputs = job.output if isinstance(job.output, list) else []
        what = " ".join([job.rule_name.replace("_", " "), "/".join(map(str, (job.wildcards or {}).values()))]).strip()
        left = run.left(now)
        rest = f", about {spelled(left)} left" if left and run.done < run.total else ""
        took = f"{spelled(seconds)}{edits(outputs)}"
        return f"{time.strftime('%H:%M:%S')}  {run.done} of {run.total}{rest}: {what} ({took})"
