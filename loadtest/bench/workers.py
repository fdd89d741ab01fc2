"""Two workers against one: whether a second core does as much as the first."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import cpu_s, pinned_to, wait_idle
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
    """Load one worker and two in turns; each has the cores of its own where there are three."""
    one, two = _measure(lab)
    faster, by_cpu = two.per_second / one.per_second, 2 * one.cpu_us / two.cpu_us
    notes = [f"Two workers answer {faster:.2f} times as much as one."]
    if shared := len(lab.cores.target | lab.cores.load) < FREE_CORES:
        notes.append(f"Load and upstream share their two cores; by CPU of a request it would be {by_cpu:.2f} times.")
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
        with pinned_to(lab.cores.load):
            triton = stack.enter_context(LocalTriton.start(lab.run_dir / "workers-triton"))
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


@contextlib.contextmanager
def _router(lab: Lab, triton: str, workers: int) -> Iterator[tuple[Target, int]]:
    cores = lab.cores.target if workers == 1 else lab.cores.target | set(sorted(lab.cores.load)[:1])
    with pinned_to(cores):
        child, port = start_router(lab, {"url": triton}, workers=workers)
    try:
        yield ready(child, f"{workers} workers", port), child.pid
    finally:
        child.stop()


def _turn(target: Target, pid: int, workers: int, body: Path, lab: Lab) -> Turn:
    before = cpu_s(pid)
    load = wrk.run(
        target.url,
        body,
        expected=nginx.ANSWER,
        connections=CONNECTIONS,
        seconds=lab.seconds,
        cores=lab.cores.load,
    )
    used = cpu_s(pid) - before
    wait_idle(pid)
    cpu_us = 1e6 * used / (load.good + CONNECTIONS)
    return Turn(workers, load.per_second, round(cpu_us, 1), round(used / lab.seconds, 2), load.bad + load.broken)
