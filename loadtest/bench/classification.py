"""The classification tables: batches against single calls, and arrivals at a steady rate with every prompt scored."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import cpu_s, pinned_to
from loadtest.bench.streams import dripping
from loadtest.bench.targets import CHAT, QUESTION, Target, ready, start_router
from loadtest.bench.text import markdown
from loadtest.bench.wrk import Load
from loadtest.constant_rate import Result, open_loop, post
from loadtest.local_triton import LocalTriton

ECHO = Path(__file__).parents[1] / "echo_models" / "echo_ceiling"
CONNECTIONS = 200
NUMBER = "00000000"  # wrk replaces it, so that no two prompts are the same
PATIENT = {"cache_entries": 0, "deadline_ms": 10000, "on_failure": "reject"}  # without a score there is no answer
BATCHING = {
    "micro-batched": {"max_batch_size": 64},
    "one prompt a call": {"max_batch_size": 1, "max_queue_delay_ms": 0, "max_batches_in_flight": 64},
}
ANY_CORE, ONE_CORE = "on any core", "on the router's core"  # where Triton runs
UPSTREAM_S = 1.0
RATES, QUICK_RATES = (500, 1000, 2000), (200,)
ARRIVALS_S, WARM_UP_S = 8.0, 3.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one way to call Triton: what came, and the CPU seconds that router and Triton used."""

    load: Load
    router_s: float
    triton_s: float


@dataclass(frozen=True, slots=True)
class Batching:
    """One way to call Triton, over all rounds. CPU is of the router and of Triton, the least of the rounds."""

    name: str
    cores: str
    per_second: float
    best_per_second: float
    router_cpu_us: float
    triton_cpu_us: float
    p50_ms: float
    p99_ms: float
    wrong_or_lost: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One rate of arrivals: what was added to the upstream's second, in ms, by the generator's clock."""

    name: str
    rate: int
    answers: int
    wrong_or_lost: int
    added_p50_ms: float
    added_p95_ms: float
    added_p99_ms: float


def section(lab: Lab) -> Outcome:
    """Measure both; the router's cache is off throughout."""
    batching = measure_batching(lab)
    arrivals = measure_arrivals(lab)
    gains = {cores: _gain([one for one in batching if one.cores == cores]) for cores in (ANY_CORE, ONE_CORE)}
    return Outcome(
        title="Classification",
        text=f"{batching_table(batching)}\n\n{arrivals_table(arrivals)}",
        figures={
            "batching": [asdict(one) for one in batching],
            "batched_over_single": gains,
            "arrivals": [asdict(one) for one in arrivals],
        },
        notes=[
            f"First table: {CONNECTIONS} connections, every prompt different, Triton with a model that does no work"
            f" in place of a GPU's. Batched over single: {gains[ANY_CORE]:.2f} times while Triton may run on any core,"
            f" {gains[ONE_CORE]:.2f} times when it shares the router's.",
            f"Second table: open arrivals, an upstream that takes {UPSTREAM_S:g} s, Triton with the static classifier,"
            " no core reserved for anybody. `direct` is the same load without the router: what the generator and the"
            " upstream add themselves.",
        ],
    )


def measure_batching(lab: Lab) -> list[Batching]:
    """Measure the router with and without batches: Triton where it likes, then on the router's core alone."""
    placed = {ANY_CORE: lab.cores.load | lab.cores.target, ONE_CORE: lab.cores.target}
    return [row for name, cores in placed.items() for row in _measure_batching(lab, name, cores)]


def _measure_batching(lab: Lab, cores_name: str, tritons_cores: frozenset[int]) -> list[Batching]:
    """Take turns before one Triton."""
    body = lab.run_dir / "numbered.json"
    body.write_text(json.dumps(_question(f"What is {NUMBER} in words?")))
    turns: dict[str, list[Turn]] = {name: [] for name in BATCHING}
    with ExitStack() as stack:
        with pinned_to(tritons_cores):
            triton = stack.enter_context(LocalTriton.start(lab.run_dir / "triton-echo", extra_models=[ECHO]))
        routers: dict[str, Target] = {}
        with pinned_to(lab.cores.target):
            for name, settings in BATCHING.items():
                child, port = start_router(lab, {"url": triton.grpc_url, "model": ECHO.name, **PATIENT, **settings})
                stack.callback(child.stop)
                routers[name] = ready(child, name, port)
        for number in range(lab.rounds + 1):
            for name, target in routers.items():
                pids = (target.pid or 0, triton.pid)
                before = [cpu_s(pid) for pid in pids]
                load = wrk.run(
                    target.url,
                    body,
                    expected=nginx.ANSWER,
                    connections=CONNECTIONS,
                    seconds=lab.seconds,
                    cores=lab.cores.load,
                    number=NUMBER,
                )
                router_s, triton_s = (cpu_s(pid) - then for pid, then in zip(pids, before, strict=True))
                if number:
                    turns[name].append(Turn(load, router_s, triton_s))
                    lab.say(f"round {number}/{lab.rounds}: {cores_name}: {name}: {load.per_second:,.0f}/s")
    return [_batching(name, cores_name, done) for name, done in turns.items()]


