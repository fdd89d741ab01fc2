"""Goodput at and above capacity: `loadtest.bench_overload` as part of the report."""

from __future__ import annotations

from loadtest import bench_overload
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.text import markdown

TIMES = (1.0, 1.4, 5.0)
SECONDS = 8.0


def section(lab: Lab) -> Outcome:
    """Find the capacity, then offer multiples of it; an answer counts when it is whole within a second."""
    report = bench_overload.measure(bench_overload.CASES, TIMES, SECONDS, lab.cores)
    rows = [(name, case["capacity_per_s"], offered) for name, case in report.items() for offered in case["offered"]]
    return Outcome(
        title="More than it can do",
        text=markdown(
            [
                "",
                "capacity/s",
                "offered",
                "good of capacity",
                "refused/s",
                "no connection",
                "good p99 ms",
                "refused p99 ms",
            ],
            [
                [
                    name,
                    f"{capacity:,.0f}",
                    f"{row['times']:g} x",
                    f"{row['goodput_of_capacity']:.0%}",
                    f"{row['refused_per_s']:,.0f}",
                    f"{row['broken']}",
                    f"{row['good_p99_ms']}",
                    "" if row["refused_p99_ms"] is None else f"{row['refused_p99_ms']}",
                ]
                for name, capacity, row in rows
            ],
        ),
        figures=report,
        notes=[f"Good: whole within {bench_overload.IN_TIME_S:g} s. `no connection`: all 4,000 were waiting."],
    )
