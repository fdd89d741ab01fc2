"""The load test's settings: environment variables, read once and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from loadtest.load.shapes import SHAPES
from loadtest.load.tally import Objective

_T = TypeVar("_T")

CONSTANT = "constant"
OPEN, CLOSED = "open", "closed"


class SettingError(ValueError):
    """A variable that cannot be used; the message names it, its value and what is allowed."""


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL such as http://127.0.0.1:8084")
    return text.rstrip("/").removesuffix("/v1")


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a single line")
    return text


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return read


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        value = math.nan
    if not 1 <= value <= 86400:
        raise ValueError("a time such as 60s, 5m or 1h, from 1s to 24h")
    return value


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        pair = float(low), float(high or low)
    except ValueError:
        pair = math.nan, math.nan
    if not 0 <= pair[0] <= pair[1] <= 3600:
        raise ValueError("seconds, or two with a dash between, such as 5-15")
    return pair


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _variable(default: _T, read: Callable[[str], _T], about: str, shown: str | None = None) -> Any:  # noqa: ANN401 - becomes a field of the type of `default`
    shown = str(default) if shown is None else shown
    return field(default=default, metadata={"read": read, "about": about, "default": shown})


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Each field is set by the environment variable of the same name in capitals."""

    host: str = _variable("http://127.0.0.1:8084", _url, "where to send requests; without /v1")
    api_key: str = _variable("", _text, "sent as a bearer token when set; never shown", "none")
    model: str = _variable("auto", _text, "the request's model: auto, a policy, or a model's own name")
    users: int = _variable(100, _whole(1, 100_000), "users at the same time; the arrivals per second when open")
    spawn_rate: float = _variable(0.0, _number(0, 100_000), "users started per second", "a fifth of USERS, at most 100")
    duration: float = _variable(60.0, _seconds, "how long, without the web UI", "60s")
    arrivals: str = _variable(
        CLOSED, _one_of(CLOSED, OPEN), "closed: a user waits for its answer; open: requests leave when due"
    )
    think_s: tuple[float, float] = _variable(
        (5.0, 15.0), _range, "seconds from an answer to the user's next prompt", "5-15"
    )
    stream_share: float = _variable(0.8, _number(0, 1), "share of requests that stream")
    repeat_share: float = _variable(
        0.2, _number(0, 1), "share of prompts sent word for word; the others get a number and miss the cache"
    )
    prompts: Path | None = _variable(None, _path, "a JSON Lines file of your own prompts", "both committed sets")  # noqa: RUF009 - a field()
    shape: str = _variable(CONSTANT, _one_of(CONSTANT, *SHAPES), f"{CONSTANT}, {', '.join(SHAPES)}")
    processes: int = _variable(1, _whole(1, 256), "Locust processes on this machine")
    timeout_s: float = _variable(120.0, _number(0.1, 3600), "without a byte for so long, a request has failed")
    slo_ttft_ms: float = _variable(1000.0, _number(1, 1e7), "a good answer starts within")
    slo_e2e_ms: float = _variable(10_000.0, _number(1, 1e7), "a good answer ends within")
    web_host: str = _variable("127.0.0.1", _text, "address of Locust's web UI")
    web_port: int = _variable(8089, _whole(1, 65535), "port of Locust's web UI")
    exporter_host: str = _variable("127.0.0.1", _text, "address of the Prometheus exporter")
    exporter_port: int = _variable(4000, _whole(0, 65535), "port of the Prometheus exporter; 0: none")
    report_dir: Path = _variable(Path(".run/loadtest"), _path, "where report.html and report.json go")  # noqa: RUF009 - a field()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that are set and not empty. Raises `SettingError`."""
        values = {}
        for one in fields(cls):
            name = one.name.upper()
            if text := environment.get(name, "").strip():
                try:
                    values[one.name] = one.metadata["read"](text)
                except ValueError as error:
                    shown = "(not shown)" if name == "API_KEY" else repr(text)
                    raise SettingError(f"{name}={shown} cannot be used: it must be {error}") from error
        return cls(**values)

    @property
    def objective(self) -> Objective:
        """What goodput is counted by."""
        return Objective(self.slo_ttft_ms / 1000, self.slo_e2e_ms / 1000)

    @property
    def users_per_s(self) -> float:
        """How fast users are started: SPAWN_RATE, or so that all are there after 5 seconds, up to Locust's 100/s."""
        return self.spawn_rate or min(100.0, max(1.0, self.users / 5))


def variables() -> list[tuple[str, str, str]]:
    """Return (name, default, meaning) of every variable, for --help and the documentation."""
    return [(one.name.upper(), one.metadata["default"], one.metadata["about"]) for one in fields(LoadSettings)]
