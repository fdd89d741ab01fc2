"""Two workers against one: whether a second core does as much as the first."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path

import psutil

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import Cores, cpu_s, pinned_to, wait_idle
from loadtest.bench.targets import QUESTION, Target, ready, start_router
from loadtest.bench.text import markdown
from loadtest.local_triton import LocalTriton

CONNECTIONS = 128  # spread over the workers by the kernel, so it takes many for an even share
FREE_CORES = 3  # two for the workers and one for the load


@dataclass(frozen=True, slots=True)
class Turn:
    """One load on so many workers; `cores` is how many of them the workers had in fact."""

    workers: int
    per_second: float
    cpu_us: float
    cores: float
    wrong: int


def section(lab: Lab) -> Outcome:
    """Load one worker and two in turns, on cores of their own where there are three: see `_seats`."""
    one, two = _measure(lab)
    faster, by_cpu = two.per_second / one.per_second, 2 * one.cpu_us / two.cpu_us
    notes = [
        f"Two workers answer {faster:.2f} times as much as one; by CPU of a request it would be {by_cpu:.2f} times."
    ]
    if shared := _too_few(lab.cores):
        notes.append("Load and upstream are on the same cores as the workers: on one for one, on two for two.")
    rows = [
        [str(turn.workers), f"{turn.per_second:,.0f}", f"{turn.cpu_us:.0f}", f"{turn.cores:.2f}", f"{turn.wrong}"]
        for turn in (one, two)
    ]
    return Outcome(
        title="Two workers",
        text=markdown(["workers", "answers/s", "CPU us a request", "cores they had", "wrong or lost"], rows),
        figures={"turns": [asdict(one), asdict(two)], "faster": faster, "by_cpu": by_cpu, "cores_are_shared": shared},
        notes=notes,
    )


def _measure(lab: Lab) -> tuple[Turn, Turn]:
    """Return the most answers and the least CPU of one worker and of two: other work can only take and add."""
    body = lab.run_dir / "workers-question.json"
    body.write_text(json.dumps(QUESTION))
    turns: dict[int, list[Turn]] = {1: [], 2: []}
    with ExitStack() as stack:
        triton = stack.enter_context(LocalTriton.start(lab.run_dir / "workers-triton"))  # idle: decisions are cached
        targets = {workers: stack.enter_context(_router(lab, triton.grpc_url, workers)) for workers in turns}
        for number in range(lab.rounds + 1):
            for workers, (target, pid) in targets.items():
                turn = _turn(target, pid, workers, body, lab)
                turns[workers] += [turn] if number else []  # the first warms up
                lab.say(f"round {number}/{lab.rounds}: {workers} workers: {turn.per_second:,.0f}/s")
    return _best(turns[1]), _best(turns[2])


def _best(turns: Sequence[Turn]) -> Turn:
    fastest = max(turns, key=lambda turn: turn.per_second)
    return replace(fastest, cpu_us=min(turn.cpu_us for turn in turns), wrong=sum(turn.wrong for turn in turns))


def _too_few(cores: Cores) -> bool:
    return len(cores.target | cores.load) < FREE_CORES


def _seats(cores: Cores, workers: int) -> Cores:
    """Return the cores of so many workers, and those of load and upstream.

    Where there are too few for all, both grow together: one core for everything around one worker, two around two.
    """
    if _too_few(cores):
        same = cores.target if workers == 1 else cores.target | cores.load
        return Cores(same, same)
    second = frozenset(sorted(cores.load)[:1])
    return Cores(cores.target if workers == 1 else cores.target | second, cores.load - second)


@contextlib.contextmanager
def _router(lab: Lab, triton: str, workers: int) -> Iterator[tuple[Target, int]]:
    seats = _seats(lab.cores, workers)
    with ExitStack() as stack:
        with pinned_to(seats.load):
            upstream, upstream_port = nginx.start_upstream(lab.run_dir / f"workers-upstream-{workers}")
        stack.callback(upstream.stop)
        with pinned_to(seats.target):
            child, port = start_router(replace(lab, upstream_port=upstream_port), {"url": triton}, workers=workers)
        stack.callback(child.stop)
        target = ready(child, f"{workers} workers", port)
        if workers > 1:  # the scheduler would move them about between each other, the load and the upstream
            for worker, core in zip(psutil.Process(child.pid).children(), cycle(sorted(seats.target)), strict=False):
                worker.cpu_affinity([core])
        yield target, child.pid


def _turn(target: Target, pid: int, workers: int, body: Path, lab: Lab) -> Turn:
    before = cpu_s(pid)
    load = wrk.run(
        target.url,
        body,
        expected=nginx.ANSWER,
        connections=CONNECTIONS,
        seconds=lab.seconds,
        cores=_seats(lab.cores, workers).load,
    )
    used = cpu_s(pid) - before
    wait_idle(pid)
    cpu_us = 1e6 * used / (load.good + CONNECTIONS)
    return Turn(workers, load.per_second, round(cpu_us, 1), round(used / lab.seconds, 2), load.bad + load.broken)
