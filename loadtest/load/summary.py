"""The figures of one run as plain JSON values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from loadtest.load.distribution import Distribution
from loadtest.load.generator import health_of
from loadtest.load.measure import Recorder, Window
from loadtest.load.pricing import Catalogue
from loadtest.load.settings import CONSTANT, OPEN, LoadSettings
from loadtest.load.tally import Tally, sum_of

LATENCIES = ("ttft", "itl", "tpot", "e2e")
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

Figures = dict[str, Any]


def summarize(
    recorder: Recorder, settings: LoadSettings, catalogue: Catalogue | None, started: datetime, processes: int
) -> Figures:
    """Return the figures of a run: rates and latencies of its steady part, errors of all of it.

    Steady is what lies between the moment when all users were there and the stop.
    """
    windows = recorder.steady
    tally, everything = sum_of(window.tally for window in windows), recorder.total()
    seconds = windows[-1].end_s - windows[0].start_s if windows else 0.0
    answers, errors = everything.total("answers"), everything.total("errors")
    steady = tally.total("answers")
    good = tally.total("good")
    return {
        "started": started.isoformat(timespec="seconds"),
        "settings": _settings(settings, processes),
        "steady_seconds": round(seconds, 1),
        "peak_users": max((window.users for window in recorder.windows), default=0),
        "requests": answers + errors,
        "errors": everything.by_label("errors", 2),
        "reconnects": everything.total("reconnects"),
        "error_rate": errors / (answers + errors) if answers + errors else None,
        "answers_per_s": steady / seconds if seconds else None,
        "tokens_per_s": tally.by_label("tokens", 2).get("completion", 0) / seconds if seconds else None,
        "in_flight_mean": _in_flight(tally, seconds),
        "goodput_per_s": good / seconds if seconds else None,
        "goodput_share": good / steady if steady else None,
        "latency_ms": {name: _latency(tally, name) for name in LATENCIES},
        "overhead_ms": _quantiles(tally.over("overhead")),
        "decisions": tally.by_label("decisions"),
        "sources": tally.by_label("sources"),
        "models": _models(tally, catalogue),
        "dollars": _dollars(tally, catalogue),
        "generator": _generator(tally),
        "timeline": [_point(window) for window in recorder.windows],
        "knee": knee(windows, settings) if settings.shape not in (CONSTANT, "spike") else None,
    }


def knee(windows: Sequence[Window], settings: LoadSettings) -> Figures | None:
    """Return the last level of a rising load at which nine answers in ten were good, None when none was.

    Beyond it more users only mean later answers.
    """
    last = None
    for window in windows:
        answers, errors = window.tally.total("answers"), window.tally.total("errors")
        if not answers + errors:
            continue
        if window.tally.total("good") < 0.9 * (answers + errors):
            break
        last = {"users": window.users, "answers_per_s": answers / (window.end_s - window.start_s)}
    if last is not None:
        last["reached_the_end"] = last["users"] >= max(window.users for window in windows)
    return last


def _in_flight(tally: Tally, seconds: float) -> float | None:
    """Return how many requests were open on average: all their time together by the time they had (Little's law)."""
    return tally.over("e2e").total / seconds if seconds else None


def _settings(settings: LoadSettings, processes: int) -> Figures:
    """Return what one needs to repeat the run; never the key."""
    return {
        "host": settings.host,
        "model": settings.model,
        "users": settings.users,
        "arrivals": settings.arrivals,
        "think_s": None if settings.arrivals == OPEN else list(settings.think_s),
        "stream_share": settings.stream_share,
        "repeat_share": settings.repeat_share,
        "shape": settings.shape,
        "prompts": settings.prompts.name if settings.prompts else "committed",
        "processes": processes,
        "slo_ttft_ms": settings.slo_ttft_ms,
        "slo_e2e_ms": settings.slo_e2e_ms,
    }


def _quantiles(distribution: Distribution, scale: float = 1000) -> Figures | None:
    """Return count, mean and quantiles times `scale`, None without values."""
    if distribution.mean is None:
        return None
    named = {name: (distribution.quantile(q) or 0.0) * scale for name, q in _QUANTILES.items()}
    figures = {"mean": distribution.mean * scale, **named, "max": distribution.maximum * scale}
    return {"count": distribution.count, **{name: round(value, 3) for name, value in figures.items()}}


def _latency(tally: Tally, name: str) -> Figures:
    models = sorted(label for found, label in tally.distributions if found == name)
    return {
        "all": _quantiles(tally.over(name)),
        "by_model": {model: _quantiles(tally.distributions[name, model]) for model in models},
    }


def _models(tally: Tally, catalogue: Catalogue | None) -> Figures:
    answers = tally.by_label("answers", 2)
    dollars = catalogue.bill(tally).by_model if catalogue else {}
    return {
        model: {
            "answers": count,
            "share": count / sum(answers.values()),
            "prompt_tokens": tally.total("tokens", model, "prompt"),
            "completion_tokens": tally.total("tokens", model, "completion"),
            "usage_unknown": tally.total("usage_unknown", model),
            "dollars": dollars.get(model),
        }
        for model, count in answers.items()
    }


def _dollars(tally: Tally, catalogue: Catalogue | None) -> Figures | None:
    """Return spent and baseline dollars, None where a price is unknown."""
    if catalogue is None:
        return None
    bill, answers = catalogue.bill(tally), tally.total("answers")
    if bill.spent is None or bill.baseline is None or not answers:
        return None
    return {
        "spent": bill.spent,
        "baseline": bill.baseline,
        "baseline_model": catalogue.dearest,
        "saved": bill.baseline - bill.spent,
        "saved_share": 1 - bill.spent / bill.baseline if bill.baseline else None,
        "spent_per_1000_answers": 1000 * bill.spent / answers,
        "baseline_per_1000_answers": 1000 * bill.baseline / answers,
    }


def _generator(tally: Tally) -> Figures:
    health = health_of(tally)
    return {
        "saturated": health.saturated,
        "verdict": health.verdict,
        "cpu_mean": health.cpu_mean,
        "cpu_p95": health.cpu_p95,
        "lag_ms": _quantiles(tally.over("lag")),
        "late_arrivals_ms": _quantiles(tally.over("late")),
    }


def _point(window: Window) -> Figures:
    tally, length = window.tally, window.end_s - window.start_s
    ttft, overhead = tally.over("ttft"), tally.over("overhead")
    values = {
        "ttft_p50_ms": ttft.quantile(0.5),
        "ttft_p95_ms": ttft.quantile(0.95),
        "overhead_p95_ms": overhead.quantile(0.95),
    }
    return {
        "second": round(window.end_s, 1),
        "users": window.users,
        "answers_per_s": round(tally.total("answers") / length, 2),
        "errors": tally.total("errors"),
        **{name: None if value is None else round(value * 1000, 2) for name, value in values.items()},
    }
