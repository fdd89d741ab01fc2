"""Locust's command lines. Imports no Locust: its own process does."""

from __future__ import annotations

import sys
from pathlib import Path

from loadtest.load.settings import CONSTANT, LoadSettings

RUN_FILE = "LOADTEST_RUN_FILE"
"""Variable that says where the figures of a run go, and that progress is to be printed."""

_DRAIN_S = 30  # how long open answers may take after the stop
_LOCUSTFILE = str(Path(__file__).parents[1] / "locustfile.py")


def web_command(settings: LoadSettings) -> list[str]:
    """Return the command that starts the web UI with its form filled in."""
    return [*_command(settings), "--web-host", settings.web_host, "--web-port", str(settings.web_port)]


def headless_command(settings: LoadSettings, run_file: Path) -> list[str]:
    """Return the command that runs once and prints our progress instead of Locust's tables."""
    quiet = ["--only-summary", "--json-file", str(run_file.with_suffix(".locust"))]
    timed = ["--run-time", f"{settings.duration:.0f}s"] if settings.shape == CONSTANT else []
    return [*_command(settings), "--headless", *timed, *quiet, "--exit-code-on-error", "0"]


def run_variables(run_file: Path) -> dict[str, str]:
    """Return the variables of a headless run; Locust's own log stays out of the progress."""
    return {RUN_FILE: str(run_file), "LOCUST_LOGLEVEL": "ERROR"}


def _command(settings: LoadSettings) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", _LOCUSTFILE, "--host", settings.host]
    command += ["--stop-timeout", str(_DRAIN_S)]
    if settings.shape == CONSTANT:
        command += ["--users", str(settings.users), "--spawn-rate", f"{settings.users_per_s:g}"]
    if settings.processes > 1:
        command += ["--processes", str(settings.processes)]
    return command
