"""Asking a running Prometheus."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitoring.check.questions import Question

RATE_INTERVAL_S = 10
_TIMEOUT_S = 20.0


class QueryError(RuntimeError):
    """Prometheus refused a query, or did not answer; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How many series (or values of a label) came back, and what is wrong, None when nothing is."""

    series: int
    trouble: str | None = None


class PrometheusClient:
    """The HTTP API of one Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, question: Question, start_s: float, end_s: float) -> Answer:
        """Ask as a panel does, for every second between two Unix times; some point must be a number."""
        expr = question.promql(rate_interval_s=RATE_INTERVAL_S, range_s=math.ceil(end_s - start_s))
        try:
            if question.label is not None:
                values = self._get(f"label/{question.label}/values", {"match[]": expr})
                return Answer(len(values), None if values else "no values")
            asked = {"query": expr, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": "1"}
            series = self._get("query_range", asked)["result"]
        except QueryError as error:
            return Answer(0, str(error))
        return judge([[float(value) for _, value in one["values"]] for one in series])

    def metric_names(self) -> frozenset[str]:
        """Return the names of all metrics that it has seen."""
        return frozenset(self._get("label/__name__/values", {}))

    def broken_rules(self) -> list[str]:
        """Return what its rules complain about."""
        rules = (rule for group in self._get("rules", {})["groups"] for rule in group["rules"])
        return [f"{rule['name']}: {rule.get('lastError', rule['health'])}" for rule in rules if rule["health"] != "ok"]

    def down_targets(self) -> list[str]:
        """Return what it cannot scrape, and why."""
        targets = self._get("targets", {"state": "active"})["activeTargets"]
        return [f"{one['scrapePool']}: {one['lastError']}" for one in targets if one["health"] != "up"]

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - our own loopback address
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error).get("error", str(error))) from error
        except OSError as error:
            raise QueryError(f"Prometheus does not answer: {error}") from error


def judge(series: list[list[float]]) -> Answer:
    """Return the verdict on the values of each series: there must be some, and not only NaN."""
    if not series:
        return Answer(0, "no data")
    if all(math.isnan(value) for values in series for value in values):
        return Answer(len(series), "all NaN")
    return Answer(len(series))
