"""PromQL that the dashboards share. Rates go over Grafana's own window, sums over the dashboard's range."""

from __future__ import annotations

RATE = "$__rate_interval"


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """Return the sum of a counter's rates per second, `by` those labels."""
    return _sum(f"rate({_select(metric, labels)}[{RATE}])", by)


def total(metric: str, labels: str = "", by: str = "") -> str:
    """Return by how much a counter grew over the dashboard's time range."""
    return _sum(f"increase({_select(metric, labels)}[$__range])", by)


def gauge(metric: str, labels: str = "", by: str = "") -> str:
    """Return the sum of a gauge."""
    return _sum(_select(metric, labels), by)


def quantile(q: float, histogram: str, labels: str = "", by: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, f'{by}, le' if by else 'le')})"


def mean(histogram: str, labels: str = "", by: str = "") -> str:
    """Return the mean of a histogram's or summary's observations."""
    return ratio(rate(f"{histogram}_sum", labels, by), rate(f"{histogram}_count", labels, by))


def ratio(part: str, whole: str) -> str:
    """Return part / whole, absent rather than NaN where there is no whole."""
    return f"{part} / ({whole} > 0)"


def _select(metric: str, labels: str) -> str:
    return f"{metric}{{{labels}}}" if labels else metric


def _sum(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"
