"""A really blocked event loop is seen, counted, and told with the place where it hung."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from router.watchdog import BLOCKED_S, Watchdog, described


class Seen:
    def __init__(self) -> None:
        self.lags: list[float] = []
        self.blocked = 0
        self.gave_up = 0
        self.watchdog = Watchdog(self.lags.append, self._count, self._give_up)

    def _give_up(self) -> None:
        self.gave_up += 1

    def _count(self) -> None:
        self.blocked += 1


def hang_here(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_blocked_loop_is_counted_and_the_log_says_where(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    seen.watchdog.start()
    await asyncio.sleep(0.05)
    hang_here(0.4)
    await asyncio.sleep(0.05)
    hang_here(0.4)
    await asyncio.sleep(0.05)
    seen.watchdog.stop()
    assert seen.blocked >= 2
    assert max(seen.lags) >= 0.3
    [line] = [record.getMessage() for record in caplog.records]  # and not one for each
    assert line.startswith("the event loop was blocked for ")
    assert "test_watchdog.hang_here" in line


async def test_a_loop_that_waits_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    with caplog.at_level(logging.WARNING):
        seen.watchdog.start()
        await asyncio.sleep(0.3)
        seen.watchdog.stop()
    assert len(seen.lags) >= 2
    assert all(lag >= 0 for lag in seen.lags)
    assert seen.blocked == sum(lag >= BLOCKED_S for lag in seen.lags)  # a busy machine may block us for real


async def test_a_loop_that_never_comes_back_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("router.watchdog._HANGS_S", 0.3)
    seen = Seen()
    seen.watchdog.start()
    await asyncio.sleep(0.05)
    hang_here(1.0)
    seen.watchdog.stop()
    assert seen.gave_up > 0
    assert any("has hung for" in record.getMessage() for record in caplog.records)


async def test_it_ends() -> None:
    seen = Seen()
    seen.watchdog.start()
    seen.watchdog.stop()
    looked = len(seen.lags)
    await asyncio.sleep(0.1)
    assert len(seen.lags) == looked
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(5)
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


def test_a_stack_is_told_by_names_and_no_values() -> None:
    import sys

    secret = "canary"
    told = described(sys._getframe())
    assert told.rpartition(" > ")[2].startswith(f"{__name__}.test_a_stack_is_told_by_names_and_no_values:")
    assert secret not in told
    assert described(None) == ""
