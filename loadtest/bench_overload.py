"""Goodput of one router worker below, at and above its capacity.

    python -m loadtest.bench_overload [--seconds 6] [--times 0.5 1 2 5] [--max-lag-ms 25]

Starts a simulated LLM without pauses and a router with one worker and no classifier, pinned to one core where there are
two; finds the capacity by a closed loop, then offers multiples of it in an open one. An answer counts when it is whole
within a second. Streams of 200 tokens show what a router does all day; whole answers, how cheap a refusal is beside
the cheapest answer; `slots`, a limit on requests in flight with an idle processor. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from loadtest.constant_rate import Result, post, run_open_loop
from loadtest.processes import Child, free_port, responds
from loadtest.simulated_llm import simulated_llm

IN_TIME_S = 1.0
WARM_UP_S = 4.0
CLIENTS = 16
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, of which LLM, and the router's limits."""

    name: str
    body: dict[str, Any]
    llm: dict[str, float]
    server: dict[str, float]


def _chat(**fields: object) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}], **fields}


CASES = (
    Case("streams", _chat(stream=True), {"answer_tokens": 200, "answer_sigma": 0}, {}),
    Case("whole", _chat(), {"answer_tokens": 5, "answer_sigma": 0}, {}),
    Case("slots", _chat(), {"answer_tokens": 5, "answer_sigma": 0, "ttft_ms": 200}, {"max_in_flight": 20}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case and print a table and a JSON document."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, 4 to warm up (default 10)")
    parser.add_argument("--max-lag-ms", type=float, help="the router's server.max_lag_ms (default its own)")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="only these")
    parser.add_argument("--times", type=float, nargs="+", default=[0.5, 1, 2, 5], help="multiples of the capacity")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if not options.cases or case.name in options.cases]
    if options.max_lag_ms is not None:
        for case in cases:
            case.server["max_lag_ms"] = options.max_lag_ms
    print(json.dumps(measure(cases, options.times, options.seconds)))
    return 0


def measure(cases: Sequence[Case], multiples: Sequence[float], seconds: float) -> dict[str, Any]:
    """Return for each case its capacity and a row for each multiple of it; print them on the way."""
    report = {}
    for case in cases:
        with _running(case) as port:
            capacity = _capacity(port, case, seconds)
            print(f"{case.name}: {capacity:.0f} requests/s in a closed loop of {CLIENTS} clients")
            request = post(CHAT, json.dumps(case.body).encode())
            rows = [
                _row(run_open_loop(port, request, rate=times * capacity, seconds=seconds), times, capacity)
                for times in multiples
            ]
        report[case.name] = {"capacity_per_s": round(capacity, 1), "offered": rows}
    return report


@contextmanager
def _running(case: Case) -> Iterator[int]:
    """Run LLM and router and give the router's port."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-overload-")))
        llm = stack.enter_context(simulated_llm("bench-sim", any_model=True, **case.llm))
        port = free_port()
        config = {
            "server": {"port": port, **case.server},
            "admin": {"enabled": False},
            "models": {"only": {"api_base": llm.base_url}},
            "policies": {"default": {"type": "fixed", "model": "only"}},
        }
        file = directory / "router.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "router", "serve", "--config", str(file)]
        router = Child.start("router", command, log_path=directory / "router.log", cwd=Path(__file__).parents[1])
        stack.callback(router.stop)
        router.wait_until(lambda: responds(f"http://127.0.0.1:{port}/health/live"), deadline_s=30)
        first, *others = sorted(os.sched_getaffinity(0))
        psutil.Process(router.pid).cpu_affinity([first])
        psutil.Process(llm.child.pid).cpu_affinity(others or [first])
        ours = psutil.Process()
        stack.callback(ours.cpu_affinity, ours.cpu_affinity())
        ours.cpu_affinity(others or [first])
        yield port


def _capacity(port: int, case: Case, seconds: float) -> float:
    """Return the requests per second that clients get answered who wait for their answer before they ask again."""
    body = json.dumps(case.body)
    limit = case.server.get("max_in_flight")
    if limit is not None:
        return limit / (case.llm["ttft_ms"] / 1000)
    until = time.monotonic() + seconds

    def ask(_: int) -> int:
        answered = 0
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        while time.monotonic() < until:
            connection.request("POST", CHAT, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            answered += answer.status == 200
        connection.close()
        return answered

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sum(clients.map(ask, range(CLIENTS))) / seconds


def _row(result: Result, times: float, capacity: float) -> dict[str, float | None]:
    row: dict[str, float | None] = {
        "times": times,
        "good_per_s": round(result.per_second(200, IN_TIME_S, WARM_UP_S), 1),
        "goodput_of_capacity": round(result.per_second(200, IN_TIME_S, WARM_UP_S) / capacity, 3),
        "refused_per_s": round(result.per_second(503, after_s=WARM_UP_S), 1),
        "broken": sum(count for status, count in result.statuses.items() if status not in (200, 503)),
        "good_p99_ms": _ms(result.quantile(0.99, 200, WARM_UP_S)),
        "refused_p50_ms": _ms(result.quantile(0.5, 503, WARM_UP_S)),
        "refused_p99_ms": _ms(result.quantile(0.99, 503, WARM_UP_S)),
    }
    print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 1)


if __name__ == "__main__":
    sys.exit(main())