def _gain(rows: Sequence[Batching]) -> float:
    batched, single = (one.best_per_second for name in BATCHING for one in rows if one.name == name)
    return round(batched / single, 2)


def _batching(name: str, cores: str, turns: Sequence[Turn]) -> Batching:
    def least_us(used_s: Iterable[float]) -> float:
        return round(min(1e6 * s / (load.good + CONNECTIONS) for s, load in zip(used_s, loads, strict=True)), 1)

    loads = [turn.load for turn in turns]
    return Batching(
        name=name,
        cores=cores,
        per_second=round(statistics.median(load.per_second for load in loads)),
        best_per_second=round(max(load.per_second for load in loads)),
        router_cpu_us=least_us(turn.router_s for turn in turns),
        triton_cpu_us=least_us(turn.triton_s for turn in turns),
        p50_ms=min(load.p50_us for load in loads) / 1e3,
        p99_ms=min(load.p99_us for load in loads) / 1e3,
        wrong_or_lost=sum(load.refused + load.bad + load.broken for load in loads),
    )


def measure_arrivals(lab: Lab) -> list[Arrivals]:
    """Offer each rate to the upstream itself and to the router before it."""
    rows = []
    with ExitStack() as stack:
        drip = stack.enter_context(dripping(lab, "--delay-ms", str(1e3 * UPSTREAM_S)))
        with pinned_to(lab.cores.target | lab.cores.load):
            triton = stack.enter_context(LocalTriton.start(drip.run_dir / "triton"))
            child, port = start_router(drip, {"url": triton.grpc_url, **PATIENT})
            stack.callback(child.stop)
            ready(child, "router", port)
            for rate in QUICK_RATES if lab.is_quick else RATES:
                for name, where in (("direct", drip.upstream_port), ("router", port)):
                    result = uvloop.run(open_loop(where, _numbered, rate=rate, seconds=ARRIVALS_S))
                    rows.append(_arrivals(name, rate, result))
                    lab.say(f"{rate}/s {name}: p95 {rows[-1].added_p95_ms:.1f} ms added")
    return rows


def _arrivals(name: str, rate: int, result: Result) -> Arrivals:
    def added_ms(q: float) -> float:
        return round(1e3 * (result.quantile(q, 200, WARM_UP_S) - UPSTREAM_S), 2)

    good = result.statuses[200]
    return Arrivals(name, rate, good, len(result.samples) - good, added_ms(0.5), added_ms(0.95), added_ms(0.99))


def _question(text: str) -> dict[str, Any]:
    return QUESTION | {"messages": [{"role": "user", "content": text}]}


def _numbered(number: int) -> bytes:
    return post(CHAT, json.dumps(_question(f"What is {number} in words, and why is it not {number + 1}?")).encode())


def batching_table(rows: Sequence[Batching]) -> str:
    """Return the first table for people."""
    header = [
        "",
        "Triton runs",
        "answers/s",
        "best",
        "router CPU µs",
        "Triton CPU µs",
        "p50 ms",
        "p99 ms",
        "wrong or lost",
    ]
    return markdown(
        header,
        [
            [
                one.name,
                one.cores,
                f"{one.per_second:,.0f}",
                f"{one.best_per_second:,.0f}",
                f"{one.router_cpu_us:,.0f}",
                f"{one.triton_cpu_us:,.0f}",
                f"{one.p50_ms:,.1f}",
                f"{one.p99_ms:,.1f}",
                f"{one.wrong_or_lost:,}",
            ]
            for one in rows
        ],
    )


def arrivals_table(rows: Sequence[Arrivals]) -> str:
    """Return the second table for people."""
    header = ["", "arrivals/s", "added p50 ms", "p95", "p99", "wrong or lost"]
    return markdown(
        header,
        [
            [
                one.name,
                f"{one.rate:,}",
                f"{one.added_p50_ms:,.1f}",
                f"{one.added_p95_ms:,.1f}",
                f"{one.added_p99_ms:,.1f}",
                f"{one.wrong_or_lost} of {one.answers:,}",
            ]
            for one in rows
        ],
    )
