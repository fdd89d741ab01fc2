"""Savings: what was spent, what the dearest model would have cost, and what is left after paying for the GPU."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import GREEN, HALF, RED, YELLOW, Query, Row, chart, figure, house, variable
from monitoring.dashboards.promql import rate, ratio, total
from monitoring.dashboards.router import BOTH, MODEL, POLICY

COST, BASELINE = "llm_router_cost_dollars_total", "llm_router_baseline_dollars_total"
REQUESTS, ANSWERED = "llm_router_requests_total", f'{POLICY}, outcome="ok"'
# Every router reports the same GPU price, hence max; without a configured price classification is free.
GPU_PER_HOUR = "(max(llm_router_classifier_dollars_per_hour) or vector(0))"
GPU_OVER_RANGE = (
    "(max(avg_over_time(llm_router_classifier_dollars_per_hour[$__range])) or vector(0)) * $__range_s / 3600"
)
NET_SAVED = f"{total(BASELINE, POLICY)} - {total(COST, POLICY)} - {GPU_OVER_RANGE}"
DOLLARS = "currencyUSD"


def build() -> Dashboard:
    """Return the dashboard for those who pay."""
    return house(
        "llm-router-savings",
        "LLM router: savings",
        "Expense by model, policy and task, against sending everything to each policy's dearest model. "
        "Net of the GPU that classifies, when triton.price_per_hour is configured.",
        [variable("policy", REQUESTS), variable("model", REQUESTS)],
        [_range(), _over_time(), _where(), _clients()],
    )


def _range() -> Row:
    return Row(
        "Over the chosen time range",
        (
            figure("Spent on LLMs", "Dollars for all answers whose price is known.", DOLLARS, total(COST, POLICY)),
            figure(
                "All to the dearest",
                "What the same tokens would have cost at each policy's dearest model.",
                DOLLARS,
                total(BASELINE, POLICY),
            ),
            figure("Spent on the GPU", "The GPU that classifies, busy or not.", DOLLARS, GPU_OVER_RANGE),
            figure(
                "Net saved",
                "All to the dearest, less what was spent on LLMs and on the GPU.",
                DOLLARS,
                NET_SAVED,
                (GREEN, 0),
                base=RED,
            ),
            figure(
                "Net saved, share",
                "Net savings as a share of what the dearest model would have cost.",
                "percentunit",
                f"({NET_SAVED}) / ({total(BASELINE, POLICY)} > 0)",
                (YELLOW, 0),
                (GREEN, 0.1),
                base=RED,
                decimals=1,
            ),
            figure(
                "Cost of 1,000 requests",
                "Spent on LLMs, per thousand answered requests.",
                DOLLARS,
                f"1000 * {ratio(total(COST, POLICY), total(REQUESTS, ANSWERED))}",
            ),
        ),
    )


def _over_time() -> Row:
    return Row(
        "Over time",
        (
            chart(
                "Dollars per hour",
                "With the router, and had the dearest model answered everything.",
                DOLLARS,
                Query(f"3600 * {rate(COST, POLICY)}", "LLMs"),
                Query(f"3600 * {rate(COST, POLICY)} + {GPU_PER_HOUR}", "LLMs and GPU"),
                Query(f"3600 * {rate(BASELINE, POLICY)}", "all to the dearest"),
                width=HALF,
            ),
            chart(
                "Net saved per hour",
                "Below zero, routing costs more than it saves.",
                DOLLARS,
                Query(f"3600 * ({rate(BASELINE, POLICY)} - {rate(COST, POLICY)}) - {GPU_PER_HOUR}", "now"),
                Query("llm_router:net_saved_dollars_per_hour:rate1h", "all policies, over an hour"),
                width=HALF,
            ),
            chart(
                "Cost of 1,000 requests, over time",
                "Per thousand answered requests: with the router, and had the dearest model answered all.",
                DOLLARS,
                Query(f"1000 * {ratio(rate(COST, POLICY), rate(REQUESTS, ANSWERED))}", "with the router"),
                Query(f"1000 * {ratio(rate(BASELINE, POLICY), rate(REQUESTS, ANSWERED))}", "all to the dearest"),
                width=HALF,
            ),
            chart(
                "Share to cheaper models, by policy",
                "Requests that did not go to the dearest model in use; the dearest is the one whose tokens cost most "
                "over the last hour.",
                "percentunit",
                Query(_share_to_cheaper(), "{{policy}}"),
                width=HALF,
            ),
        ),
    )


def _where() -> Row:
    def hourly(by: str) -> Query:
        return Query(f"3600 * {rate(COST, BOTH, by)}", f"{{{{{by}}}}}")

    per_request = ratio(rate(COST, BOTH, "model"), rate(REQUESTS, f'{BOTH}, outcome="ok"', "model"))
    return Row(
        "Where the money goes",
        (
            chart("Expense by model", "Dollars per hour.", DOLLARS, hourly("model"), stacked=True),
            chart(
                "Expense by task",
                "Dollars per hour, by the likeliest task of the prompt; `none`: not classified.",
                DOLLARS,
                hourly("task"),
                stacked=True,
            ),
            chart("Expense by policy", "Dollars per hour.", DOLLARS, hourly("policy"), stacked=True),
            chart(
                "Saved by task",
                "Dollars per hour below the dearest model, the GPU not subtracted.",
                DOLLARS,
                Query(f"3600 * ({rate(BASELINE, POLICY, 'task')} - {rate(COST, POLICY, 'task')})", "{{task}}"),
                stacked=True,
            ),
            chart(
                "Cost of 1,000 requests, by model",
                "Per thousand answered requests of that model.",
                DOLLARS,
                Query(f"1000 * {per_request}", "{{model}}"),
            ),
            chart(
                "Cost of a million tokens, by model",
                "Prompt and completion as they were mixed, over an hour.",
                DOLLARS,
                Query(f"1e6 * llm_router:dollars_per_token:rate1h{{{MODEL}}}", "{{model}}"),
            ),
        ),
    )


def _clients() -> Row:
    cost, asked = "llm_router_client_cost_dollars_total", "llm_router_client_requests_total"
    refused, left = "llm_router_client_refusals_total", "llm_router_client_budget_left_dollars"
    return Row(
        "Clients, where they have keys",
        (
            chart(
                "Expense by client",
                "Dollars per hour, as they count against a budget.",
                DOLLARS,
                Query(f"3600 * {rate(cost, by='client')}", "{{client}}"),
                width=HALF,
                stacked=True,
            ),
            chart(
                "Requests by client",
                "Chat requests per second, refused ones included; `unknown`: without a valid key.",
                "reqps",
                Query(rate(asked, by="client"), "{{client}}"),
                width=HALF,
                stacked=True,
            ),
            chart(
                "Refused by client",
                "Requests per second that were refused for their key, rate, budget or permissions.",
                "reqps",
                Query(rate(refused, by="client, reason"), "{{client}}, {{reason}}"),
                width=HALF,
                stacked=True,
            ),
            chart(
                "Budget left today",
                "Dollars that a client may still spend before 00:00 UTC, where it has a budget.",
                DOLLARS,
                Query(f"min by (client) ({left})", "{{client}}"),
                width=HALF,
            ),
        ),
    )


def _share_to_cheaper() -> str:
    """Return the share by policy; a policy that sent nothing to a cheaper model has 0, not nothing."""
    price = "llm_router:dollars_per_token:rate1h"
    decided = f'{POLICY}, policy!="none"'
    every = rate(REQUESTS, decided, "policy")
    cheaper = f"{rate(REQUESTS, decided, 'policy, model')} and on (model) {price} < on () group_left () max({price})"
    return f"(sum by (policy) ({cheaper}) or 0 * {every}) / ({every} > 0)"
