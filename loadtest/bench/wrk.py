"""wrk, the load generator, as a function: so many connections for so long, every answer looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.bench.machine import pinned_to

SCRIPT = Path(__file__).with_name("wrk.lua")
_RESULT = "RESULT "
_GRACE_S = 60.0


class WrkError(RuntimeError):
    """wrk did not do what it was started for; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run. An answer is good (200 and the expected text), refused (429, 503) or bad.

    `broken` are connections that failed and answers that did not come. Latencies are of all answers, in µs.
    `generator_share` is how busy wrk itself was: near 1 it is wrk that is measured.
    """

    seconds: float
    good: int
    refused: int
    bad: int
    broken: int
    p50_us: int
    p99_us: int
    generator_share: float = 0.0
    example: str = ""

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


def missing() -> str | None:
    """Return what to install when wrk is not there."""
    return None if shutil.which("wrk") else "wrk is not installed: apt install wrk"


def run(
    url: str,
    body_file: Path,
    *,
    expected: str,
    connections: int,
    seconds: int,
    cores: frozenset[int],
    headers: Mapping[str, str] | None = None,
    number: str = "",
) -> Load:
    """POST the body to `url` on so many connections for `seconds`, from one thread on `cores`.

    The digits `number`, where the body has them, count up from request to request.

    Raises `WrkError` when it could not be started or said something unexpected.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(SCRIPT), url, "--"]
    command += [str(body_file), expected, number, *(f"{name}={value}" for name, value in (headers or {}).items())]
    children = psutil.Process().cpu_times()
    with pinned_to(cores):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + _GRACE_S)
    after = psutil.Process().cpu_times()
    used = after.children_user - children.children_user + after.children_system - children.children_system
    if done.returncode != 0:
        raise WrkError(f"wrk ended with {done.returncode} on {url}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout, cpu_s=used)


def parse(output: str, *, cpu_s: float) -> Load:
    """Read what wrk.lua printed at its end. Raises `WrkError` when there is no such line."""
    lines = output.splitlines()
    result = next((line.removeprefix(_RESULT) for line in lines if line.startswith(_RESULT)), None)
    if result is None:
        raise WrkError(f"wrk printed no result: {output.strip()[-300:]!r}")
    fields = json.loads(result)
    example = next((line.removeprefix("BAD ") for line in lines if line.startswith("BAD ")), "")
    return Load(**fields, generator_share=round(cpu_s / fields["seconds"], 3), example=example)
