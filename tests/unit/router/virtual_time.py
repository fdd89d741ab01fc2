"""An event loop whose clock moves only when nothing else can happen: exact timers without waiting for them."""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NothingWillHappen(Exception):
    """Every task waits and no timer is set: real time would pass for ever."""


class _SkippingSelector(selectors.DefaultSelector):
    """Never waits; reports how long it should have waited."""

    skipped: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise NothingWillHappen
            self.skipped(max(timeout, 0.0))
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and jumps from timer to timer; `complaints` are what asyncio would have logged."""

    def __init__(self) -> None:
        selector = _SkippingSelector()
        selector.skipped = self._skip
        self._elapsed = 0.0
        self._handles: list[asyncio.TimerHandle] = []
        self.complaints: list[str] = []
        super().__init__(selector)
        self.set_exception_handler(lambda _, context: self.complaints.append(str(context["message"])))

    def time(self) -> float:
        return self._elapsed

    def _skip(self, seconds: float) -> None:
        self._elapsed += seconds

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._handles.append(handle)
        return handle

    @property
    def timers(self) -> int:
        """How many timers are still to fire."""
        return sum(not handle.cancelled() and handle.when() > self._elapsed for handle in self._handles)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; fails when asyncio had anything to complain of, such as unread exceptions."""
    loops: list[VirtualTimeLoop] = []

    def new_loop() -> VirtualTimeLoop:
        loops.append(VirtualTimeLoop())
        return loops[-1]

    gc.freeze()  # so that the collection below looks at what this run made only, which is quick
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(main)
            gc.collect()  # a future complains of its unread exception when it is deleted; a cycle may keep it until now
    finally:
        gc.unfreeze()
    [loop] = loops
    assert loop.complaints == []
    return result
