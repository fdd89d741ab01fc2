"""The machine of a measurement: who runs on which core, and what a tree of processes has used."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_IDLE_SHARE = 0.05
_IDLE_WINDOW_S = 0.1


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for whoever is measured, the others for load and upstream; the same where there is no other."""

    target: frozenset[int]
    load: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """Take the first core that we may use for the target."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others or {first}))


@contextlib.contextmanager
def pinned_to(cores: frozenset[int] | set[int]) -> Iterator[None]:
    """Bind this thread, and what it starts meanwhile, to some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and all below it have used, in user and kernel, threads that ended too."""
    used = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process and all below it, in units of 1,000,000 bytes."""
    resident = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            resident += process.memory_info().rss
    return resident / 1e6


def wait_idle(pid: int, *, deadline_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
    """Return when the process has finished what a load left behind, at the latest after `deadline_s`."""
    until = clock() + deadline_s
    while clock() < until:
        before = cpu_s(pid)
        time.sleep(_IDLE_WINDOW_S)
        if cpu_s(pid) - before <= _IDLE_SHARE * _IDLE_WINDOW_S:
            return


def busy_share_of_others(seconds: float = 1.0) -> float:
    """Return the share of all cores that is in use while we do nothing: 0 on a quiet machine."""
    return psutil.cpu_percent(interval=seconds) / 100


def describe(cores: int) -> dict[str, str | int]:
    """Return what a reader needs to know of this machine; nothing that identifies it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
    }
