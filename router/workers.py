"""Keeps several worker processes running: starts them, replaces the dead, passes signals on. Knows no web server.

The parent forks, so that a worker is there within milliseconds and shares the memory of what was imported. It has
no thread, no event loop and no connection of its own: it sleeps until the next signal.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from time import monotonic

logger = logging.getLogger("router")

_fork = multiprocessing.get_context("fork")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOPS = (signal.SIGTERM, signal.SIGINT)
_RESPAWN_S = 1.0  # a worker that dies sooner is not replaced at once: it would die again
_LAST_WORDS_S = 5.0


def supervise(work: Callable[[], int], workers: int, *, hang_up: Callable[[], None], stop: Callable[[], float]) -> int:
    """Run `work` in so many processes until SIGTERM or SIGINT; return the exit status.

    A worker that ends is replaced. SIGHUP calls `hang_up` here, then reaches every worker. A stop reaches them as
    SIGTERM, a second one too; `stop` is called here and returns the seconds that they need. Whoever is still there
    then, and a few seconds later, is killed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal waits until `sigtimedwait` asks for it
    running = _Workers(work)
    stop_by: float | None = None
    while stop_by is None or running:
        if stop_by is None:
            wait_s = running.fill_up_to(workers)
        else:
            wait_s = stop_by - monotonic()
            if wait_s <= 0:
                running.send(signal.SIGKILL)
                wait_s = _LAST_WORDS_S
        received = signal.sigtimedwait(_SIGNALS, wait_s)
        if received is None:
            continue
        if received.si_signo == signal.SIGCHLD:
            running.bury(expected=stop_by is not None)
        elif received.si_signo == signal.SIGHUP:
            hang_up()
            running.send(signal.SIGHUP)
        elif received.si_signo in _STOPS:
            stop_by = stop_by or monotonic() + stop() + _LAST_WORDS_S
            running.send(signal.SIGTERM)
    return 0


def run_apart(work: Callable[[], int]) -> int:
    """Run `work` in a process of its own, so that workers are forked without what it opens; return its status."""
    process = _fork.Process(target=lambda: sys.exit(work()))
    process.start()
    process.join()
    return process.exitcode or 0


class _Workers:
    """The processes that there are now, and when each began."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._work = work
        self._began: dict[multiprocessing.process.BaseProcess, float] = {}
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._began)

    def fill_up_to(self, count: int) -> float:
        """Start what is missing, unless it is too early; return the seconds until there is something to do."""
        too_early = self._not_before - monotonic()
        if too_early > 0:
            return too_early
        while len(self._began) < count:
            process = _fork.Process(target=self._be_a_worker, daemon=False)
            process.start()
            self._began[process] = monotonic()
        return 3600.0

    def bury(self, *, expected: bool) -> None:
        """Forget those that have ended."""
        for process in [process for process in self._began if process.exitcode is not None]:
            began = self._began.pop(process)
            if not expected:
                logger.error("worker %d ended with status %d; it is replaced", process.pid, process.exitcode)
                self._not_before = began + _RESPAWN_S

    def send(self, number: int) -> None:
        """Send a signal to every worker."""
        for process in self._began:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)

    def _be_a_worker(self) -> None:
        # Ctrl-C in a terminal reaches every process; the parent alone says what follows from it. SIGHUP stays
        # blocked until the worker listens to it, so that a reload at this moment is not lost.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_SIGNALS} - {signal.SIGHUP})
        sys.exit(self._work())
