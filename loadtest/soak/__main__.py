"""Mixed traffic through the whole stack for a while, with a fault every half minute: `make soak MINUTES=10`.

Ends with a report on stdout and in the run directory, and with status 1 when a request ended in a way that neither its
kind nor a fault of its time explains, when memory or open files grow, or when the router's accounts do not add up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.processes import interrupt_on_sigterm
from loadtest.scrape import Page
from loadtest.soak.faults import FAULTS, Fault, World
from loadtest.soak.resources import Reading
from loadtest.soak.traffic import Clients, Seen
from loadtest.soak.verdict import Run, Window, markdown, summary
from loadtest.stack import CHEAP, EXPENSIVE, REPOSITORY, Ports, Stack, StartError, running_stack

CONFIG = Path(__file__).with_name("router.yaml")
CLIENTS, PAUSE_S = 24, 0.05
LOOK_EVERY_S = 2.0
SETTLED_WITHIN_S = 25.0  # longer than any request may take
IDLE_S = 32.0  # longer than the router keeps a connection to a model that nobody uses
GAUGES = tuple(f"llm_router_{name}" for name in ("in_flight_requests", "upstream_in_flight_requests", "queue_depth"))


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something breaks, and for how long, in seconds."""

    every_s: float
    lasts_s: float


WARM_UP, SOAK = Pace(15, 3), Pace(30, 10)  # each fault once: memory that its first time takes is no leak


@dataclass(frozen=True, slots=True)
class Phase:
    """What was seen in one of the two."""

    seen: list[Seen]
    windows: list[Window]
    loaded: list[Reading]


def main() -> int:
    """Run, print the report, return 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, without the warm-up (%(default)g)")
    parser.add_argument("--report", type=Path, help="write the report here too, as PATH.json and PATH.md")
    options = parser.parse_args()
    interrupt_on_sigterm()
    run_dir = REPOSITORY / ".run" / "soak"
    try:
        with running_stack(run_dir, Ports.any_free(), say, config_file=CONFIG) as stack:
            report = summary(soak(stack, options.minutes))
    except StartError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: stopped", file=sys.stderr)
        return 130
    for path in filter(None, (run_dir / "report", options.report)):
        path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
        path.with_suffix(".md").write_text(markdown(report))
    print("\n" + markdown(report))
    return 0 if report["passed"] else 1


def soak(stack: Stack, minutes: float) -> Run:
    """Warm up, then break one thing after another under traffic; return everything that was seen."""
    port = urlsplit(stack.router_url).port or 0
    with World(stack, port) as world:
        say(f"warm-up: {CLIENTS} clients, every fault once")
        warm_up = phase(world, WARM_UP, FAULTS, 0)
        first = settled(stack, len(warm_up.seen))
        say(f"soak: {minutes:g} minutes, a fault every {SOAK.every_s:g} s")
        faults = islice(cycle(FAULTS), max(1, round(60 * minutes / SOAK.every_s)))
        main_part = phase(world, SOAK, faults, first.requests)
        last = settled(stack, first.requests + len(main_part.seen))
    page = Page.get(f"{stack.router_url}/metrics")
    asked_by_us = 2 * 2  # by `settled`, once before and once after
    counted = page.by_label("llm_router_requests_total", "outcome")
    return Run(
        minutes=minutes,
        seen=[*warm_up.seen, *main_part.seen],
        windows=[*warm_up.windows, *main_part.windows],
        loaded=main_part.loaded,
        idle=(first, last),
        counted={**counted, "ok": counted.get("ok", 0) - asked_by_us},
        left_over={name: page.total(name) for name in GAUGES},
        log_problems=["The router has logged a traceback."] if "Traceback" in stack.router.log_path.read_text() else [],
    )


def phase(world: World, pace: Pace, faults: Iterable[Fault], requests_before: int) -> Phase:
    """Let clients ask, and break and mend one thing after another meanwhile."""
    clients = Clients(world.port, CLIENTS, PAUSE_S)
    now = Phase(clients.seen, [], [])
    clients.start()
    for fault in faults:
        began = time.monotonic()
        fault.begin(world)
        look_until(began + pace.lasts_s, world, now, requests_before)
        fault.end(world)
        now.windows.append(Window(fault, began, time.monotonic()))
        look_until(began + pace.every_s, world, now, requests_before)
        reading = now.loaded[-1]
        held = f"{reading.rss_bytes / 1e6:8.1f} MB {reading.descriptors:5} files"
        say(f"{len(now.seen):8,} requests {held}   {fault.name}")
    clients.stop()
    return now


def look_until(moment: float, world: World, now: Phase, requests_before: int) -> None:
    """Read the router's memory and files every two seconds; ChildError when it has ended."""
    while True:
        now.loaded.append(Reading.of(world.stack.router.pid, requests_before + len(now.seen)))
        if (left := moment - time.monotonic()) <= 0:
            return
        time.sleep(min(LOOK_EVERY_S, left))


def settled(stack: Stack, requests: int) -> Reading:
    """Wait until nothing is under way and idle connections are old, and read what the router holds then."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        page = Page.get(f"{stack.router_url}/metrics")
        if not any(page.total(name) for name in GAUGES):
            break
        time.sleep(0.2)
    time.sleep(IDLE_S)
    for model in (CHEAP, EXPENSIVE):  # it lets go of connections that are too old when it asks a model again
        ask_once(stack, model)
    return Reading.of(stack.router.pid, requests)


def ask_once(stack: Stack, model: str) -> None:
    """Have the router ask a model."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello?"}]}).encode()
    url, headers = f"{stack.router_url}/v1/chat/completions", {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:  # noqa: S310 - loopback
        answer.read()


def say(line: str) -> None:
    """Show progress at once, also through a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
