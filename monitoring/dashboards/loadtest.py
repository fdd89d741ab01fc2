"""Load test: what Locust's users experience, beside what the router reports."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import (
    OVERHEAD_LIMIT_S,
    RED,
    YELLOW,
    Query,
    Row,
    chart,
    figure,
    house,
    variable,
)
from monitoring.dashboards.promql import gauge, quantile, rate, ratio

MODEL = 'model=~"$model"'
REQUESTS, ERRORS, TOKENS = "locust_requests_total", "locust_errors_total", "locust_tokens_total"
TTFT, OVERHEAD = "locust_ttft_seconds", "locust_router_overhead_seconds"
COST, BASELINE = "locust_cost_dollars_total", "locust_baseline_dollars_total"
QUANTILES = (0.5, 0.95, 0.99)


def build() -> Dashboard:
    """Return the dashboard to watch during `make loadtest`."""
    return house(
        "llm-router-loadtest",
        "LLM router: load test",
        "Users, requests, latency as clients see it, tokens, errors and money, by model. Data comes while Locust runs.",
        [variable("model", REQUESTS)],
        [_glance(), _traffic(), _latency(), _router()],
    )


def _percentiles(histogram: str) -> tuple[Query, ...]:
    return tuple(Query(quantile(q, histogram, MODEL), f"p{q * 100:.0f}") for q in QUANTILES)


def _by_model(histogram: str) -> Query:
    return Query(quantile(0.95, histogram, MODEL, "model"), "{{model}}")


def _glance() -> Row:
    return Row(
        "At a glance",
        (
            figure("Users", "Simulated users now.", "short", gauge("locust_users")),
            figure("Requests sent", "Requests per second that came to their end.", "reqps", rate(REQUESTS, MODEL)),
            figure(
                "Failed",
                "Share of requests that ended in an error.",
                "percentunit",
                f"({rate(ERRORS)} or vector(0)) / ({rate(REQUESTS)} > 0)",
                (YELLOW, 0.001),
                (RED, 0.01),
                decimals=2,
            ),
            figure("First token, p95", "Time to first token of streams.", "s", quantile(0.95, TTFT, MODEL)),
            figure(
                "Tokens received", "Completion tokens per second.", "short", rate(TOKENS, f'{MODEL}, kind="completion"')
            ),
            figure(
                "Saved",
                "Share of the dollars that the dearest model would have cost.",
                "percentunit",
                f"1 - {ratio(rate(COST), rate(BASELINE))}",
                decimals=1,
            ),
        ),
    )


def _traffic() -> Row:
    return Row(
        "Traffic",
        (
            chart("Users over time", "Simulated users.", "short", Query(gauge("locust_users"), "users")),
            chart(
                "Requests sent, by model",
                "The model that answered, as the response's header says.",
                "reqps",
                Query(rate(REQUESTS, MODEL, "model"), "{{model}}"),
                stacked=True,
            ),
            chart(
                "Errors by type",
                "Failed requests.",
                "reqps",
                Query(rate(ERRORS, "", "error_type"), "{{error_type}}"),
                stacked=True,
            ),
            chart(
                "Tokens, by model",
                "Prompt and completion tokens per second.",
                "short",
                Query(rate(TOKENS, MODEL, "model, kind"), "{{model}} {{kind}}"),
                stacked=True,
            ),
            chart(
                "Dollars per hour at this load",
                "With the router, by model, and had the dearest model answered everything.",
                "currencyUSD",
                Query(f"3600 * {rate(COST, MODEL, 'model')}", "{{model}}"),
                Query(f"3600 * {rate(BASELINE)}", "all to the dearest"),
            ),
            chart(
                "Good answers",
                "Share of answers that began within SLO_TTFT_MS and ended within SLO_E2E_MS.",
                "percentunit",
                Query(ratio(rate("locust_good_answers_total"), rate(REQUESTS)), "good"),
            ),
        ),
    )


def _latency() -> Row:
    return Row(
        "Latency, as clients see it",
        (
            chart("Time to first token", "From sending to the first token.", "s", *_percentiles(TTFT)),
            chart("Time to first token, p95 by model", "Same, by the model that answered.", "s", _by_model(TTFT)),
            chart(
                "Time between tokens",
                "The pause between two parts of a stream (ITL).",
                "s",
                *_percentiles("locust_itl_seconds"),
            ),
            chart(
                "Time per output token, p95 by model",
                "From the first to the last token, over their number (TPOT).",
                "s",
                _by_model("locust_tpot_seconds"),
            ),
            chart(
                "Whole answer",
                "From sending to the last byte.",
                "s",
                *_percentiles("locust_request_duration_seconds"),
            ),
            chart(
                "Whole answer, p95 by model",
                "Same, by the model that answered.",
                "s",
                _by_model("locust_request_duration_seconds"),
            ),
        ),
    )


def _router() -> Row:
    return Row(
        "The router under this load",
        (
            chart(
                "Router overhead",
                "As the response's header x-router-overhead-ms tells. The line is the limit of 100 ms.",
                "s",
                *(Query(quantile(q, OVERHEAD), f"p{q * 100:.0f}") for q in QUANTILES),
                limit=OVERHEAD_LIMIT_S,
            ),
            chart(
                "Decisions, by reason",
                "As the response's header x-router-reason tells.",
                "reqps",
                Query(rate("locust_decisions_total", "", "reason"), "{{reason}}"),
                stacked=True,
            ),
            chart(
                "Sent and received",
                "Requests as Locust and as the routers count them: apart, somebody else sends too, or some are lost.",
                "reqps",
                Query(rate(REQUESTS), "Locust"),
                Query(rate("llm_router_requests_total"), "routers"),
            ),
        ),
    )
