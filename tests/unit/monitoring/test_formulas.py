"""Panels calculate what they say: the GPU's, batching's and money's formulas, on series made up here."""

from __future__ import annotations

from monitoring.check import synthetic
from monitoring.check.questions import Question, dashboard_questions
from tests.unit.monitoring.sources import dashboards, needs_prometheus

SERIES = {
    'nv_gpu_utilization{gpu_uuid="GPU-1"}': "0.75x40",
    'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"}': "60x40",
    'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"}': "80x40",
    'nv_gpu_power_usage{gpu_uuid="GPU-1"}': "300x40",
    'nv_energy_consumption{gpu_uuid="GPU-1"}': "0+4500x40",  # 300 J/s
    'nv_inference_count{model="prompt_classifier", version="1"}': "0+6000x40",  # 400 rows/s
    'nv_inference_count{model="prompt_classifier", version="2"}': "0+9000x40",  # 600 rows/s
    'nv_inference_count{model="another", version="1"}': "0+15000x40",
    'nv_inference_exec_count{model="prompt_classifier", version="1"}': "0+1500x40",
    'nv_inference_exec_count{model="prompt_classifier", version="2"}': "0+2250x40",
    'llm_router_classifier_dollars_per_hour{instance="1"}': "3.6x40",
    'llm_router_classifier_dollars_per_hour{instance="2"}': "3.6x40",
    'DCGM_FI_DEV_GPU_TEMP{gpu="0"}': "71x40",
    'prompt_classifier_padded_tokens_total{model="prompt_classifier", version="1"}': "0+15x40",
    'prompt_classifier_tokens_total{model="prompt_classifier", version="1"}': "0+45x40",
    'llm_router_requests_total{policy="p", model="dear", outcome="ok"}': "0+15x40",
    'llm_router_requests_total{policy="p", model="cheap", outcome="ok"}': "0+45x40",
    'llm_router_requests_total{policy="q", model="dear", outcome="ok"}': "0+15x40",
    'llm_router_requests_total{policy="none", model="none", outcome="client_error"}': "0+900x40",
    'llm_router_cost_dollars_total{policy="p", model="dear", task="none"}': "0+3x40",
    'llm_router_cost_dollars_total{policy="p", model="cheap", task="none"}': "0+1.5x40",
    'llm_router_baseline_dollars_total{policy="p", task="none"}': "0+9x40",
    'llm_router_tokens_total{model="dear", kind="prompt"}': "0+15x40",
    'llm_router_tokens_total{model="cheap", kind="prompt"}': "0+150x40",
}
EXPECTED: dict[tuple[str, str], dict[str, float]] = {
    ("llm-router-classifier", "GPU utilisation"): {'{gpu_uuid="GPU-1"}': 0.75},
    ("llm-router-classifier", "GPU memory"): {'{gpu_uuid="GPU-1"}': 0.75},
    ("llm-router-classifier", "GPU power [A]"): {'{gpu_uuid="GPU-1"}': 300},
    ("llm-router-classifier", "GPU temperature"): {'{gpu="0"}': 71},
    ("llm-router-classifier", "Energy of 1,000 classifications"): {"{}": 300},
    # one thousandth of an hour's price per second, at 1,000 rows per second
    ("llm-router-classifier", "Dollars for 1,000 classifications"): {"{}": 0.001},
    ("llm-router-classifier", "Mean batch"): {"{}": 4},
    ("llm-router-classifier", "Padding"): {"{}": 0.25},
    ("llm-router-savings", "Share to cheaper models, by policy"): {'{policy="p"}': 0.75, '{policy="q"}': 0},
    ("llm-router-savings", "Cost of 1,000 requests, over time [A]"): {"{}": 60},
    ("llm-router-savings", "Cost of 1,000 requests, over time [B]"): {"{}": 120},
    ("llm-router-savings", "Spent on the GPU"): {"{}": 0.3},
    # in 5 minutes: 180 at the dearest, 90 spent, 0.3 for the GPU
    ("llm-router-savings", "Net saved"): {"{}": 89.7},
}


def question(uid: str, title: str) -> Question:
    [dashboard] = [one for one in dashboards() if one["uid"] == uid]
    [found] = [one for one in dashboard_questions(dashboard) if one.title == title]
    return found


@needs_prometheus
def test_panels_calculate_what_they_say() -> None:
    cases = []
    for place, samples in EXPECTED.items():
        expr = question(*place).promql(rate_interval_s=60, range_s=300)
        expected = [{"labels": labels, "value": value} for labels, value in samples.items()]
        cases.append({"expr": f"round({expr}, 0.0001)", "eval_time": "8m", "exp_samples": expected})
    assert synthetic.run(cases, SERIES).trouble is None
