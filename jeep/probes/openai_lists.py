"""Fact lists asked of a language model behind an OpenAI-compatible server, each answer kept on disk by its request."""

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from jeep.common.errors import UserError, complaint
from jeep.common.storage import read_json, write_json
from jeep.data.sources import OpenAISource
from jeep.probes.fact_lists import row

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


class OpenAILists:
    """Asks a model for candidates, a few requests at a time and within a budget of tokens."""

    def __init__(self, source: OpenAISource, candidates: int, cache: Path):
        """The key is read from the environment by the client. Raises UserError where there is none."""
        self.source, self.count, self.cache = source, candidates, cache
        self.spent = 0
        self._lock = threading.Lock()
        try:
            # The client itself retries rate limits, server errors and timeouts, with growing pauses.
            self.client = openai.OpenAI(base_url=source.base_url, max_retries=source.retries, timeout=source.timeout)
        except openai.OpenAIError as error:
            raise UserError(f"fact lists: {error}") from None

    def rows(self, questions: Sequence[tuple[str, str]]) -> list[dict]:
        """Candidates of every question; what went wrong stands in `status` and `note`.

        Raises UserError when the server refuses the key or cannot be reached at all.
        """
        with ThreadPoolExecutor(self.source.concurrency) as pool:
            answers = pool.map(lambda question: self._row(*question), questions)
            try:
                return list(tqdm(answers, total=len(questions), desc="fact lists", unit="request", mininterval=2))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _request(self, kind: str, key: str) -> dict:
        schema = {"name": "facts", "schema": _ANSWERS[kind].model_json_schema()}
        text = _ASK[kind].format(count=self.count, key=key)
        return {
            "model": self.source.model,
            "temperature": self.source.temperature,
            "max_tokens": self.source.max_tokens,
            "messages": [{"role": "user", "content": f"{text} {_FORM}"}],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def _row(self, kind: str, key: str) -> dict:
        request = self._request(kind, key)
        identity = json.dumps({"base_url": self.source.base_url, **request}, sort_keys=True)
        path = self.cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.json"
        if path.is_file():
            return self._read(kind, key, read_json(path))
        with self._lock:
            if self.spent >= self.source.budget:
                return row(kind, key, [], "over budget", f"{self.spent} tokens were spent")
        try:
            completion = self.client.chat.completions.create(**request)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(f"fact lists: {self.source.base_url or 'the server'}: {error.message}") from None
        except openai.APITimeoutError as error:
            return self._failed(kind, key, str(error))
        except openai.APIConnectionError as error:
            raise UserError(f"fact lists: {self.client.base_url}: {error.__cause__ or error}") from None
        except openai.OpenAIError as error:
            return self._failed(kind, key, f"{type(error).__name__}: {error}")
        if not isinstance(completion, ChatCompletion):  # what the client makes of an answer that is not JSON
            return self._failed(kind, key, f"not an answer of this protocol: {str(completion)[:80]!r}")
        answer = completion.model_dump(mode="json", include={"choices", "usage", "model"})
        with self._lock:
            self.spent += (answer.get("usage") or {}).get("total_tokens") or 0
        write_json(path, {"kind": kind, "key": key, **answer})
        return self._read(kind, key, answer)

    def _failed(self, kind: str, key: str, note: str) -> dict:
        """A request that never got an answer; it is asked again in the next run."""
        logging.warning("fact lists: %s %r: %s", kind, key, note)
        return row(kind, key, [], "failed", note)

    def _read(self, kind: str, key: str, answer: dict) -> dict:
        """The candidates of an answer, or why it has none."""
        choices = answer.get("choices") or [{}]
        message = choices[0].get("message") or {}
        if message.get("refusal"):
            return row(kind, key, [], "refused", message["refusal"])
        if choices[0].get("finish_reason") == "content_filter":
            return row(kind, key, [], "refused", "content filter")
        try:
            found = _ANSWERS[kind].model_validate_json(_unfenced(message.get("content") or ""))
        except ValidationError as error:
            return row(kind, key, [], "broken", complaint(error))
        values = [value for item in found.items for value in item.model_dump().values()]
        return row(kind, key, list(dict.fromkeys(values))[: 2 * self.count])


def _unfenced(text: str) -> str:
    """A JSON answer without the code fence that some models put around it."""
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    return text
