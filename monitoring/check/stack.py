"""The real stack for the check: `loadtest.serve`, Locust when there is one, and Prometheus, all on free ports."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.prometheus_server import HOST, render, serve_command

_REPOSITORY = Path(__file__).parents[2]
_LOCUSTFILE = _REPOSITORY / "loadtest" / "locustfile.py"
_SERVE_PORTS = (
    "ROUTER_PORT",
    "ADMIN_PORT",
    "TRITON_HTTP_PORT",
    "TRITON_GRPC_PORT",
    "TRITON_METRICS_PORT",
    "CHEAP_PORT",
    "EXPENSIVE_PORT",
)
_START_S, _STOP_S, _LOOK_S = 90.0, 15.0, 0.05
# Few users who think little: enough of everything, on a machine that runs all of this at once.
_LOCUST_USERS, _LOCUST_THINK_S = 6, "0.3-0.8"

Say = Callable[[str], None]


class StartError(RuntimeError):
    """A part ended or was not ready in time; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Part:
    """A started process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Poll `ready`. Raises `StartError` when the process ends before, or after 90 seconds."""
        deadline = time.monotonic() + _START_S
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = "\n".join(f"    {line}" for line in self.log.read_text(errors="replace").splitlines()[-12:])
                raise StartError(f"{self.name} did not start; the end of {self.log}:\n{lines}")
            time.sleep(_LOOK_S)


@dataclass(frozen=True, slots=True)
class Stack:
    """Addresses as host:port, `prometheus` as a URL."""

    router: str
    triton: str
    llms: tuple[str, ...]
    prometheus: str


@contextlib.contextmanager
def running_stack(run_dir: Path, say: Say) -> Iterator[Stack]:
    """Start everything, stop everything. Raises `StartError` or `PrometheusError` with nothing left running."""
    run_dir.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_SERVE_PORTS, _free_ports(len(_SERVE_PORTS)), strict=True))
    at = {name: f"{HOST}:{port}" for name, port in ports.items()}
    exporter, prometheus = _free_ports(2)
    with contextlib.ExitStack() as running:
        say("stack: starting Triton, two simulated LLMs and the router")
        command = [sys.executable, "-m", "loadtest.serve", "--run-dir", str(run_dir / "serve")]
        variables = {name: str(port) for name, port in ports.items()}
        serve = running.enter_context(_part("stack", command, run_dir, variables))
        serve.wait_until(lambda: _json(f"http://{at['ROUTER_PORT']}/health/ready").get("status") == "ready")

        targets = {"router-controller-metrics": at["ADMIN_PORT"], "router-server-metrics": at["TRITON_METRICS_PORT"]}
        if importlib.util.find_spec("locust") is not None and _LOCUSTFILE.exists():
            say(f"Locust: starting {_LOCUST_USERS} users")
            locust = running.enter_context(_locust(f"http://{at['ROUTER_PORT']}", exporter, run_dir))
            locust.wait_until(lambda: _answers(f"http://{HOST}:{exporter}/metrics"))
            targets["locust"] = f"{HOST}:{exporter}"

        say("Prometheus: starting, scraping every second")
        config = run_dir / "prometheus.yml"
        config.write_text(render(targets, interval="1s"))
        shutil.rmtree(run_dir / "data", ignore_errors=True)  # an earlier check's series must not count
        command = serve_command(config, run_dir / "data", prometheus, retention="1d")
        url = f"http://{HOST}:{prometheus}"
        scraper = running.enter_context(_part("Prometheus", command, run_dir))
        scraper.wait_until(lambda: _scraped(url) == len(targets))  # so that it sees every counter from the beginning
        yield Stack(at["ROUTER_PORT"], at["TRITON_HTTP_PORT"], (at["CHEAP_PORT"], at["EXPENSIVE_PORT"]), url)


def _locust(router: str, exporter: int, run_dir: Path) -> contextlib.AbstractContextManager[Part]:
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--host", router]
    command += ["--users", str(_LOCUST_USERS), "--spawn-rate", str(_LOCUST_USERS), "--only-summary"]
    variables = {"EXPORTER_PORT": str(exporter), "THINK_S": _LOCUST_THINK_S, "HOST": router}
    return _part("Locust", command, run_dir, variables)


@contextlib.contextmanager
def _part(
    name: str, command: Sequence[str], run_dir: Path, variables: Mapping[str, str] | None = None
) -> Iterator[Part]:
    """Run a process in a session of its own, so that Ctrl-C reaches only us and we stop it in order."""
    log = run_dir / f"{name.lower()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(variables or {})},
            cwd=_REPOSITORY,
            start_new_session=True,
        )
    try:
        yield Part(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:  # all at once, so that none comes twice
        listeners = [held.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own loopback address
            return True
    except OSError:
        return False


def _scraped(prometheus: str) -> int:
    """Return how many targets have been scraped."""
    targets = _json(f"{prometheus}/api/v1/targets").get("data", {}).get("activeTargets", [])
    return sum(target["health"] == "up" for target in targets)


def _json(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own loopback address
            return dict(json.load(answer))
    except (OSError, ValueError):
        return {}
