"""A server of the OpenAI protocol that misbehaves in as many ways as real ones do: one for each subject."""

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = {"items": [{"relation": "capital", "object": "Paris"}, {"relation": "continent", "object": "Europe"}]}


def completion(content, **message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


class Server(ThreadingHTTPServer):
    """Answers by what the request asks about; counts how often, and how many at a time."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = Counter()
        self.refuses = []
        """Parameters that it does not know."""
        self.running = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One misbehaviour for each subject."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"]
        subject = next((name for name in BEHAVIOURS if name in text), "good")
        unknown = next((name for name in self.server.refuses if name in request), None)
        if unknown:
            subject = f"refuses {unknown}"
        with self.server.lock:
            self.server.asked[subject] += 1
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            number = self.server.asked[subject]
        try:
            time.sleep(0.02)
            refusal = {"error": {"message": f"Unsupported parameter: '{unknown}' is not supported with this model."}}
            behaviour = BEHAVIOURS.get(subject, good)
            status, body, headers = (400, refusal, {}) if unknown else behaviour(number)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)
        except BrokenPipeError:
            pass
        finally:
            with self.server.lock:
                self.server.running -= 1

    def log_message(self, *arguments):
        pass


def good(_):
    return 200, completion(json.dumps(GOOD)), {}


def cut(answer):
    answer["choices"][0]["finish_reason"] = "length"
    return answer


def limited(number):
    return good(number) if number > 2 else (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})


def failing(_):
    return 500, {"error": {"message": "no"}}, {"Retry-After": "0"}


def stalling(number):
    if number == 1:
        time.sleep(3)
    return good(number)


def in_two_minutes():
    return format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)


BEHAVIOURS = {
    "Limited": limited,
    "Failing": failing,
    "Stalling": stalling,
    "Garbage": lambda _: (200, completion("I would rather talk about the weather."), {}),
    "Half": lambda _: (200, completion('{"items": [{"relation": "capital"'), {}),
    "Fenced": lambda _: (200, completion(f"```json\n{json.dumps(GOOD)}\n```"), {}),
    "Thinking": lambda _: (
        200,
        completion(
            f'<think>Like {{"items": [{{"relation": "a", "object": "b"}}]}}, or {{x}}?</think>So: {json.dumps(GOOD)}.'
        ),
        {},
    ),
    "Example": lambda _: (200, completion(f'Such as {{"relation": "capital"}}: {json.dumps(GOOD)}'), {}),
    "Later": lambda number: (
        good(number) if number > 4 else (429, {"error": {"message": "wait"}}, {"Retry-After": "90"})
    ),
    "Busy": lambda number: (
        good(number) if number > 4 else (503, {"error": {"message": "busy"}}, {"Retry-After": in_two_minutes()})
    ),
    "Empty": lambda _: (200, completion('{"items": []}'), {}),
    "Blank": lambda _: (200, completion('{"items": [{"relation": " ", "object": ""}]}'), {}),
    "Lost": lambda _: (200, completion(f"<think>I could say {json.dumps(GOOD)}, but"), {}),
    "Once": lambda number: good(number) if number > 1 else (200, completion("Well, let me see."), {}),
    "Cut": lambda _: (200, cut(completion('{"items": [')), {}),
    "Refused": lambda _: (200, completion(None, refusal="I cannot help with that."), {}),
    "NotJson": lambda _: (200, b"<html>busy</html>", {"Content-Type": "text/html"}),
    "Forbidden": lambda _: (401, {"error": {"message": "Incorrect API key provided"}}, {}),
}
