"""Router: what comes in, where it goes, how long it takes, what fails."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import (
    GREEN,
    HALF,
    OVERHEAD_LIMIT_S,
    RED,
    YELLOW,
    Query,
    Row,
    chart,
    figure,
    house,
    listing,
    variable,
)
from monitoring.dashboards.promql import gauge, mean, quantile, rate, ratio

POLICY = 'policy=~"$policy"'
MODEL = 'model=~"$model"'
BOTH = f"{POLICY}, {MODEL}"


def build() -> Dashboard:
    """Return the dashboard that opens first."""
    return house(
        "llm-router",
        "LLM router",
        "Traffic, latency by stage, the router's own overhead against its 100 ms limit, errors and fallbacks.",
        [variable("policy", "llm_router_requests_total"), variable("model", "llm_router_requests_total")],
        [_glance(), _traffic(), _latency(), _decisions(), _failover(), _upstreams(), _processes()],
    )


def _glance() -> Row:
    return Row(
        "At a glance",
        (
            figure(
                "Requests",
                "Chat requests per second, by their end.",
                "reqps",
                rate("llm_router_requests_total", BOTH),
            ),
            figure(
                "Answered, 5 min",
                "Share of requests that got an answer. What clients cause themselves does not count: their errors, "
                "their cancellations, an upstream's 4xx.",
                "percentunit",
                "llm_router:availability:ratio_rate5m",
                (YELLOW, 0.95),
                (GREEN, 0.999),
                base=RED,
                decimals=2,
            ),
            figure(
                "Own overhead, p99",
                "What the router adds: everything that is not the wait for the upstream. The limit is 100 ms.",
                "s",
                quantile(0.99, "llm_router_overhead_seconds", POLICY),
                (YELLOW, OVERHEAD_LIMIT_S / 2),
                (RED, OVERHEAD_LIMIT_S),
            ),
            figure(
                "Overhead under 100 ms, 5 min",
                "Share of requests to which the router added less than 100 ms.",
                "percentunit",
                "llm_router:overhead_within_100ms:ratio_rate5m",
                (YELLOW, 0.95),
                (GREEN, 0.99),
                base=RED,
                decimals=2,
            ),
            figure(
                "Without the classifier, 5 min",
                "Share of decisions that fell back to a policy's default model.",
                "percentunit",
                "1 - llm_router:decisions_classified:ratio_rate5m",
                (YELLOW, 0.01),
                (RED, 0.05),
                decimals=2,
            ),
            figure("In flight", "Chat requests being answered now.", "short", gauge("llm_router_in_flight_requests")),
        ),
    )


def _traffic() -> Row:
    requests = "llm_router_requests_total"
    return Row(
        "Traffic",
        (
            chart(
                "Requests by model",
                "Where requests went. `none`: refused before a decision.",
                "reqps",
                Query(rate(requests, BOTH, "model"), "{{model}}"),
                stacked=True,
            ),
            chart(
                "Requests by policy",
                "Which policy decided.",
                "reqps",
                Query(rate(requests, BOTH, "policy"), "{{policy}}"),
                stacked=True,
            ),
            chart(
                "Requests by reason",
                "Why the model was chosen.",
                "reqps",
                Query(rate(requests, BOTH, "reason"), "{{reason}}"),
                stacked=True,
            ),
            chart(
                "Failures by outcome",
                "Requests that did not end well: upstream_* the LLM's, client_* the client's, the others ours.",
                "reqps",
                Query(rate(requests, f'{BOTH}, outcome!="ok"', "outcome"), "{{outcome}}"),
                width=HALF,
                stacked=True,
            ),
            chart(
                "Fallbacks by reason",
                "Decisions taken without the classifier, by what was wrong with it.",
                "reqps",
                Query(rate("llm_router_fallbacks_total", POLICY, "reason"), "{{reason}}"),
                width=HALF,
                stacked=True,
            ),
        ),
    )


def _latency() -> Row:
    overhead = "llm_router_overhead_seconds"
    stages = {
        "wait for a batch": "llm_router_queue_delay_seconds",
        "call to Triton": "llm_router_classify_seconds",
        "decision": "llm_router_decide_seconds",
        "own overhead": overhead,
        "first byte of the LLM": "llm_router_upstream_ttft_seconds",
        "whole request": "llm_router_request_duration_seconds",
    }
    return Row(
        "Latency",
        (
            chart(
                "Own overhead",
                "What the router adds, all stages together. The line is the limit of 100 ms.",
                "s",
                *(Query(quantile(q, overhead, POLICY), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
                width=HALF,
                limit=OVERHEAD_LIMIT_S,
            ),
            chart(
                "Stages, p95",
                "Where the time goes, on a logarithmic scale. A decision holds the wait and the call; the whole "
                "request holds all.",
                "s",
                *(Query(quantile(0.95, metric), stage) for stage, metric in stages.items()),
                width=HALF,
                logarithmic=True,
            ),
            chart(
                "Time to a decision, p95",
                "By where the score came from; `none`: no score was needed.",
                "s",
                Query(quantile(0.95, "llm_router_decide_seconds", "", "source"), "{{source}}"),
                limit=OVERHEAD_LIMIT_S,
            ),
            chart(
                "First byte of the LLM, p95",
                "From sending the request to a stream's first part, or to a whole answer.",
                "s",
                Query(quantile(0.95, "llm_router_upstream_ttft_seconds", MODEL, "model"), "{{model}}"),
            ),
            chart(
                "Whole request, p95",
                "From a request's whole body to its end, streams included.",
                "s",
                Query(quantile(0.95, "llm_router_request_duration_seconds", BOTH, "model"), "{{model}}"),
            ),
        ),
    )


def _decisions() -> Row:
    decisions, lookups = "llm_router_decisions_total", "llm_router_cache_lookups_total"
    hits = rate(lookups, 'result="hit"')
    return Row(
        "Decisions",
        (
            chart(
                "Decisions by category",
                "The category that was chosen, as in the header X-Chosen-Classifier: a task, or the model itself.",
                "reqps",
                Query(rate(decisions, BOTH, "label"), "{{label}}"),
                stacked=True,
            ),
            chart(
                "Decisions by source",
                "Where scores came from: the classifier, the cache, none needed, or none to be had (fallback).",
                "reqps",
                Query(rate(decisions, BOTH, "source"), "{{source}}"),
                stacked=True,
            ),
            chart(
                "Cache hits",
                "Share of texts whose score was known already.",
                "percentunit",
                Query(ratio(hits, rate(lookups)), "hits"),
            ),
            chart(
                "Prompts per batch",
                "Mean number of prompts that one call to Triton carried.",
                "short",
                Query(mean("llm_router_batch_rows"), "prompts"),
            ),
            chart(
                "Waiting prompts",
                "Prompts that wait for their batch, over all routers.",
                "short",
                Query(gauge("llm_router_queue_depth"), "prompts"),
            ),
            chart(
                "Shared and truncated prompts",
                "Prompts that shared the row of an identical one, and prompts longer than the classifier reads.",
                "reqps",
                Query(rate("llm_router_shared_rows_total"), "shared"),
                Query(rate("llm_router_truncated_prompts_total"), "truncated"),
            ),
        ),
    )


def _failover() -> Row:
    return Row(
        "When LLMs fail",
        (
            chart(
                "Requests to another LLM",
                "Requests that went to a fallback because the chosen model failed, or is left alone for a moment.",
                "reqps",
                Query(
                    rate("llm_router_model_fallbacks_total", "", "from, to, reason"), "{{from}} to {{to}}: {{reason}}"
                ),
                stacked=True,
            ),
            chart(
                "Retries at the same LLM",
                "Requests sent to the same model again, by what had failed.",
                "reqps",
                Query(rate("llm_router_upstream_retries_total", MODEL, "model, reason"), "{{model}}: {{reason}}"),
                stacked=True,
            ),
            chart(
                "Failed attempts by code",
                "Answers that an LLM did not give, refused or did not finish, also where a retry mended it.",
                "reqps",
                Query(rate("llm_router_upstream_errors_total", MODEL, "model, code"), "{{model}}: {{code}}"),
                stacked=True,
            ),
            chart(
                "Breakers before LLMs",
                "0: asked. 1: tried once in a while. 2: left alone. One line for each server of a model.",
                "short",
                Query(
                    f"max by (model, replica) (llm_router_upstream_breaker_state{{{MODEL}}})", "{{model}} {{replica}}"
                ),
                width=HALF,
            ),
            chart(
                "Requests under way by server",
                "How the requests to a model spread over its servers.",
                "short",
                Query(
                    gauge("llm_router_upstream_in_flight_requests", MODEL, "model, replica"), "{{model}} {{replica}}"
                ),
                width=HALF,
            ),
        ),
    )


def _upstreams() -> Row:
    return Row(
        "LLMs and versions",
        (
            chart(
                "Connections in use",
                "Requests to each LLM now.",
                "short",
                Query(gauge("llm_router_upstream_in_flight_requests", MODEL, "model"), "{{model}}"),
            ),
            chart(
                "Tokens by model",
                "As the LLMs counted them.",
                "short",
                Query(rate("llm_router_tokens_total", MODEL, "model, kind"), "{{model}} {{kind}}"),
                stacked=True,
            ),
            chart(
                "Missing from the accounts",
                "Answers without a token count, and answers of models whose price is unknown: cost and savings lack "
                "them.",
                "reqps",
                Query(rate("llm_router_usage_unknown_total", MODEL, "model"), "{{model}}: tokens unknown"),
                Query(rate("llm_router_unpriced_requests_total", MODEL, "model"), "{{model}}: price unknown"),
            ),
            listing(
                "Routers by version",
                "How many routers run which version on which Python.",
                "short",
                "count by (version, python) (llm_router_build_info)",
            ),
            listing(
                "Classifier by version",
                "How many routers use which version of the classifier.",
                "short",
                "count by (model, version) (llm_router_classifier_info)",
            ),
        ),
    )


def _processes() -> Row:
    reloads = "llm_router_config_reloads_total"
    return Row(
        "Processes",
        (
            chart(
                "Refused by reason",
                "Requests refused before their body was read: too many in flight, or the event loop is late.",
                "reqps",
                Query(rate("llm_router_refused_requests_total", "", "reason"), "{{reason}}"),
                stacked=True,
            ),
            chart(
                "Event loop lag, p99",
                "How late a timer comes: what every step of every request waits. Over 100 ms counts as blocked.",
                "s",
                Query(quantile(0.99, "llm_router_event_loop_lag_seconds", "", "instance"), "{{instance}}"),
            ),
            chart(
                "Reloads of the configuration",
                "By each worker: ok, or rejected because the new file cannot work.",
                "reqps",
                Query(rate(reloads, "", "result"), "{{result}}"),
            ),
        ),
    )
