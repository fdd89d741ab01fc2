"""Cost as work grows: by connections, by prompt length, by conversation length, by body size up to the limit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import cpu_s, wait_idle
from loadtest.bench.plot import Line, log_log
from loadtest.bench.targets import QUESTION, Target, running
from loadtest.bench.text import markdown

CONNECTIONS = (1, 4, 16, 64, 256, 1000, 4000)
QUICK_CONNECTIONS = (1, 64, 1000)
SIZE_CONNECTIONS = 8
SETTLE_S = 3
BODY_LIMIT = 4194304  # server.max_body_bytes by default
WORDS = "The quick brown fox jumps over the lazy dog and writes it down. "


@dataclass(frozen=True, slots=True)
class Crowd:
    """One target under so many connections."""

    name: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    refused: int
    wrong_or_lost: int


@dataclass(frozen=True, slots=True)
class Size:
    """One target with requests of one size."""

    name: str
    kind: str
    size: int
    body_bytes: int
    per_second: float
    cpu_us: float
    wrong_or_lost: int


def section(lab: Lab) -> Outcome:
    """Measure the router beside nginx at each size, in turns."""
    crowds: list[Crowd] = []
    sizes: list[Size] = []
    with ExitStack() as stack:
        targets = stack.enter_context(running(lab, ("nginx", "router"))).targets
        for connections in QUICK_CONNECTIONS if lab.is_quick else CONNECTIONS:
            for target in targets:
                crowds.append(_crowd(target, lab, connections))
                one = crowds[-1]
                lab.say(f"{connections} connections, {one.name}: {one.per_second:,.0f}/s, {one.refused} refused")
        for kind, size, body in bodies(is_quick=lab.is_quick):
            for target in targets:
                sizes.append(_size(target, lab, kind, size, body))
                lab.say(f"{kind} {size:,}, {target.name}: {sizes[-1].cpu_us:,.0f} us CPU")
    return Outcome(
        title="Cost as work grows",
        text=f"{crowds_table(crowds)}\n\n{sizes_table(sizes)}",
        figures={"connections": [asdict(one) for one in crowds], "sizes": [asdict(one) for one in sizes]},
        plots=plots(crowds, sizes),
    )


def bodies(*, is_quick: bool) -> list[tuple[str, int, dict[str, Any]]]:
    """Return (what grows, how much of it, the request) for each size. The last is just under the body's limit."""
    step = 3 if is_quick else 1
    lengths, counts, sizes = (100, 1000, 10_000, 100_000), (1, 9, 65, 513), (1000, 30_000, 1_000_000, BODY_LIMIT - 1000)
    return [
        *(("characters of the prompt", length, _asking(_text(length))) for length in lengths[::step]),
        *(("messages", count, _conversing(count)) for count in counts[::step]),
        *(("bytes of an image", size, _showing(size)) for size in sizes[::step]),
    ]


def _asking(text: str) -> dict[str, Any]:
    return QUESTION | {"messages": [{"role": "user", "content": text}]}


def _conversing(count: int) -> dict[str, Any]:
    roles = ("user", "assistant")
    return QUESTION | {"messages": [{"role": roles[i % 2], "content": f"{i}: {_text(100)}"} for i in range(count)]}


def _showing(size: int) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * size}"}}
    return QUESTION | {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]}


