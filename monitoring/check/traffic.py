"""Traffic for the check: every policy, streamed and not, cached and not, and each kind of ending once and again."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from monitoring.check.stack import Say, Stack

_CHAT = "/v1/chat/completions"
_CLASSIFIER = "/v2/repository/models/prompt_classifier"
_TIMEOUT_S = 20.0
_SENDERS = 4
_FAULTY_ANSWERS = 4

_PROMPTS = (
    "Hi there, how are you today?",
    "What is the capital of Portugal?",
    "Write a Python function that merges two sorted lists, with tests.",
    "Prove that there are infinitely many primes, then generalize the proof.",
    "Summarize in one sentence: the council met, argued and adjourned.",
    "Rewrite politely: your report is late again.",
    "word " * 1500,  # longer than the classifier reads
)
_MODELS = ("auto", "value", "task", "cheap-only", "default@0.9", "expensive-sim")


@dataclass(frozen=True, slots=True)
class Sent:
    """How many requests were answered, by status; 0: no answer."""

    statuses: dict[int, int]


def drive(stack: Stack, seconds: float, say: Say) -> Sent:
    """Send ordinary requests for so long, and show every fault at the beginning and halfway."""
    ended = threading.Event()
    statuses: dict[int, int] = {}
    lock = threading.Lock()

    def send_on(bodies: Iterator[dict[str, Any]]) -> None:
        while not ended.is_set():
            status = _post(stack.router, next(bodies))
            with lock:
                statuses[status] = statuses.get(status, 0) + 1

    senders = [threading.Thread(target=send_on, args=(_bodies(number),)) for number in range(_SENDERS)]
    finish = time.monotonic() + seconds
    for sender in senders:
        sender.start()
    try:
        for half in (1, 2):
            say(f"traffic: {_SENDERS} senders, and every fault once ({half} of 2)")
            for fault in _FAULTS:
                fault(stack)
            time.sleep(max(0.0, finish - time.monotonic() - (2 - half) * seconds / 2))
    finally:
        ended.set()
        for sender in senders:
            sender.join()
    return Sent(statuses)


def _bodies(sender: int) -> Iterator[dict[str, Any]]:
    """Yield requests without end; some prompts come again word for word, so that the cache has something to do."""
    for number in itertools.count(sender):
        text = _PROMPTS[number % len(_PROMPTS)]
        text = text if number % 3 else f"{number}: {text}"
        yield _chat(text, model=_MODELS[number % len(_MODELS)], stream=number % 2 == 0)


def _chat(text: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


def _post(address: str, body: dict[str, Any] | bytes, path: str = _CHAT, method: str = "POST") -> int:
    """Send a request, read the answer to its end and return its status; 0 when it broke off."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, payload, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status


def _upstream_fault(fault: str, *, stream: bool) -> Callable[[Stack], None]:
    """Return what makes the next answers of each simulated LLM go wrong, whoever's they are: Locust must see some."""

    def show(stack: Stack) -> None:
        for llm in stack.llms:
            _post(llm, f"{fault};times={_FAULTY_ANSWERS}".encode(), "/_simulated/fault", "PUT")
        for model in ("cheap-sim", "expensive-sim"):
            _post(stack.router, _chat("Hello", model=model, stream=stream))

    return show


def _client_error(stack: Stack) -> None:
    _post(stack.router, b"{not JSON")


def _client_cancelled(stack: Stack) -> None:
    """Leave a stream after its first bytes."""
    connection = http.client.HTTPConnection(stack.router, timeout=_TIMEOUT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", _CHAT, json.dumps(_chat("Tell me a story", stream=True)))
        connection.getresponse().read(1)


def _manual(stack: Stack) -> None:
    override = {"policy": "default", "routing_strategy": "manual", "model": "cheap-sim"}
    _post(stack.router, {**_chat("Hello"), "nim-llm-router": override})


def _no_classifier(stack: Stack) -> None:
    """Take the model out of Triton for a few requests."""
    _post(stack.triton, {}, f"{_CLASSIFIER}/unload")
    for number in range(3):
        _post(stack.router, _chat(f"Without a classifier, {number} at {time.monotonic()}"))
    _post(stack.triton, {}, f"{_CLASSIFIER}/load")


_FAULTS = (
    _client_error,
    _client_cancelled,
    _manual,
    _upstream_fault("status=400", stream=False),
    _upstream_fault("status=503", stream=False),
    _upstream_fault("die_after_chunks=2", stream=True),
    _no_classifier,
)
