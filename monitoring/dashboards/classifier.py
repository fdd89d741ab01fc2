"""Classifier on Triton: how much it scores, in what batches, how fast, at what price."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.dashboards.panels import HALF, RED, YELLOW, Query, Row, chart, figure, house, variable
from monitoring.dashboards.promql import gauge, mean, quantile, rate, ratio

SERVED = 'model="$model", version=~"$version"'
ROWS, RUNS = "nv_inference_count", "nv_inference_exec_count"
SUCCESS, FAILURE = "nv_inference_request_success", "nv_inference_request_failure"
PENDING = "nv_inference_pending_request_count"
TOKENS, PADDING = "prompt_classifier_tokens_total", "prompt_classifier_padded_tokens_total"
QUEUE_LIMIT_S = 0.05


def build() -> Dashboard:
    """Return the dashboard for Triton and its GPU."""
    return house(
        "llm-router-classifier",
        "LLM router: classifier on Triton",
        "Throughput, batching, queue and compute time, failures, padding, versions; the GPU's load and its price.",
        [
            variable("model", ROWS, default="prompt_classifier"),
            variable("version", f'{ROWS}{{model="$model"}}'),
        ],
        [_glance(), _throughput(), _time(), _trouble(), _gpu()],
    )


def _seconds_per_request(stage: str, by: str = "") -> str:
    return ratio(rate(f"nv_inference_{stage}_duration_us", SERVED, by), rate(SUCCESS, SERVED, by)) + " / 1e6"


def _padding(by: str = "") -> str:
    padding, tokens = rate(PADDING, SERVED, by), rate(TOKENS, SERVED, by)
    return f"{padding} / ({padding} + {tokens} > 0)"


def _glance() -> Row:
    failed, succeeded = rate(FAILURE, SERVED), rate(SUCCESS, SERVED)
    return Row(
        "At a glance",
        (
            figure("Prompts scored", "Rows per second.", "reqps", rate(ROWS, SERVED)),
            figure(
                "Mean batch",
                "Rows that Triton ran at once. Near 1 at high load, batching does not work.",
                "short",
                ratio(rate(ROWS, SERVED), rate(RUNS, SERVED)),
                decimals=1,
            ),
            figure(
                "Wait in the queue",
                "Mean time of a request in Triton's queue. The limit is 50 ms.",
                "s",
                _seconds_per_request("queue"),
                (YELLOW, QUEUE_LIMIT_S / 2),
                (RED, QUEUE_LIMIT_S),
            ),
            figure(
                "Failed requests",
                "Share of requests to Triton that failed, for whatever reason.",
                "percentunit",
                f"{failed} / ({failed} + {succeeded} > 0)",
                (YELLOW, 0.001),
                (RED, 0.01),
                decimals=2,
            ),
            figure(
                "Pending",
                "Requests that wait in Triton now.",
                "short",
                gauge(PENDING, SERVED),
                (YELLOW, 50),
                (RED, 100),
            ),
            figure(
                "Padding",
                "Share of computed tokens that were padding.",
                "percentunit",
                _padding(),
                (YELLOW, 0.25),
                (RED, 0.5),
                decimals=1,
            ),
        ),
    )


def _throughput() -> Row:
    return Row(
        "Throughput and batching",
        (
            chart(
                "Prompts scored, by version",
                "Rows per second. During a hot swap one version's falls as the other's rises.",
                "reqps",
                Query(rate(ROWS, SERVED, "version"), "version {{version}}"),
                stacked=True,
            ),
            chart(
                "Requests and executions",
                "Triton merges the requests of several routers into executions.",
                "reqps",
                Query(rate(SUCCESS, SERVED), "requests"),
                Query(rate(RUNS, SERVED), "executions"),
            ),
            chart(
                "Batch size",
                "Mean rows per execution in Triton, and per request as the routers batch.",
                "short",
                Query(ratio(rate(ROWS, SERVED, "version"), rate(RUNS, SERVED, "version")), "Triton, {{version}}"),
                Query(mean("llm_router_batch_rows"), "routers"),
            ),
            chart(
                "Tokens",
                "What the model read, and what it computed for nothing.",
                "short",
                Query(rate(TOKENS, SERVED), "tokens"),
                Query(rate(PADDING, SERVED), "padding"),
                stacked=True,
            ),
            chart(
                "Padding, by version",
                "Share of computed tokens that were padding. Sorting a batch by length keeps it low.",
                "percentunit",
                Query(_padding("version"), "version {{version}}"),
            ),
            chart(
                "Truncated prompts",
                "Share of prompts longer than the model reads.",
                "percentunit",
                Query(
                    ratio(
                        rate("prompt_classifier_rows_truncated_total", SERVED, "version"),
                        rate("prompt_classifier_rows_total", SERVED, "version"),
                    ),
                    "version {{version}}",
                ),
            ),
        ),
    )


def _time() -> Row:
    stages = {"queue": "queue", "input": "compute_input", "model": "compute_infer", "output": "compute_output"}
    queue, request = (rate(f"nv_inference_{stage}_duration_us", SERVED, "version") for stage in ("queue", "request"))
    return Row(
        "Time",
        (
            chart(
                "Time in Triton, by stage",
                "Mean time of a request.",
                "s",
                *(Query(_seconds_per_request(stage), name) for name, stage in stages.items()),
                stacked=True,
            ),
            chart(
                "Queue's share",
                "Share of the time in Triton that is waiting. Above half, the model is the bottleneck.",
                "percentunit",
                Query(ratio(queue, request), "version {{version}}"),
                limit=0.5,
            ),
            chart(
                "A call, as the routers see it",
                "One call to Triton for a whole batch, network included.",
                "s",
                *(Query(quantile(q, "llm_router_classify_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
            ),
        ),
    )


def _trouble() -> Row:
    return Row(
        "Trouble and versions",
        (
            chart(
                "Failures by reason",
                "Failed requests to Triton. CANCELED: a router's deadline passed. REJECTED: the queue was full.",
                "reqps",
                Query(rate(FAILURE, SERVED, "reason"), "{{reason}}"),
                stacked=True,
            ),
            chart(
                "Pending requests",
                "Requests that wait in Triton.",
                "short",
                Query(gauge(PENDING, SERVED, "version"), "version {{version}}"),
                limit=100,
            ),
            chart(
                "Routers by classifier version",
                "How many routers use which version: all the same, except during a hot swap.",
                "short",
                Query("count by (version) (llm_router_classifier_info)", "version {{version}}"),
                stacked=True,
            ),
            chart(
                "CPU",
                "Of the machine that Triton runs on.",
                "percentunit",
                Query("avg(nv_cpu_utilization)", "CPU"),
                width=HALF,
            ),
            chart(
                "Memory",
                "Of the machine that Triton runs on.",
                "bytes",
                Query(gauge("nv_cpu_memory_used_bytes"), "used"),
                Query(gauge("nv_cpu_memory_total_bytes"), "total"),
                width=HALF,
            ),
        ),
    )


def _gpu() -> Row:
    per_hour = "max(llm_router_classifier_dollars_per_hour)"
    return Row(
        "GPU",
        (
            chart(
                "GPU utilisation",
                "Share of the time in which the GPU worked.",
                "percentunit",
                Query("avg by (gpu_uuid) (nv_gpu_utilization)", "{{gpu_uuid}}"),
            ),
            chart(
                "GPU memory",
                "Share of the GPU's memory in use.",
                "percentunit",
                Query(
                    ratio(
                        gauge("nv_gpu_memory_used_bytes", "", "gpu_uuid"),
                        gauge("nv_gpu_memory_total_bytes", "", "gpu_uuid"),
                    ),
                    "{{gpu_uuid}}",
                ),
                limit=0.92,
            ),
            chart(
                "GPU power",
                "Power drawn, and the limit.",
                "watt",
                Query("avg by (gpu_uuid) (nv_gpu_power_usage)", "{{gpu_uuid}}"),
                Query("avg by (gpu_uuid) (nv_gpu_power_limit)", "{{gpu_uuid}} limit"),
            ),
            chart(
                "GPU temperature",
                "From the DCGM exporter; Triton does not know it.",
                "celsius",
                Query("max by (gpu) (DCGM_FI_DEV_GPU_TEMP)", "GPU {{gpu}}"),
                limit=85,
            ),
            chart(
                "Energy of 1,000 classifications",
                "What the GPU used, idle time included.",
                "joule",
                Query(f"1000 * {ratio(rate('nv_energy_consumption'), rate(ROWS, SERVED))}", "energy"),
            ),
            chart(
                "Dollars for 1,000 classifications",
                "The GPU's configured price per hour over what it scores, idle time included.",
                "currencyUSD",
                Query(f"1000 * {per_hour} / 3600 / ({rate(ROWS, SERVED)} > 0)", "dollars"),
            ),
        ),
    )
