"""Prometheus on this machine: our configuration with loopback addresses, and the command that serves it."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parent / "prometheus"
HOST = "127.0.0.1"

_INSTALL = "install it with `apt install prometheus` (Debian, Ubuntu) or `brew install prometheus` (macOS)"


class PrometheusError(RuntimeError):
    """Prometheus cannot be started; the message says why and what to do."""


def find_program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`. Raises `PrometheusError` saying how to install it."""
    path = shutil.which(name)
    if path is None:
        raise PrometheusError(f"{name} is not installed; {_INSTALL}")
    return path


def render(targets: Mapping[str, str], *, interval: str | None = None) -> str:
    """Return prometheus.yml for another place: each job in `targets` at that host:port, the others left out.

    Rule files are named by their absolute paths. `interval` (such as "1s") replaces the scrape and evaluation
    intervals. Raises `KeyError` for a job that the file lacks.
    """
    config: dict[str, Any] = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    config["scrape_configs"] = [
        {**jobs[name], "static_configs": [{"targets": [address]}]} for name, address in targets.items()
    ]
    config["rule_files"] = [str(DIRECTORY / pattern) for pattern in config["rule_files"]]
    if interval:
        config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    return yaml.safe_dump(config, sort_keys=False)


def serve_command(config: Path, data: Path, port: int, *, retention: str) -> list[str]:
    """Return the command that serves `config` on 127.0.0.1:`port`, keeping `data` for `retention` (such as "7d").

    Raises `PrometheusError`: not installed, or the port is taken.
    """
    program = find_program("prometheus")
    try:
        with contextlib.closing(socket.create_server((HOST, port))):
            pass
    except OSError as error:
        raise PrometheusError(f"port {port} is already taken; choose another with PROMETHEUS_PORT=PORT") from error
    return [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={retention}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
