"""GET /admin/live: the last decisions and the running totals, for the dashboard.

Everything is cumulative: the page takes differences of successive looks, so that nothing is kept here for it and
several viewers do not disturb each other. No prompt is ever part of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from time import perf_counter, time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from router import __version__
from router.decide.policy import candidates, with_threshold
from router.errors import InvalidRequest
from router.http.exchange import Exchange
from router.http.ops import Canary
from router.http.samples import Samples
from router.http.triton_metrics import TritonMetrics
from router.metrics import Metrics
from router.settings import ModelSettings, PolicySettings, Settings

RECENT = 100

# A kept connection would ask the same worker for ever; a new one lets any of them tell its decisions.
_HEADERS = {"cache-control": "no-store", "connection": "close"}

_HISTOGRAMS = {
    "overhead": "llm_router_overhead_seconds",
    "decide": "llm_router_decide_seconds",
    "queue": "llm_router_queue_delay_seconds",
    "classify": "llm_router_classify_seconds",
    "ttft": "llm_router_upstream_ttft_seconds",
    "batch_rows": "llm_router_batch_rows",
}


class RecentExchanges:
    """The last `size` exchanges of this worker. Adding one is an append; reading puts them into words."""

    def __init__(self, size: int = RECENT) -> None:
        self._ring: deque[Exchange] = deque(maxlen=size)
        self.add = self._ring.append
        self._epoch = time() - perf_counter()

    def described(self) -> list[dict[str, Any]]:
        """Return them as JSON-able values, the one that ended last first; what is unknown is None."""
        return [self._described(exchange) for exchange in reversed(self._ring)]

    def _described(self, exchange: Exchange) -> dict[str, Any]:
        decision, usage = exchange.decision, exchange.usage
        return {
            "time": self._epoch + exchange.started,
            "request_id": exchange.request_id.decode(),
            "outcome": exchange.outcome,
            "client": exchange.client and exchange.client.name,
            "policy": decision and decision.policy,
            "model": decision and decision.model,
            "reason": decision and decision.reason,
            "source": decision and decision.source,
            "fallback_reason": decision and decision.fallback_reason,
            "score": decision and decision.score,
            "task": decision and decision.task,
            "classifier_version": decision and decision.classifier_version,
            "overhead_ms": _ms(exchange.overhead_s),
            "ttft_ms": _ms(exchange.ttft_s),
            "prompt_tokens": usage and usage.prompt_tokens,
            "completion_tokens": usage and usage.completion_tokens,
            "dollars": exchange.dollars,
            "baseline_dollars": exchange.baseline_dollars,
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def live_api(settings: Settings, canary: Canary, metrics: Metrics, recent: RecentExchanges) -> APIRouter:
    """Return the endpoint as a FastAPI router."""
    api = APIRouter(tags=["operations"])
    triton = TritonMetrics(settings.triton.metrics_url, settings.triton.model)
    configured = _configured(settings)

    @api.get("/admin/live")
    async def live() -> JSONResponse:
        """Return this worker's last decisions, all workers' totals, and the state of classifier and Triton."""
        state = {
            "time": time(),
            "version": __version__,
            "worker": os.getpid(),
            "configured": configured,
            "health": await canary.state(),
            "totals": totals(Samples(metrics.samples())),
            "triton": await triton.state(),
            "decisions": recent.described(),
        }
        return JSONResponse(state, headers=_HEADERS)

    return api


def totals(samples: Samples) -> dict[str, Any]:
    """Return what the router's metrics add up to since `started`, which is Unix time."""
    total, by = samples.total, samples.by
    per_hour = "llm_router_classifier_dollars_per_hour"
    return {
        "started": total("llm_router_start_time_seconds"),
        "requests": {
            label: by(label, "llm_router_requests_total") for label in ("outcome", "model", "policy", "reason")
        },
        "in_flight": total("llm_router_in_flight_requests"),
        "queue_depth": total("llm_router_queue_depth"),
        "tokens": by("kind", "llm_router_tokens_total"),
        "fallbacks": by("reason", "llm_router_fallbacks_total"),
        "model_fallbacks": by("reason", "llm_router_model_fallbacks_total"),
        "refused": by("reason", "llm_router_refused_requests_total"),
        "client_refusals": by("reason", "llm_router_client_refusals_total"),
        "cache": by("result", "llm_router_cache_lookups_total"),
        "shared_rows": total("llm_router_shared_rows_total"),
        "truncated_prompts": total("llm_router_truncated_prompts_total"),
        "breaker": max(by("target", "llm_router_breaker_state").values(), default=0),
        "classifier_versions": sorted(by("version", "llm_router_classifier_info")),
        "dollars": {
            **_compared_dollars(samples),
            "unpriced_requests": total("llm_router_unpriced_requests_total"),
            "classifier_per_hour": total(per_hour) if per_hour in samples else None,
        },
        "histograms": {name: samples.histogram(metric) for name, metric in _HISTOGRAMS.items()},
    }


def _compared_dollars(samples: Samples) -> dict[str, float]:
    """Return what was spent, and what of it has a baseline beside it.

    A policy with an unpriced candidate has no baseline; its spending must not look like a loss.
    """
    spent = samples.by("policy", "llm_router_cost_dollars_total")
    baseline = samples.by("policy", "llm_router_baseline_dollars_total")
    return {
        "spent": sum(spent.values()),
        "compared": sum(dollars for policy, dollars in spent.items() if policy in baseline),
        "baseline": sum(baseline.values()),
    }


def _configured(settings: Settings) -> dict[str, Any]:
    """Return the names that the page offers and draws, from the configuration."""
    return {
        "policies": [
            {
                "name": policy.name,
                "type": policy.kind,
                "models": list(candidates(policy)),
                "takes_threshold": _takes_threshold(policy),
            }
            for policy in settings.policies.values()
        ],
        "default_policy": settings.default_policy,
        "models": list(settings.models),
        "cheapest_model": cheapest(settings.models.values()),
    }


def _takes_threshold(policy: PolicySettings) -> bool:
    try:
        with_threshold(policy, 0.5)
    except InvalidRequest:
        return False
    return True


def cheapest(models: Iterable[ModelSettings]) -> str | None:
    """Return the first model whose tokens cost least, None when no price is known."""
    prices = {m.name: m.price.input_per_million + m.price.output_per_million for m in models if m.price is not None}
    return min(prices, key=prices.__getitem__, default=None)
