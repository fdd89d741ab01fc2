"""The decision log: a JSON line for each request, or a sample of them, with its prompt; off unless configured.

A line is handed over on the event loop and written by a thread, which shares the file with other workers under a lock.
When the disk is slower than the traffic, lines are dropped and counted; no request waits.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import threading
from pathlib import Path
from random import random
from time import monotonic, perf_counter, time
from typing import Any, BinaryIO

import msgspec

from router.decide.prompt import Prompt, texts_to_classify
from router.http.exchange import Exchange
from router.metrics import Metrics
from router.settings import DecisionLogSettings

logger = logging.getLogger("router.decision_log")

_WAITING = 10_000
_LINES_AT_ONCE = 500
_WARN_EVERY_S = 60.0
_SCORES = ("p_weak", "p_strong", "gain", "need_strong")


class DecisionLog:
    """Writes exchanges that are over to the file at `path`."""

    def __init__(self, path: str, settings: DecisionLogSettings, max_text_chars: int, metrics: Metrics) -> None:
        self._path = Path(path)
        self._settings = settings
        self._max_text_chars = max_text_chars
        self._lines = metrics.decision_log_lines
        self._epoch = time() - perf_counter()
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="decision log", daemon=True)
        self._warned = -_WARN_EVERY_S

    def open(self) -> None:
        """Start writing."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end. May take as long as the disk does."""
        self._queue.put(None)
        self._thread.join()

    def text_of(self, prompt: Prompt) -> str | None:
        """Return the last user turn of a request that is logged, None when it is not drawn into the sample."""
        if random() >= self._settings.sample:  # noqa: S311 - a sample, not a secret
            return None
        texts = texts_to_classify(prompt.messages, "last", self._max_text_chars)
        return texts[0] if texts else None

    def add(self, exchange: Exchange, prompt: str) -> None:
        """Hand over a line about a request that is over; it is dropped when too many wait."""
        try:
            self._queue.put_nowait(described(exchange, prompt, self._epoch + exchange.started))
        except queue.Full:
            self._lines.labels("dropped").inc()

    def _write_all(self) -> None:
        """Write whatever waits at one time, until there is the None of `close`."""
        while (first := self._queue.get()) is not None:
            lines = [first]
            while len(lines) < _LINES_AT_ONCE and not self._queue.empty():
                line = self._queue.get()
                if line is None:
                    self._queue.put(None)
                    break
                lines.append(line)
            self._write(lines)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        try:
            append(self._path, self._settings, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            self._lines.labels("written").inc(len(lines))
        except OSError as error:
            self._lines.labels("dropped").inc(len(lines))
            if monotonic() - self._warned >= _WARN_EVERY_S:
                self._warned = monotonic()
                logger.warning("decision_log.path %s: %s", self._path, error.strerror)


def append(path: Path, settings: DecisionLogSettings, data: bytes) -> None:
    """Append whole lines; a file that has reached its size first becomes .1, that one .2, and so on to `keep`."""
    with _opened(path.with_name(f"{path.name}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size >= settings.max_bytes:
            names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, settings.keep + 1))]
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                if newer.exists():
                    newer.replace(older)
        with _opened(path) as file:
            file.write(data)


def _opened(path: Path) -> BinaryIO:
    """Open a file to append to; a new one is the router's user's alone, because it holds what people wrote."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def described(exchange: Exchange, prompt: str, at: float) -> dict[str, Any]:
    """Return a line's fields; what is unknown is None.

    The scores are those of the last turn, which `prompt` is, or of all turns where the policy joins them.
    """
    decision, usage = exchange.decision, exchange.usage
    last = decision.classifications[-1] if decision is not None and decision.classifications else None
    scored = last if last is not None and last.outcome else None
    return {
        "time": round(at, 3),
        "request_id": exchange.request_id.decode(),
        "policy": decision.policy if decision else None,
        "model": decision.model if decision else None,
        "reason": decision.reason if decision else None,
        "source": decision.source if decision else None,
        "score": decision.score if decision else None,
        "classifier_version": decision.classifier_version if decision else None,
        **{name: scored.score(name) if scored else None for name in _SCORES},
        "task_type": decision.task if decision else None,
        "turns": len(decision.classifications) if decision else 0,
        "outcome": exchange.outcome,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "dollars": exchange.dollars,
        "prompt": prompt,
    }
