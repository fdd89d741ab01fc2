"""Is the generator itself the bottleneck? Its CPU and how late it runs, and what both mean. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.load.tally import Tally

CPU_LIMIT = 0.9  # of one core: a Locust process has one thread
LAG_LIMIT_S = 0.02


@dataclass(frozen=True, slots=True)
class Health:
    """How the generator's processes fared: the busiest second, the lag of the slowest twentieth; `verdict` in words."""

    cpu_mean: float | None
    cpu_p95: float | None
    lag_p95_s: float | None
    lag_max_s: float
    saturated: bool
    verdict: str


def health_of(tally: Tally) -> Health:
    """Judge the "cpu" (cores used by one process in a second) and "lag" (seconds a timer was late) of a run."""
    cpu, lag = tally.over("cpu"), tally.over("lag")
    cpu_p95, lag_p95 = cpu.quantile(0.95), lag.quantile(0.95)
    busy = cpu.mean is not None and cpu.mean >= CPU_LIMIT
    late = lag_p95 is not None and lag_p95 >= LAG_LIMIT_S
    if busy:
        verdict = (
            f"The generator was saturated: its processes used {cpu.mean:.0%} of a core each. The latencies are its "
            "own, not the router's: use more PROCESSES, more machines, or fewer USERS."
        )
    elif late:
        verdict = (
            f"The generator ran late (p95 {1000 * (lag_p95 or 0):.0f} ms) though it had CPU to spare: other processes "
            "held the cores. TTFT, ITL and end-to-end times include that wait; the router's own overhead is its own."
        )
    else:
        verdict = "The generator kept up: its own delays are too small to matter."
    return Health(cpu.mean, cpu_p95, lag_p95, lag.maximum, busy or late, verdict)
