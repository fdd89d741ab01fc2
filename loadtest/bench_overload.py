"""Goodput of one router worker below, at and above its capacity.

    python -m loadtest.bench_overload [--seconds 6] [--times 0.5 1 2 5] [--max-lag-ms 25]

Starts an LLM that does nothing but keep time and a router with one worker, pinned to one core where there are two;
finds the capacity by a closed loop, then offers multiples of it in an open one. An answer counts when it is whole
within a second. `streams` of 50 chunks, 10 ms apart, show what a router does all day; `whole` answers without a delay,
how cheap a refusal is beside the cheapest answer; `slots`, a limit on requests in flight with an idle processor;
`scores`, a classifier (minilm in Triton) that cannot score all prompts in time: who gets no score is refused. There the
pinned core is the classifier's, and the router goes with the load; the other cases have no classifier. The shares of a
core (router, LLM, generator) say who the limit is at the capacity. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop

from loadtest.bench.machine import Cores, pinned_to
from loadtest.constant_rate import Request, Result, closed_loop, open_loop, post
from loadtest.local_triton import LocalTriton
from loadtest.processes import Child, free_port, responds

IN_TIME_S = 1.0
WARM_UP_S = 4.0
CHAT = "/v1/chat/completions"
REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, by how many clients that find the capacity, the LLM's options, and the router's limits."""

    name: str
    clients: int
    is_stream: bool
    llm: Sequence[str]
    server: dict[str, float]
    is_scored: bool = False

    @property
    def request(self) -> Request:
        """What goes over the wire; no two prompts are the same where they are scored."""
        return self._nth_request if self.is_scored else self._nth_request(7)

    def _nth_request(self, number: int) -> bytes:
        message = {"role": "user", "content": f"What is {number} in words, and why is it not {number + 1}?"}
        return post(CHAT, json.dumps({"model": "auto", "stream": self.is_stream, "messages": [message]}).encode())


@dataclass(frozen=True, slots=True)
class Running:
    """The router's port, and whose processor time is looked at."""

    port: int
    processes: Mapping[str, int]

    def shares(self, load: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
        """Put the load on; return what came of it, and what share of a core each process took."""
        before = {name: _cpu_s(pid) for name, pid in self.processes.items()}
        result = load()
        return result, {name: (_cpu_s(pid) - before[name]) / result.seconds for name, pid in self.processes.items()}


CASES = (
    Case("streams", 384, True, ("--chunks", "50", "--interval-ms", "10"), {}),
    Case("whole", 64, False, (), {}),
    Case("slots", 20, False, ("--delay-ms", "200"), {"max_in_flight": 20}),
    Case("scores", 64, False, (), {}, is_scored=True),
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
    print(json.dumps(measure(cases, options.times, options.seconds, Cores.of_this_machine())))
    return 0


def measure(cases: Sequence[Case], multiples: Sequence[float], seconds: float, cores: Cores) -> dict[str, Any]:
    """Return for each case its capacity and a row for each multiple of it; print them on the way."""
    report = {}
    for case in cases:
        with _running(case, cores) as running:
            capacity = _capacity(running, case, seconds)
            rows = [_row(running, case, times, capacity, seconds) for times in multiples]
        report[case.name] = {"capacity_per_s": round(capacity, 1), "offered": rows}
    return report


@contextmanager
def _running(case: Case, cores: Cores) -> Iterator[Running]:
    """Run LLM and router, what is to be the limit on a core of its own; we go where the LLM is."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-overload-")))
        stack.enter_context(pinned_to(cores.load))
        upstream_port, port = free_port(), free_port()
        command = [sys.executable, "-m", "loadtest.bench.drip", str(upstream_port), *case.llm]
        llm = Child.start("llm", command, log_path=directory / "llm.log", cwd=REPOSITORY)
        stack.callback(llm.stop)
        llm.wait_until(lambda: responds(f"http://127.0.0.1:{upstream_port}/"), deadline_s=30)
        config: dict[str, Any] = {
            "server": {"port": port, **case.server},
            "admin": {"enabled": False},
            "models": {"only": {"api_base": f"http://127.0.0.1:{upstream_port}/v1"}},
            "policies": {"default": {"type": "fixed", "model": "only"}},
        }
        if case.is_scored:
            with pinned_to(cores.target):  # it is the limit; the router has little to do and goes with the load
                triton = stack.enter_context(LocalTriton.start(directory / "triton", config="cpu-minilm"))
            config["triton"] = {"url": triton.grpc_url, "deadline_ms": 250, "cache_entries": 0, "on_failure": "reject"}
            tiers = [{"model": "only"}, {"model": "only", "from": 0.5}]
            config["policies"] = {"default": {"type": "threshold", "score": "need_strong", "tiers": tiers}}
        file = directory / "router.yaml"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "router", "serve", "--config", str(file)]
        with pinned_to(cores.load if case.is_scored else cores.target):
            router = Child.start("router", command, log_path=directory / "router.log", cwd=REPOSITORY)
        stack.callback(router.stop)
        router.wait_until(lambda: responds(f"http://127.0.0.1:{port}/health/live"), deadline_s=30)
        yield Running(port, {"router": router.pid, "upstream": llm.pid, "generator": os.getpid()})


def _capacity(running: Running, case: Case, seconds: float) -> float:
    """Return the requests per second that clients get answered in time who wait before they ask again."""
    result, shares = running.shares(
        lambda: uvloop.run(closed_loop(running.port, case.request, clients=case.clients, seconds=seconds))
    )
    capacity = result.per_second(200, IN_TIME_S)
    used = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    print(f"{case.name}: {capacity:.0f} requests/s in a closed loop of {case.clients} clients ({used})", flush=True)
    return capacity


def _row(running: Running, case: Case, times: float, capacity: float, seconds: float) -> dict[str, float | None]:
    result, shares = running.shares(
        lambda: uvloop.run(open_loop(running.port, case.request, rate=times * capacity, seconds=seconds))
    )
    row: dict[str, float | None] = {
        "times": times,
        "good_per_s": round(result.per_second(200, IN_TIME_S, WARM_UP_S), 1),
        "goodput_of_capacity": round(result.per_second(200, IN_TIME_S, WARM_UP_S) / capacity, 3),
        "refused_per_s": round(result.per_second(503, after_s=WARM_UP_S), 1),
        "broken": sum(count for status, count in result.statuses.items() if status not in (200, 503)),
        "good_p99_ms": _ms(result.quantile(0.99, 200, WARM_UP_S)),
        "refused_p50_ms": _ms(result.quantile(0.5, 503, WARM_UP_S)),
        "refused_p99_ms": _ms(result.quantile(0.99, 503, WARM_UP_S)),
        **{name: round(share, 2) for name, share in shares.items()},
    }
    print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 1)


if __name__ == "__main__":
    sys.exit(main())
