"""Whether a soak has passed. Pure: what was seen in, problems and a report out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.soak.faults import SETTLING_S, Fault
from loadtest.soak.resources import Reading, rss_slope
from loadtest.soak.traffic import Seen, tally

MAX_RSS_SLOPE = 1_000_000
"""Bytes for 100,000 requests; a growth of less than this in all is the allocator's."""
WARM_UP_REQUESTS = 20_000
"""Memory is judged from here on: until then caches, pools, metrics' children and the allocator's arenas fill."""
MAX_DRIFT = 5
"""Open files more (or fewer) at the end than after the warm-up, both times without traffic."""


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault was in force, by the monotonic clock."""

    fault: Fault
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a soak has seen. `idle` are readings without traffic, after the warm-up and at the end."""

    minutes: float
    seen: Sequence[Seen]
    windows: Sequence[Window]
    loaded: Sequence[Reading]
    idle: tuple[Reading, Reading]
    counted: Mapping[str, float]  # outcomes by the router's own metrics
    left_over: Mapping[str, float]  # gauges that must be 0
    log_problems: Sequence[str]


def unexplained(run: Run) -> list[Seen]:
    """Return the requests that ended as neither their kind nor a fault of their time explains."""
    return [one for one in run.seen if one.outcome not in _explained(one, run.windows)]


def _explained(one: Seen, windows: Sequence[Window]) -> set[str]:
    meanwhile = (w for w in windows if w.began <= one.ended and one.began <= w.ended + SETTLING_S)
    return {one.kind.expected}.union(*(window.fault.explains for window in meanwhile))


def problems(run: Run) -> list[str]:
    """Return what the run fails for, one sentence each; an empty list is a pass."""
    found = [
        f"{number} requests of kind '{kind}' ended as '{outcome}', which nothing explains."
        for (kind, outcome), number in Counter((one.kind.name, one.outcome) for one in unexplained(run)).items()
    ]
    sent, counted = sum(one.counted for one in run.seen), sum(run.counted.values())
    if sent != counted:
        found.append(f"The clients have seen {sent} chats end, the router has counted {counted:g}.")
    if run.counted.get("internal_error"):
        found.append(f"{run.counted['internal_error']:g} requests ended as internal_error.")
    found += [f"{name} is {value:g} at the end, not 0." for name, value in run.left_over.items() if value]
    judged = after_warm_up(run)
    slope, requests = rss_slope(judged), judged[-1].requests - judged[0].requests
    if slope > MAX_RSS_SLOPE and slope * requests / 100_000 > MAX_RSS_SLOPE:
        found.append(f"Memory grows by {slope / 1e6:.2f} MB in 100,000 requests, over {MAX_RSS_SLOPE / 1e6:g} MB.")
    if abs(drift := drift_of(run)) > MAX_DRIFT:
        found.append(f"{drift:+d} open files since the warm-up, over {MAX_DRIFT}.")
    return [*found, *run.log_problems]


def after_warm_up(run: Run) -> Sequence[Reading]:
    """Return the readings under load by which memory is judged; all of them when the run is too short for a warm-up."""
    return [reading for reading in run.loaded if reading.requests >= WARM_UP_REQUESTS] or run.loaded


def drift_of(run: Run) -> int:
    """Return how many more files are open at the end than after the warm-up."""
    return run.idle[1].descriptors - run.idle[0].descriptors


def summary(run: Run) -> dict[str, Any]:
    """Return the report as data."""
    judged = after_warm_up(run)
    return {
        "passed": not problems(run),
        "problems": problems(run),
        "minutes": round(run.minutes, 1),
        "requests": len(run.seen),
        "rss_mb": {"after_warm_up": _mb(judged[0]), "end": _mb(judged[-1])},
        "rss_judged_requests": [judged[0].requests, judged[-1].requests],
        "rss_slope_mb_per_100000_requests": round(rss_slope(judged) / 1e6, 2),
        "open_files": {"after_warm_up": run.idle[0].descriptors, "end": run.idle[1].descriptors},
        "faults": [{"name": w.fault.name, "seconds": round(w.ended - w.began, 1)} for w in run.windows],
        "outcomes_by_kind": tally(run.seen),
        "outcomes_by_the_router": dict(run.counted),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    rss, files = report["rss_mb"], report["open_files"]
    limit = f"at most {MAX_RSS_SLOPE / 1e6:g}, where it is more than {MAX_RSS_SLOPE / 1e6:g} MB in all"
    judged_from, judged_to = report["rss_judged_requests"]
    lines = [
        "# Soak",
        "",
        f"{'Passed' if report['passed'] else 'FAILED'}: {report['minutes']} minutes, {report['requests']:,} requests, "
        f"{len(report['faults'])} faults.",
        "",
        *(f"- {problem}" for problem in report["problems"]),
        *([""] if report["problems"] else []),
        "| | after the warm-up | at the end | limit |",
        "|---|---|---|---|",
        f"| memory (RSS), requests {judged_from:,} to {judged_to:,} | {rss['after_warm_up']} MB | {rss['end']} MB | "
        f"{report['rss_slope_mb_per_100000_requests']:+} MB in 100,000 requests, {limit} |",
        f"| open files | {files['after_warm_up']} | {files['end']} | a difference of at most {MAX_DRIFT} |",
        "",
        "| requests | how they ended |",
        "|---|---|",
        *(f"| {kind} | {_counts(outcomes)} |" for kind, outcomes in report["outcomes_by_kind"].items()),
        f"| as the router counted them | {_counts(report['outcomes_by_the_router'])} |",
        "",
        "| fault | times |",
        "|---|---|",
        *(f"| {name} | {times} |" for name, times in Counter(one["name"] for one in report["faults"]).items()),
    ]
    return "\n".join(lines) + "\n"


def _counts(outcomes: Mapping[str, float]) -> str:
    ordered = sorted(outcomes.items(), key=lambda item: -item[1])
    return ", ".join(f"{outcome} {number:,.0f}" for outcome, number in ordered)


def _mb(reading: Reading) -> float:
    return round(reading.rss_bytes / 1e6, 1)
