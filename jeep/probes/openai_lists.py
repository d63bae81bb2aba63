"""Fact lists asked of a language model behind an OpenAI-compatible server, each list kept on disk by its request."""

import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from pydantic import BaseModel
from tqdm import tqdm

from jeep.common.errors import UserError
from jeep.common.storage import read_json, write_json
from jeep.data.sources import OpenAISource
from jeep.probes.fact_lists import Status, row

_ASK = {
    "subject": (
        "List {count} facts about {key}. Each fact is a relation and its object, both as short phrases, for example "
        '{{"relation": "capital", "object": "Paris"}}.'
    ),
    "relation": (
        'In the sentence "{key}" the braces stand for a subject, and the sentence ends with an object. List {count} '
        'pairs of a subject and an object for which it is true, for example {{"subject": "France", "object": "Paris"}}.'
    ),
}
_FORM = 'Answer with JSON only, in the form {"items": [...]}.'


class _SubjectItem(BaseModel):
    relation: str
    object: str


class _RelationItem(BaseModel):
    subject: str
    object: str


class _SubjectAnswer(BaseModel):
    items: list[_SubjectItem]


class _RelationAnswer(BaseModel):
    items: list[_RelationItem]


_ANSWERS: dict[str, type[BaseModel]] = {"subject": _SubjectAnswer, "relation": _RelationAnswer}


_ASKED = 2
"""Times that a question is asked in a run until its answer is a list."""
_WAITS = (60, 600)
"""Seconds that a server may ask us to wait; up to the first the client itself does."""
_GIVEN_UP = 20
"""Requests that fail one after another, whatever is asked, before no more are sent."""
_OTHERWISE = {
    "max_completion_tokens": ("max_completion_tokens", "max_tokens"),
    "response_format": ("response_format", "json_schema", "schema", "structured", "guided", "grammar"),
    "temperature": ("temperature",),
}
"""What a request can do without, and the words by which a refusal means it; all older servers take max_tokens."""


class _NoList(Exception):
    """A question that has no list, and why."""

    def __init__(self, status: Status, note: str):
        super().__init__(note)
        self.status, self.note = status, note


