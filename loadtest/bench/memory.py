"""The memory table: what each gateway holds when idle, and with a thousand clients."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from loadtest.bench import nginx, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import rss_mb
from loadtest.bench.targets import PEERS, QUESTION, Target, running
from loadtest.bench.text import markdown

CONNECTIONS = 1000
_SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One target: resident memory of all its processes after its start, at most under load, and after it."""

    name: str
    idle_mb: float
    most_mb: float
    after_mb: float
    answers: int
    refused: int
    broken: int


def section(lab: Lab) -> Outcome:
    """Start each anew and load it once. A quick run leaves the peers out."""
    with running(lab, ("nginx", "router", *(() if lab.is_quick else PEERS))) as here:
        rows = [_row(target, lab) for target in here.targets]
    return Outcome(
        title="Memory",
        text=table(rows),
        figures={"connections": CONNECTIONS, "rows": [asdict(one) for one in rows], "absent": dict(here.absent)},
        notes=[f"{CONNECTIONS:,} connections that ask as fast as they are answered, for {_seconds(lab)} s."],
    )


def _seconds(lab: Lab) -> int:
    return 2 * lab.seconds


def _row(target: Target, lab: Lab) -> Row:
    pid = target.pid or 0
    body = lab.run_dir / "memory.json"
    body.write_text(json.dumps(QUESTION))
    load = partial(
        wrk.run,
        target.url,
        body,
        expected=nginx.ANSWER,
        connections=CONNECTIONS,
        seconds=_seconds(lab),
        cores=lab.cores.load,
        headers=target.headers,
    )
    idle_mb = most_mb = rss_mb(pid)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(load)
        while not under_way.done():
            most_mb = max(most_mb, rss_mb(pid))
            time.sleep(_SAMPLE_S)
        came = under_way.result()
    lab.say(f"{target.name}: {idle_mb:.0f} MB idle, {most_mb:.0f} MB at most")
    return Row(
        name=target.name,
        idle_mb=round(idle_mb, 1),
        most_mb=round(most_mb, 1),
        after_mb=round(rss_mb(pid), 1),
        answers=came.good,
        refused=came.refused,
        broken=came.bad + came.broken,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the table for people."""
    header = ["", "idle MB", f"{CONNECTIONS:,} connections MB", "after MB", "answers", "refused", "wrong or lost"]
    return markdown(
        header,
        [
            [
                one.name,
                f"{one.idle_mb:,.0f}",
                f"{one.most_mb:,.0f}",
                f"{one.after_mb:,.0f}",
                f"{one.answers:,}",
                f"{one.refused:,}",
                f"{one.broken:,}",
            ]
            for one in rows
        ],
    )
