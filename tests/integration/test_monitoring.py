"""The real Prometheus on the real stack: every panel has data, and what has none is noticed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.processes import Child, responds
from monitoring.check.answers import Answer, PrometheusClient
from monitoring.check.questions import Question
from monitoring.prometheus_server import render, serve_command
from tests.integration.router_process import wait_until
from tests.unit.monitoring.sources import ROOT, needs_prometheus

pytestmark = needs_prometheus


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def scraped(port: int) -> set[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets") as answer:
        return {target["scrapeUrl"] for target in json.load(answer)["data"]["activeTargets"]}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes nobody but knows our rules."""
    config, port = tmp_path / "prometheus.yml", free_port()
    config.write_text(render({}, interval="1s"))
    command = serve_command(config, tmp_path / "data", port, retention="1d")
    child = Child.start("Prometheus", command, log_path=tmp_path / "prometheus.log")
    try:
        child.wait_until(lambda: responds(f"http://127.0.0.1:{port}/-/ready"), deadline_s=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


@pytest.mark.parametrize(
    ("expr", "answer"),
    [
        ("vector(1)", Answer(1)),
        ("llm_router_requests_total", Answer(0, "no data")),
        ("vector(0) / 0", Answer(1, "all NaN")),
    ],
)
def test_what_a_panel_would_show_is_judged(prometheus: str, expr: str, answer: Answer) -> None:
    now = time.time()
    assert PrometheusClient(prometheus).ask(Question("place", "title", expr, {}), now - 5, now) == answer


def test_a_query_that_prometheus_refuses_is_told(prometheus: str) -> None:
    now = time.time()
    answer = PrometheusClient(prometheus).ask(Question("place", "title", "sum(", {}), now - 5, now)
    assert "parse error" in str(answer.trouble)


def test_local_prometheus_has_our_targets_and_rules_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    port, router = free_port(), free_port()
    command = [sys.executable, "-m", "monitoring.local", "--run-dir", str(tmp_path)]
    ports = {"PROMETHEUS_PORT": str(port), "ADMIN_PORT": str(router)}
    local = Child.start("metrics", command, log_path=tmp_path / "metrics.log", cwd=ROOT, env=ports)
    try:
        local.wait_until(lambda: responds(f"http://127.0.0.1:{port}/-/ready"), deadline_s=30)
        wait_until(lambda: len(scraped(port)) == 4, deadline_s=20)
        assert f"http://127.0.0.1:{router}/metrics" in scraped(port)
        os.kill(local.pid, signal.SIGINT)
        wait_until(lambda: local.poll() is not None, deadline_s=30)
        assert local.poll() == 0
    finally:
        local.stop()
    assert local.log_path.read_text().startswith(f"Prometheus on http://127.0.0.1:{port}\n")


def test_every_panel_of_every_dashboard_has_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monitoring.check", "--seconds", "8", "--run-dir", str(tmp_path)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    last = checked.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"(\d+) of (\d+) queries answered, (\d+) of them on made-up series; 0 targets or rules broken", last
    )
    assert found is not None, last
    answered, asked, made_up = map(int, found.groups())
    assert answered == asked > 150
    assert made_up < asked / 4
    for real in ("Own overhead, p99", "Mean batch", "Net saved", "Fallbacks by reason", "Total # of Requests"):
        assert re.search(rf"^  {re.escape(real)} +[1-9]\d*  ok$", checked.stdout, re.MULTILINE), real