def _text(length: int) -> str:
    return (WORDS * (length // len(WORDS) + 1))[:length]


def _crowd(target: Target, lab: Lab, connections: int) -> Crowd:
    body = lab.run_dir / "crowd.json"
    body.write_text(json.dumps(QUESTION))
    seconds = lab.seconds + (SETTLE_S if connections >= 1000 else 0)  # to open them all takes its time
    load, used = _load(target, lab, body, connections, seconds)
    return Crowd(
        name=target.name,
        connections=connections,
        per_second=round(load.per_second),
        p50_ms=load.p50_us / 1e3,
        p99_ms=load.p99_us / 1e3,
        cpu_us=round(1e6 * used / (load.good + load.refused + connections), 1),
        refused=load.refused,
        wrong_or_lost=load.bad + load.broken,
    )


def _size(target: Target, lab: Lab, kind: str, size: int, request: dict[str, Any]) -> Size:
    body = lab.run_dir / "size.json"
    body.write_text(json.dumps(request))
    _load(target, lab, body, 1, 1)  # its prompt is scored, and known from here on
    load, used = _load(target, lab, body, SIZE_CONNECTIONS, lab.seconds)
    return Size(
        name=target.name,
        kind=kind,
        size=size,
        body_bytes=body.stat().st_size,
        per_second=round(load.per_second, 1),
        cpu_us=round(1e6 * used / (load.good + SIZE_CONNECTIONS), 1),
        wrong_or_lost=load.refused + load.bad + load.broken,
    )


def _load(target: Target, lab: Lab, body: Path, connections: int, seconds: int) -> tuple[wrk.Load, float]:
    """Return what came of a load, and the CPU seconds that the target used."""
    pid = target.pid or 0
    wait_idle(pid)
    before = cpu_s(pid)
    load = wrk.run(
        target.url, body, expected=nginx.ANSWER, connections=connections, seconds=seconds, cores=lab.cores.load
    )
    return load, cpu_s(pid) - before


def crowds_table(rows: Sequence[Crowd]) -> str:
    """Return the table by connections."""
    header = ["", "connections", "answers/s", "p50 ms", "p99 ms", "CPU µs", "refused", "wrong or lost"]
    return markdown(
        header,
        [
            [
                one.name,
                f"{one.connections:,}",
                f"{one.per_second:,.0f}",
                f"{one.p50_ms:,.2f}",
                f"{one.p99_ms:,.1f}",
                f"{one.cpu_us:,.0f}",
                f"{one.refused:,}",
                f"{one.wrong_or_lost:,}",
            ]
            for one in rows
        ],
    )


def sizes_table(rows: Sequence[Size]) -> str:
    """Return the table by size."""
    header = ["", "of what", "how much", "body KB", "answers/s", "CPU µs", "wrong or lost"]
    return markdown(
        header,
        [
            [
                one.name,
                one.kind,
                f"{one.size:,}",
                f"{one.body_bytes / 1e3:,.1f}",
                f"{one.per_second:,.0f}",
                f"{one.cpu_us:,.0f}",
                f"{one.wrong_or_lost:,}",
            ]
            for one in rows
        ],
    )


def plots(crowds: Sequence[Crowd], sizes: Sequence[Size]) -> dict[str, str]:
    """Return the pictures: answers a second and latency by connections, CPU by body size."""
    names = list(dict.fromkeys(one.name for one in crowds))
    by_name = {name: [one for one in crowds if one.name == name] for name in names}
    kinds = list(dict.fromkeys((one.name, one.kind) for one in sizes))
    by_kind = {key: [one for one in sizes if (one.name, one.kind) == key] for key in kinds}
    return {
        "answers-by-connections": log_log(
            "Answers per second by connections",
            "connections",
            "answers/s",
            [Line(name, [o.connections for o in own], [o.per_second for o in own]) for name, own in by_name.items()],
        ),
        "latency-by-connections": log_log(
            "Latency by connections",
            "connections",
            "ms",
            [
                Line(f"{name} {which}", [o.connections for o in own], [getattr(o, f"{which}_ms") for o in own])
                for name, own in by_name.items()
                for which in ("p50", "p99")
            ],
        ),
        "cpu-by-size": log_log(
            "CPU per request by the size of its body",
            "bytes",
            "µs of CPU",
            [
                Line(f"{name}: {kind.rpartition(' ')[2]}", [o.body_bytes for o in own], [o.cpu_us for o in own])
                for (name, kind), own in by_kind.items()
            ],
        ),
    }
