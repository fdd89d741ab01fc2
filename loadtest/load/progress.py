"""One line about a window, while the run goes on. Pure."""

from __future__ import annotations

from loadtest.load.measure import Window


def progress_line(window: Window) -> str:
    """Return what the last two seconds showed."""
    tally, length = window.tally, window.end_s - window.start_s
    answers, errors = tally.total("answers"), tally.total("errors")
    ttft, overhead = tally.over("ttft"), tally.over("overhead")
    parts = [
        f"{window.end_s:5.0f} s",
        f"{window.users:,} users",
        f"{answers / length:.1f} answers/s",
        f"{errors} error{'s' * (errors != 1)}",
        f"TTFT p50 {milliseconds(ttft.quantile(0.5))}, p95 {milliseconds(ttft.quantile(0.95))}",
        f"overhead p95 {milliseconds(overhead.quantile(0.95))}",
    ]
    return "  ".join(parts)


def milliseconds(seconds: float | None) -> str:
    """Return '12.3 ms', '812 ms', or a dash for None."""
    if seconds is None:
        return "\N{EN DASH}"
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"