class OpenAILists:
    """Asks a model for candidates, a few requests at a time and within a budget of tokens."""

    def __init__(self, source: OpenAISource, candidates: int, cache: Path):
        """The key is read from the environment by the client. Raises UserError where there is none."""
        self.source, self.count, self.cache = source, candidates, cache
        self.spent = 0
        self._failed = 0
        """Requests since the last one that was answered."""
        self._lock = threading.Lock()
        self._refused: set[str] = set()
        """Parameters that the server does not take."""
        try:
            # The client itself retries rate limits, server errors and timeouts, with growing pauses.
            self.client = openai.OpenAI(base_url=source.base_url, max_retries=source.retries, timeout=source.timeout)
        except openai.OpenAIError as error:
            raise UserError(f"fact lists: {error}") from None

    def rows(self, questions: Sequence[tuple[str, str]]) -> list[dict]:
        """Candidates of every question; what went wrong stands in `status` and `note`, and is asked again another time.

        Raises UserError when the server refuses the key, cannot be reached at all, or answers nothing any more.
        """
        with ThreadPoolExecutor(self.source.concurrency) as pool:
            answers = pool.map(lambda question: self._row(*question), questions)
            try:
                return list(tqdm(answers, total=len(questions), desc="fact lists", unit="request", mininterval=2))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _row(self, kind: str, key: str) -> dict:
        request = self._request(kind, key)
        identity = json.dumps({"base_url": self.source.base_url, **request}, sort_keys=True)
        path = self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
        if path.is_file():
            with suppress(_NoList):
                return self._listed(kind, key, read_json(path))
        try:
            answer, found = self._list(kind, key, request, _ASKED)
        except _NoList as error:
            logging.warning("fact lists: %s %r: %s", kind, key, error.note)
            return row(kind, key, [], error.status, error.note)
        write_json(path, {"kind": kind, "key": key, **answer})
        return found

    def _list(self, kind: str, key: str, request: dict, times: int) -> tuple[dict, dict]:
        """An answer that is a list, asked for so many times at most, and its row. Raises _NoList without one."""
        answer = self._ask(request)
        try:
            return answer, self._listed(kind, key, answer)
        except _NoList as error:
            if error.status != "broken" or times == 1:
                raise
        return self._list(kind, key, request, times - 1)

    def _request(self, kind: str, key: str) -> dict:
        schema = {"name": "facts", "schema": _ANSWERS[kind].model_json_schema()}
        text = _ASK[kind].format(count=self.count, key=key)
        return {
            "model": self.source.model,
            "temperature": self.source.temperature,
            "max_completion_tokens": self.source.max_tokens,
            "messages": [{"role": "user", "content": f"{text} {_FORM}"}],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def _ask(self, request: dict) -> dict:
        """The server's answer. Raises _NoList where there is none, UserError where there will be none to anything."""
        with self._lock:
            if self.spent >= self.source.budget:
                raise _NoList("over budget", f"{self.spent} tokens were spent")
        try:
            completion = self._sent(request)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(f"fact lists: {self.source.base_url or 'the server'}: {error.message}") from None
        except openai.APITimeoutError as error:
            raise self._failure(str(error)) from None
        except openai.APIConnectionError as error:
            raise UserError(f"fact lists: {self.client.base_url}: {error.__cause__ or error}") from None
        except openai.OpenAIError as error:
            raise self._failure(f"{type(error).__name__}: {error}") from None
        if not isinstance(completion, ChatCompletion):  # what the client makes of an answer that is not JSON
            raise self._failure(f"not an answer of this protocol: {str(completion)[:80]!r}")
        answer = completion.model_dump(mode="json", include={"choices", "usage", "model"})
        with self._lock:
            self._failed = 0
            self.spent += (answer.get("usage") or {}).get("total_tokens") or 0
        return answer

    def _failure(self, note: str) -> Exception:
        """A request without an answer; one of many in a row ends the run, which would go on for hours."""
        with self._lock:
            self._failed += 1
            if self._failed >= _GIVEN_UP:
                return UserError(f"fact lists: {self.client.base_url}: {self._failed} requests failed in a row: {note}")
        return _NoList("failed", note)

    def _sent(self, request: dict) -> Any:
        """Send a request as the server takes it, and again after the pause that it asks for."""
        waited = False
        while True:
            refused = set(self._refused)
            taken = {name: value for name, value in request.items() if name not in refused}
            if "max_completion_tokens" in refused:
                taken["max_tokens"] = request["max_completion_tokens"]
            try:
                return self.client.chat.completions.create(**taken)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._give_way(error, refused):
                    raise
            except openai.APIStatusError as error:
                pause = _pause(error.response.headers.get("retry-after", ""))
                if waited or not _WAITS[0] < pause <= _WAITS[1]:
                    raise
                waited = True
                time.sleep(pause)

    def _give_way(self, error: openai.APIStatusError, refused: set[str]) -> bool:
        """Leave out what the server complains of. Whether there is something: or another thread has just done so."""
        text = f"{error.message} {error.param}".lower()
        with self._lock:
            if refused != self._refused:
                return True
            left = [name for name in _OTHERWISE if name not in refused]
            named = [name for name in left if any(word in text for word in _OTHERWISE[name])]
            if not named:
                return False
            self._refused.add(named[0])
        logging.warning("fact lists: %s does not take %s", self.client.base_url, named[0])
        return True

    def _listed(self, kind: str, key: str, answer: dict) -> dict:
        """The candidates of an answer. Raises _NoList where it is no list."""
        choices = answer.get("choices") or [{}]
        message = choices[0].get("message") or {}
        if message.get("refusal"):
            raise _NoList("refused", message["refusal"])
        if choices[0].get("finish_reason") == "content_filter":
            raise _NoList("refused", "content filter")
        found = _items(message.get("content") or "", _ANSWERS[kind])
        if found is None:
            cut = choices[0].get("finish_reason") == "length"
            raise _NoList("broken", f"cut at max_tokens: {self.source.max_tokens}" if cut else "not the JSON asked for")
        values = [value for item in found for value in item.model_dump().values() if value.strip()]
        if not values:
            raise _NoList("broken", "an empty list")
        return row(kind, key, list(dict.fromkeys(values))[: 2 * self.count])


def _pause(asked: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date; none where it is neither."""
    if asked.isdigit():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return 0.0


def _items(text: str, form: type[BaseModel]) -> list[BaseModel] | None:
    """The items of the first JSON object of a form in a text, behind a block of reasoning; None where there is none."""
    text = re.split(r"</think(?:ing)?>", text)[-1]
    if re.search(r"<think(?:ing)?>", text):  # cut while it was reasoning
        return None
    decoder = json.JSONDecoder()
    for brace in re.finditer("{", text):
        try:
            return form.model_validate(decoder.raw_decode(text, brace.start())[0]).items
        except ValueError:  # no JSON from here on, or another object
            continue
    return None
