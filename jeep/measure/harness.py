"""General abilities by lm-evaluation-harness (the extra `harness`): its own tasks, on the model that is in memory.

Our own multiple-choice scorer (`jeep.measure.choices`) gives the same answers to the same questions; a test holds that.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from jeep.common.errors import NotFinite, UserError, blamed_on
from jeep.common.settings import HarnessTasks
from jeep.common.storage import sha256
from jeep.data.facts import Fact
from jeep.measure.damage import COLUMNS, TEXTS, Rows
from jeep.model.editable import EditableModel
from jeep.model.readout import SILENT

_PER_QUESTION = ("acc", "exact_match", "em")
"""Metrics that are means over questions, in the order in which one is taken."""


class Harness:
    """What the unedited model can do, for any edit of it to be held against."""

    def __init__(self, model: EditableModel, asked: HarnessTasks):
        """Ask `model`, which no edit may have changed. Raises UserError without the package, or as `of` does."""
        try:
            from lm_eval.models.huggingface import HFLM
            from lm_eval.tasks import TaskManager
        except ImportError:
            raise UserError("lm-evaluation-harness is not installed: pip install 'jeep[harness]'") from None
        logging.getLogger("lm_eval").setLevel(logging.WARNING)
        self.asked = asked
        self._model = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=asked.batch)
        self._tasks = _manager(asked, TaskManager)
        self._before = self._ask()
        self.texts = pd.DataFrame(columns=TEXTS)
        """None."""
        if self._before["value"].isna().any():
            raise NotFinite(f"lm-evaluation-harness: {SILENT}")

    def of(self, edited: Sequence[Fact], kinds: Sequence[str] = ()) -> Rows:
        """The share of right answers now: a row for each question, of the kind `ability`, metric being the task; NaN
        where the model answers NaN.

        Raises UserError for a task whose metric is no mean over questions, as a correlation is none.
        """
        before = self._before.drop(columns="chance").rename(columns={"value": "before"})
        paired = self._ask().merge(before, on=["metric", "unit"], validate="one_to_one")
        return paired.assign(kind="ability")[COLUMNS]

    def _ask(self) -> pd.DataFrame:
        from lm_eval import simple_evaluate

        with blamed_on("lm-evaluation-harness"):
            found = simple_evaluate(
                model=self._model,
                tasks=list(self.asked.tasks),
                num_fewshot=self.asked.shots,
                limit=self.asked.limit,
                bootstrap_iters=0,
                log_samples=True,
                task_manager=self._tasks,
            )
        rows = [row for name in self.asked.tasks for row in _rows(name, found)]
        return pd.DataFrame(rows, columns=["metric", "unit", "value", "chance"])


def _manager(asked: HarnessTasks, manager: Any) -> Any:
    """Of the folder's tasks alone, where these are all: the package's own are some ten thousand files."""
    if asked.folder:
        found = manager(include_path=str(asked.folder), include_defaults=False)
        if set(asked.tasks) <= set(found.all_tasks):
            return found
    found = manager(include_path=str(asked.folder) if asked.folder else None)
    unknown = [name for name in asked.tasks if name not in found.all_tasks]
    if unknown:
        where = f", nor of {asked.folder}" if asked.folder else ""
        raise UserError(f"{', '.join(unknown)}: no task of lm-evaluation-harness{where}")
    return found


def _rows(name: str, found: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """The questions of a task, or of all that a group holds; by the first of its filters, where it has several."""
    for part in _parts(name, found["group_subtasks"]):
        samples = found["samples"][part]
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            if sample["filter"] != samples[0]["filter"]:
                continue
            metric = next((each for each in _PER_QUESTION if isinstance(sample.get(each), int | float)), None)
            if metric is None:
                raise UserError(f"{part}: {', '.join(sample['metrics'])} is no mean over questions; leave the task out")
            answers = sample["filtered_resps"]
            value = math.nan if _silent(answers) else float(sample[metric])
            yield name, f"{part}/{sample['doc_id']}", value, 1 / len(answers) if len(answers) > 1 else math.nan


def _silent(answers: Any) -> bool:
    """Whether a log-likelihood among a question's answers is NaN, of which the greatest is any one."""
    if isinstance(answers, list | tuple):
        return any(map(_silent, answers))
    return isinstance(answers, float) and math.isnan(answers)


def _parts(name: str, groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    parts = groups.get(name, [])
    for part in parts:
        yield from _parts(part, groups)
    if not parts:
        yield name


def content_of(asked: HarnessTasks) -> tuple:
    """What its answers depend on beside the model: settings, all files beside its tasks, and the package."""
    from importlib.metadata import version

    files = sorted(path for path in asked.folder.rglob("*") if path.is_file()) if asked.folder else []
    return (asked.model_dump_json(), [(path.name, sha256(path)) for path in files], version("lm_eval"))
