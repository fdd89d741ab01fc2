"""The streaming table: many slow streams at once, what a chunk costs, how late it is, what a stream holds in memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import cpu_s, rss_mb, wait_idle
from loadtest.bench.stream_load import Order, Streamed
from loadtest.bench.targets import PEERS, QUESTION, REPOSITORY, Target, answers, running
from loadtest.bench.text import markdown
from loadtest.processes import Child, free_port

CHUNKS = 20
INTERVAL_MS = 200
RAMP_S = 2.0
STREAMS, QUICK_STREAMS = 2000, 200
PATIENCE_S, SLOW_PATIENCE_S = 30.0, 90.0
_SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Turn:
    """One target's turn: what the client saw, and what the server used."""

    streamed: Streamed
    cpu_s: float
    grown_mb: float


@dataclass(frozen=True, slots=True)
class Row:
    """One target over its turns: the least CPU, latencies and memory; all failures."""

    name: str
    streams: int
    failed: dict[str, int]
    ttft_p99_ms: float
    chunk_p50_ms: float
    chunk_p99_ms: float
    cpu_us_per_chunk: float
    kb_per_stream: float
    generator_share: float


def section(lab: Lab) -> Outcome:
    """Measure all gateways; slow ones get one turn. A quick run leaves the peers out."""
    count = QUICK_STREAMS if lab.is_quick else STREAMS
    names = ("direct", "nginx", "router", *(() if lab.is_quick else PEERS))
    turns: dict[str, list[Turn]] = {}
    flags = ("--chunks", str(CHUNKS), "--interval-ms", str(INTERVAL_MS))
    with dripping(lab, *flags) as drip, running(drip, names) as here:
        for number in range(min(lab.rounds, 3)):
            for target in here.targets:
                if number == 0 or not target.is_slow:
                    turn = _turn(target, drip, count)
                    turns.setdefault(target.name, []).append(turn)
                    lab.say(f"{target.name}: {turn.streamed.good} of {count} good, {_cpu_us(turn):.0f} us a chunk")
    measured = [row(name, count, done) for name, done in turns.items()]
    return Outcome(
        title=f"{count:,} slow streams at once",
        text=table(measured),
        figures={"rows": [asdict(one) for one in measured], "absent": dict(here.absent)},
        notes=[
            f"{CHUNKS} chunks each, one every {INTERVAL_MS} ms; a first token after {INTERVAL_MS} ms was not delayed.",
            *(f"{name} was left out: {why}" for name, why in here.absent.items()),
            *(f"{one.name}: {_failures(one)}." for one in measured if one.failed),
        ],
    )


@contextlib.contextmanager
def dripping(lab: Lab, *flags: str) -> Iterator[Lab]:
    """Run the upstream that keeps time, and give a lab in front of it; it runs on the cores that the caller is on."""
    port = free_port()
    run_dir = lab.run_dir / f"drip-{port}"
    command = [sys.executable, "-m", "loadtest.bench.drip", str(port), *flags]
    child = Child.start("drip", command, log_path=run_dir / "drip.log", cwd=REPOSITORY)
    try:
        upstream = Target("drip", f"http://127.0.0.1:{port}/v1/chat/completions", None)
        child.wait_until(lambda: answers(upstream), deadline_s=20)
        yield replace(lab, run_dir=run_dir, upstream_port=port)
    finally:
        child.stop()


def _turn(target: Target, lab: Lab, streams: int) -> Turn:
    url = urlsplit(target.url)
    order = Order(
        host="127.0.0.1",
        port=url.port or 80,
        request=_request(target, url.path),
        streams=streams,
        chunks=CHUNKS,
        ramp_s=RAMP_S,
        patience_s=SLOW_PATIENCE_S if target.is_slow else PATIENCE_S,
    )
    file = lab.run_dir / "order.json"
    file.write_text(json.dumps(asdict(order)))
    before_cpu, before_mb = (cpu_s(target.pid), rss_mb(target.pid)) if target.pid else (0.0, 0.0)
    command = [sys.executable, "-m", "loadtest.bench.stream_load", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as load:
        most_mb = _watch(load, target) if target.pid else 0.0
        output, _ = load.communicate()
    if target.pid:
        wait_idle(target.pid)
    used = cpu_s(target.pid) - before_cpu if target.pid else 0.0
    return Turn(Streamed(**json.loads(output.splitlines()[-1])), used, most_mb - before_mb)


def _watch(load: subprocess.Popen[str], target: Target) -> float:
    """Return the most memory that the target had while the load ran."""
    most = 0.0
    while load.poll() is None:
        most = max(most, rss_mb(target.pid or 0))
        time.sleep(_SAMPLE_S)
    return most


def _request(target: Target, path: str) -> str:
    body = json.dumps(QUESTION | {"stream": True})
    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": len(body), **target.headers}
    return "\r\n".join([f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", body])


def _cpu_us(turn: Turn) -> float:
    return 1e6 * turn.cpu_s / turn.streamed.chunks if turn.streamed.chunks else float("nan")


def row(name: str, streams: int, turns: Sequence[Turn]) -> Row:
    """Sum up a target's turns. Memory is what the first turn added, when nothing was there to be used again."""
    failed: dict[str, int] = {}
    for turn in turns:
        for what, count in turn.streamed.failed.items():
            failed[what] = failed.get(what, 0) + count
    return Row(
        name=name,
        streams=streams * len(turns),
        failed=failed,
        ttft_p99_ms=min(turn.streamed.ttft_p99_ms for turn in turns),
        chunk_p50_ms=min(turn.streamed.chunk_p50_ms for turn in turns),
        chunk_p99_ms=min(turn.streamed.chunk_p99_ms for turn in turns),
        cpu_us_per_chunk=round(min(_cpu_us(turn) for turn in turns), 1),
        kb_per_stream=round(1e3 * turns[0].grown_mb / streams, 1),
        generator_share=round(max(turn.streamed.cpu_s / turn.streamed.seconds for turn in turns), 3),
    )


def table(measured: Sequence[Row]) -> str:
    """Return the table for people, with CPU as a multiple of nginx's."""
    floor = next((row.cpu_us_per_chunk for row in measured if row.name == "nginx"), float("nan"))
    header = [
        "",
        "CPU µs a chunk",
        "of nginx's",
        "chunk p50 ms",
        "chunk p99 ms",
        "first token p99 ms",
        "KB a stream",
        "failed",
    ]
    return markdown(
        header,
        [
            [
                one.name,
                f"{one.cpu_us_per_chunk:,.0f}",
                f"{one.cpu_us_per_chunk / floor:,.1f}",
                f"{one.chunk_p50_ms:,.1f}",
                f"{one.chunk_p99_ms:,.1f}",
                f"{one.ttft_p99_ms:,.0f}",
                f"{one.kb_per_stream:,.0f}",
                f"{sum(one.failed.values())} of {one.streams:,}",
            ]
            for one in measured
        ],
    )


def _failures(one: Row) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(one.failed.items()))
