"""The proxy table: what one chat request costs each gateway, and what it adds to the upstream's own time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import cpu_s, rss_mb, wait_idle
from loadtest.bench.targets import FLOORS, PEERS, QUESTION, Target, running
from loadtest.bench.text import markdown
from loadtest.bench.wrk import Load

CONNECTIONS = 64
SLOW_FACTOR = 4  # a slow gateway is measured for longer, or it would answer too few
GENERATOR_LIMIT = 0.95


@dataclass(frozen=True, slots=True)
class Round:
    """One target's turn: many connections at once, then one alone."""

    cpu_s: float
    many: Load
    one: Load

    @property
    def cpu_us(self) -> float:
        """CPU µs for a request. What is cut off at the end counts as answered, which favours slow targets."""
        return 1e6 * self.cpu_s / (self.many.good + CONNECTIONS)


@dataclass(frozen=True, slots=True)
class Row:
    """One target over all rounds: the least CPU and latency, the median rate, and how far the rounds differ.

    A spread is the largest over the smallest. `added_*` are over the same round's direct request; CPU is 0 for direct.
    """

    name: str
    cpu_us: float
    cpu_spread: float
    per_second: float
    per_second_spread: float
    added_p50_ms: float
    added_p99_ms: float
    memory_mb: float
    answers: int
    refused: int
    bad: int
    broken: int
    generator_share: float
    example: str


def section(lab: Lab) -> Outcome:
    """Measure all gateways in turns; a quick run leaves the peers out."""
    with running(lab, (*FLOORS, "router", *(() if lab.is_quick else (*PEERS, "litellm-routing")))) as here:
        measured = measure(here.targets, lab)
    return Outcome(
        title="One chat request",
        text=table(measured),
        figures={"rows": [asdict(row) for row in measured], "absent": dict(here.absent)},
        notes=[_NOTE] * (not lab.is_quick) + [f"{name} was left out: {why}" for name, why in here.absent.items()],
    )


_NOTE = (
    "router, switchyard and litellm-routing choose between two models for each prompt; router and litellm-routing also"
    " know prices and count for Prometheus. portkey, litellm and nginx only pass the request on."
)


def measure(targets: Sequence[Target], lab: Lab) -> list[Row]:
    """Measure the targets in turns, after a round that does not count."""
    body = lab.run_dir / "question.json"
    body.write_text(json.dumps(QUESTION))
    done: dict[str, list[Round]] = {target.name: [] for target in targets}
    for number in range(lab.rounds + 1):
        for target in targets:
            one = _turn(target, body, lab)
            if number == 0:
                continue  # connections, caches, compilers
            done[target.name].append(one)
            lab.say(
                f"round {number}/{lab.rounds}: {target.name}: {one.many.per_second:,.0f}/s, {one.cpu_us:,.0f} us CPU"
            )
    memory = {target.name: rss_mb(target.pid) if target.pid else 0.0 for target in targets}
    return rows(done, memory)


def _turn(target: Target, body: Path, lab: Lab) -> Round:
    factor = SLOW_FACTOR if target.is_slow else 1

    def load(connections: int, seconds: int) -> Load:
        return wrk.run(
            target.url,
            body,
            expected=nginx.ANSWER,
            connections=connections,
            seconds=seconds,
            cores=lab.cores.load,
            headers=target.headers,
        )

    before = cpu_s(target.pid) if target.pid else 0.0
    many = load(CONNECTIONS, lab.seconds * factor)
    used = cpu_s(target.pid) - before if target.pid else 0.0
    if target.pid:
        wait_idle(target.pid)
    one = load(1, max(1, lab.seconds // 2))
    if target.pid:
        wait_idle(target.pid)
    return Round(used, many, one)


def rows(done: Mapping[str, Sequence[Round]], memory: Mapping[str, float]) -> list[Row]:
    """Turn rounds into rows. Added latencies need the target `direct`; they are NaN without it."""
    direct = done.get("direct", ())
    floor_p50 = min((r.one.p50_us for r in direct), default=float("nan"))
    floor_p99 = min((r.one.p99_us for r in direct), default=float("nan"))
    return [
        Row(
            name=name,
            cpu_us=round(min(r.cpu_us for r in rounds), 1),
            cpu_spread=_spread([r.cpu_us for r in rounds]),
            per_second=round(statistics.median(r.many.per_second for r in rounds)),
            per_second_spread=_spread([r.many.per_second for r in rounds]),
            added_p50_ms=round((min(r.one.p50_us for r in rounds) - floor_p50) / 1e3, 3),
            added_p99_ms=round((min(r.one.p99_us for r in rounds) - floor_p99) / 1e3, 3),
            memory_mb=round(memory.get(name, 0.0), 1),
            answers=sum(r.many.good + r.one.good for r in rounds),
            refused=sum(r.many.refused + r.one.refused for r in rounds),
            bad=sum(r.many.bad + r.one.bad for r in rounds),
            broken=sum(r.many.broken + r.one.broken for r in rounds),
            generator_share=max(r.many.generator_share for r in rounds),
            example=next((r.many.example for r in rounds if r.many.example), ""),
        )
        for name, rounds in done.items()
        if rounds
    ]


def table(measured: Sequence[Row]) -> str:
    """Return the table for people, with CPU as a multiple of nginx's."""
    floor = next((row.cpu_us for row in measured if row.name == "nginx"), float("nan"))
    header = [
        "",
        "CPU µs",
        "of nginx's",
        "spread",
        "answers/s",
        "spread",
        "added p50 ms",
        "added p99 ms",
        "memory MB",
        "wrong or lost",
    ]
    return markdown(
        header,
        [
            [
                row.name,
                f"{row.cpu_us:,.0f}",
                f"{row.cpu_us / floor:,.1f}",
                f"{row.cpu_spread:.2f}",
                f"{row.per_second:,.0f}",
                f"{row.per_second_spread:.2f}",
                f"{row.added_p50_ms:.2f}",
                f"{row.added_p99_ms:.2f}",
                f"{row.memory_mb:,.0f}",
                f"{row.refused + row.bad + row.broken} of {row.answers:,}",
            ]
            for row in measured
        ],
    )


def _spread(values: Sequence[float]) -> float:
    return round(max(values) / min(values), 2) if min(values) > 0 else 1.0  # nothing was measured, as of direct
