"""The clients of a soak: each asks one thing after another and notes how it ended."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.demo_prompts import demo_prompts
from loadtest.load.sse_client import StreamError, read_stream

CHAT = "/v1/chat/completions"
_TEXTS = [prompt.shown for prompt in demo_prompts()]
_TIMEOUT_S = 40.0
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to use the router, and how it ends while nothing is broken."""

    name: str
    expected: str = "ok"
    share: int = 1
    path: str = CHAT
    fields: tuple[tuple[str, Any], ...] = ()
    body: bytes | None = None  # instead of a chat
    content_type: str = "application/json"
    leaves: bool = False  # once the first bytes of the answer are here

    @property
    def streams(self) -> bool:
        """Whether it asks for a stream."""
        return dict(self.fields).get("stream") is True


KINDS = (
    Kind("plain", share=6),
    Kind("stream", share=8, fields=(("stream", True),)),
    Kind("stream with usage", share=2, fields=(("stream", True), ("stream_options", {"include_usage": True}))),
    Kind("by value", share=2, fields=(("model", "value"),)),
    Kind("by task", share=2, fields=(("model", "task"), ("stream", True))),
    Kind("with fallbacks", share=2, fields=(("model", "backed-up"), ("stream", True))),
    Kind("a threshold of its own", share=1, fields=(("model", "default@0.9"),)),
    Kind("NVIDIA's object", share=1, fields=(("model", ""), ("nim-llm-router", {"policy": "default"}))),
    Kind("a model by name", share=1, fields=(("model", "cheap-sim"),)),
    Kind("leaves in mid-stream", "left", share=2, fields=(("stream", True),), leaves=True),
    Kind("decision only", path="/v1/route"),
    Kind("no JSON", "400", body=b'{"model":'),
    Kind("no messages", "400", fields=(("messages", []),)),
    Kind("unknown model", "404", fields=(("model", "nobody"),)),
    Kind("another media type", "415", content_type="text/plain"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """How one request ended: `ok`, `left`, a status, or what broke; times of the monotonic clock."""

    kind: Kind
    outcome: str
    began: float
    ended: float

    @property
    def counted(self) -> bool:
        """Whether the router must have counted it: a chat of which the client has seen an answer."""
        return self.kind.path == CHAT and self.outcome != "no connection"


class Clients:
    """`number` clients in threads of their own, from `start` to `stop`; `seen` grows meanwhile."""

    def __init__(self, port: int, number: int, pause_s: float) -> None:
        self.seen: list[Seen] = []
        self._port, self._pause_s = port, pause_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(number)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish what it has asked."""
        self._over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 5)

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        shares = [kind.share for kind in KINDS]
        while not self._over.is_set():
            [kind] = chance.choices(KINDS, shares)
            began = time.monotonic()
            outcome = _ask(connection, kind, chance)
            self.seen.append(Seen(kind, outcome, began, time.monotonic()))
            self._over.wait(chance.expovariate(1 / self._pause_s))
        connection.close()


def _ask(connection: http.client.HTTPConnection, kind: Kind, chance: random.Random) -> str:
    """Send one request and return how it ended; the connection is ready for the next one."""
    try:
        connection.request("POST", kind.path, _body(kind, chance), {**_JSON, "content-type": kind.content_type})
    except OSError:
        connection.close()
        return "no connection"
    try:
        answer = connection.getresponse()
        if kind.leaves and answer.status == 200:
            answer.read(1)
            connection.close()
            return "left"
        return _read(answer, kind)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"cut: {type(error).__name__}"


def _read(answer: http.client.HTTPResponse, kind: Kind) -> str:
    if answer.status != 200:
        answer.read()
        return str(answer.status)
    if not kind.streams:
        return "ok" if _is_answer(answer.read()) else "not an answer"
    try:
        read_stream(answer.readline, time.monotonic)
    except StreamError as error:
        return error.kind
    finally:
        answer.read()
    return "ok"


def _is_answer(body: bytes) -> bool:
    try:
        return "object" in json.loads(body)
    except ValueError:
        return False


def _body(kind: Kind, chance: random.Random) -> bytes:
    if kind.body is not None:
        return kind.body
    content = f"{chance.choice(_TEXTS)} ({chance.randrange(10**6)})"  # the number keeps most from the cache
    chat = {"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 8}
    return json.dumps({**chat, **dict(kind.fields)}).encode()


def tally(seen: Sequence[Seen]) -> dict[str, dict[str, int]]:
    """Return how often each kind ended in which way."""
    counts: dict[str, dict[str, int]] = {}
    for one in seen:
        outcomes = counts.setdefault(one.kind.name, {})
        outcomes[one.outcome] = outcomes.get(one.outcome, 0) + 1
    return counts
