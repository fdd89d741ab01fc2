"""The generator's floor: the same users before a server whose times are known; what is above them is ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtest.load.null_server import FIRST_TOKEN_S, GAP_S
from loadtest.load.settings import LoadSettings
from loadtest.processes import Child, listen

DURATION_S = 10

_QUANTILES = ("p50", "p90", "p99")

Run = Callable[[Mapping[str, str]], dict[str, Any]]


def measure_floor(settings: LoadSettings, run: Run, log_path: Path) -> dict[str, Any]:
    """Return milliseconds that the generator adds; `run` starts Locust with these variables and returns its figures."""
    with listen(0, "the null server's port") as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "loadtest.load.null_server", str(fd)]
        server = Child.start("null server", command, log_path=log_path, pass_fds=[fd])
        try:
            port = listener.getsockname()[1]
            figures = run(
                {
                    "HOST": f"http://127.0.0.1:{port}",
                    "MODEL": "null",
                    "API_KEY": "",
                    "DURATION": f"{DURATION_S}s",
                    "SPAWN_RATE": str(max(1.0, settings.users / 2)),
                    "STREAM_SHARE": "1",
                    "SHAPE": "constant",
                    "EXPORTER_PORT": "0",
                }
            )
        finally:
            server.stop()
    return floor_of(figures)


def floor_of(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the floor that a run before the null server shows."""
    return {
        "answers": figures["requests"],
        "answers_per_s": figures["answers_per_s"],
        "ttft_added_ms": _above(figures["latency_ms"]["ttft"]["all"], FIRST_TOKEN_S),
        "itl_added_ms": _above(figures["latency_ms"]["itl"]["all"], GAP_S),
        "saturated": figures["generator"]["saturated"],
        "verdict": figures["generator"]["verdict"],
    }


def floor_in_words(floor: dict[str, Any]) -> str:
    """Return one line for a terminal."""
    if floor["ttft_added_ms"]["p50"] is None:
        return f"Floor: too few answers to tell. {floor['verdict']}"
    ttft, itl = floor["ttft_added_ms"], floor["itl_added_ms"]
    return (
        f"Floor: the generator adds {ttft['p50']:.1f} ms (p99 {ttft['p99']:.1f}) to a first token and "
        f"{itl['p50']:.1f} ms (p99 {itl['p99']:.1f}) between tokens. {floor['verdict']}"
    )


def _above(measured: dict[str, float] | None, true_s: float) -> dict[str, float | None]:
    """Return each quantile less the true value, None without measurements; a figure is right to 1%."""
    return {q: None if measured is None else round(max(0.0, measured[q] - 1000 * true_s), 3) for q in _QUANTILES}
