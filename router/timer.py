"""A timer that is moved with every request and hardly ever rings.

To set one on the event loop and take it back costs more than a microsecond. So the one that is set stays, and only when
it rings too early is it set anew: a connection with a thousand requests a second takes one every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LazyTimer:
    """Calls one function at one moment, of those that it was told the last."""

    __slots__ = ("_at", "_call", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at = 0.0
        self._call: Callable[[], object] | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float, call: Callable[[], object]) -> None:
        """Call `call` at the loop's time `at`, and no longer what was told before."""
        self._at, self._call = at, call
        handle = self._handle
        if handle is None or handle.when() > at:
            if handle is not None:
                handle.cancel()
            self._handle = self._loop.call_at(at, self._ring)

    def set_in(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in so many seconds."""
        self.set(self._loop.time() + seconds, call)

    def clear(self) -> None:
        """Call nothing."""
        self._call = None

    def stop(self) -> None:
        """Call nothing, and leave nothing on the loop."""
        self._call = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        if self._call is None:
            return
        if self._loop.time() < self._at:
            self._handle = self._loop.call_at(self._at, self._ring)
            return
        call, self._call = self._call, None
        call()
