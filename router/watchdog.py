"""Looks how late the event loop is, and where it hangs when it is blocked.

A timer in the loop measures its lateness fifty times a second. A thread, which the loop cannot block, notes the stack
of the loop's thread while no timer comes. Names of functions only: no value, so no prompt and no key.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from time import monotonic, thread_time
from types import FrameType

logger = logging.getLogger("router")

TICK_S = 0.02
BLOCKED_S = 0.1
_HANGS_S = 30.0
_LOG_EVERY_S = 10.0
_FRAMES = 8


class Watchdog:
    """Calls `observe` with the loop's lateness in seconds at each tick, and `blocked` when that is over `BLOCKED_S`.

    `give_up` is called, in another thread, when the loop has not moved for half a minute.

    `start` and `stop` belong to the loop that is watched.
    """

    def __init__(
        self, observe: Callable[[float], None], blocked: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._observe = observe
        self._blocked = blocked
        self._give_up = give_up
        self._due = 0.0
        self._used = 0.0
        self._stack = ""
        self._logged = -_LOG_EVERY_S
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch the running loop, in this thread, until `stop`."""
        self._schedule()
        watched = threading.get_ident()
        threading.Thread(target=self._look, args=(watched,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look away."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._used = thread_time()
        self._due = monotonic() + TICK_S
        self._timer = loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        late_s = max(0.0, monotonic() - self._due)
        self._observe(late_s)
        if late_s >= BLOCKED_S:
            self._blocked()
            self._report(late_s, thread_time() - self._used)
        self._stack = ""
        self._schedule()

    def _report(self, late_s: float, used_s: float) -> None:
        if monotonic() - self._logged < _LOG_EVERY_S:
            return
        self._logged = monotonic()
        where = self._stack or "unknown: it was over before anyone could look"
        logger.warning(
            "the event loop was blocked for %.0f ms, %.0f of them on the processor, in %s",
            late_s * 1000,
            used_s * 1000,
            where,
        )

    def _look(self, watched: int) -> None:
        """The thread: note once for each block where the loop's thread is; give up on one that does not end.

        Looks are counted, not seconds: after a process was stopped and continued, the loop deserves another chance.
        """
        looks, due = 0, self._due
        while not self._stopped.wait(BLOCKED_S / 2):
            looks, due = looks + 1 if due == self._due else 0, self._due
            if not self._stack and monotonic() - due > BLOCKED_S / 2:
                self._stack = described(sys._current_frames().get(watched))
            if looks > _HANGS_S / (BLOCKED_S / 2):
                logger.critical("the event loop has hung for %.0f s, in %s", _HANGS_S, self._stack)
                self._give_up()


def described(frame: FrameType | None) -> str:
    """Return the innermost functions of a stack, the outermost of them first."""
    names: list[str] = []
    while frame is not None and len(names) < _FRAMES:
        code = frame.f_code
        names.append(f"{frame.f_globals.get('__name__', '?')}.{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return " > ".join(reversed(names))
