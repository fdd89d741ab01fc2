"""A Locust user that talks to a chat completions endpoint and measures what a person would see."""

from __future__ import annotations

import functools
import random
import ssl
from time import perf_counter
from typing import Any

import gevent  # type: ignore[import-untyped] # has no types
from gevent.pool import Group  # type: ignore[import-untyped] # has no types
from geventhttpclient.response import HTTPConnectionClosed
from locust import FastHttpUser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager
from locust.exception import ResponseError

from loadtest.load.locust_hooks import Measurement
from loadtest.load.open_loop import PoissonClock
from loadtest.load.settings import OPEN
from loadtest.load.sse_client import StreamError, Usage, read_stream, read_whole
from loadtest.load.tally import Answer

ENDPOINT = "/v1/chat/completions"
_IN_FLIGHT = 256  # of one user with open arrivals; far above what one arrival per second keeps open


class ChatUser(FastHttpUser):
    """Sends prompts; closed: one at a time, thinking in between; open: each when it is due."""

    abstract = True
    insecure = False  # the key must not go to whoever answers
    ssl_context_factory = staticmethod(functools.cache(ssl.create_default_context))
    concurrency = _IN_FLIGHT
    measurement: Measurement

    def __init__(self, environment: Any) -> None:  # noqa: ANN401 - Locust's
        settings = self.measurement.settings
        self.network_timeout = settings.timeout_s
        super().__init__(environment)
        key = {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        # Compressed events would arrive when the compressor likes.
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", **key}
        self._open = settings.arrivals == OPEN
        self._begun = False
        self._clock = PoissonClock(1.0, perf_counter(), random.Random())
        self._flights: Any = Group()

    def on_start(self) -> None:
        """Pause before the first prompt, so that users do not send in step."""
        self.wait()  # type: ignore[no-untyped-call] # Locust leaves it untyped
        self._begun = True

    def wait_time(self) -> float:
        """Return the seconds until the next prompt."""
        if not self._open:
            low, high = self.measurement.settings.think_s
            return random.uniform(low, high) if self._begun else random.uniform(0, (low + high) / 2)
        wait, late = self._clock.wait_s(perf_counter())
        self.measurement.recorder.current.observe("late", late)
        return wait

    def chat(self, body: bytes, *, stream: bool) -> None:
        """Send one request and record its answer, or what was wrong with it."""
        if self._open:
            self._flights.spawn(self._exchange, body, stream)
        else:
            self._exchange(body, stream)

    def on_stop(self) -> None:
        """Let the open requests end as long as Locust waits for a user."""
        self._flights.join(timeout=self.environment.stop_timeout or 0.0)
        self._flights.kill(block=False)

    def _exchange(self, body: bytes, stream: bool) -> None:
        started = perf_counter()
        response = self._send(body, stream)
        if isinstance(getattr(response, "error", None), HTTPConnectionClosed):
            # The server had closed an idle connection just as we took it: clients try once more, and so do we.
            self.measurement.recorder.current.reconnected()
            response = self._send(body, stream)
        with response:
            try:
                answer = _read(response, stream, started, self.measurement.settings.model)
            except StreamError as error:
                self.measurement.recorder.current.failed(ENDPOINT, error.kind)
                response.failure(ResponseError(f"{error.kind}: {error}"))  # type: ignore[no-untyped-call] # Locust's
                return
            self.measurement.answered(answer)
            meta = response.request_meta
            meta["response_time"] = answer.e2e_s * 1000  # Locust's own ends with the headers
            meta["name"] = f"{ENDPOINT} {answer.model}"
            response.success()  # type: ignore[no-untyped-call] # Locust's

    def _send(self, body: bytes, stream: bool) -> ResponseContextManager:
        options: Any = {"data": body, "headers": self._headers, "catch_response": True, "stream": stream}
        return self.client.post(ENDPOINT, **options)


def _read(response: ResponseContextManager, stream: bool, started: float, model: str) -> Answer:
    """Read the answer to its end; `model` is what was asked for.

    Raises `StreamError` for everything that is not a complete answer.
    """
    status = response.status_code
    if status != 200:
        raise StreamError(f"http_{status}", f"status {status}") if status else _broken(getattr(response, "error", None))
    headers: Any = response.headers
    times: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()
    usage: Usage | None
    try:
        if stream:
            source = response.stream
            read = read_stream(functools.partial(source.readline, b"\n"), perf_counter)
            times, gaps, usage = read.token_times, read.gaps_s, read.usage
        else:
            usage = read_whole(response.content or b"")
    except FAILURE_EXCEPTIONS as error:
        raise _broken(error) from error
    return Answer(
        endpoint=ENDPOINT,
        model=headers.get("x-router-model") or model,
        e2e_s=perf_counter() - started,
        ttft_s=times[0] - started if times else None,
        gaps_s=gaps,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        overhead_s=_seconds(headers.get("x-router-overhead-ms")),
        reason=headers.get("x-router-reason") or "unknown",
        source=(headers.get("x-router-decision") or "unknown").partition(";")[0],
    )


def _broken(error: BaseException | None) -> StreamError:
    if isinstance(error, TimeoutError | gevent.Timeout):
        return StreamError("timeout", "no byte came for TIMEOUT_S")
    if isinstance(error, ConnectionRefusedError):
        return StreamError("refused", "the connection was refused")
    return StreamError("connection", f"the connection broke before the answer's end: {type(error).__name__}")


def _seconds(milliseconds: str | None) -> float | None:
    try:
        return None if milliseconds is None else float(milliseconds) / 1000
    except ValueError:
        return None
