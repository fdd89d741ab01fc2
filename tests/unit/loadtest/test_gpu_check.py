"""The arithmetic of `make gpu-check`, with made-up measurements."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from loadtest.gpu_check.__main__ import report
from loadtest.gpu_check.compare import LIMIT, compare, mixed_batches
from loadtest.gpu_check.figures import (
    Gpu,
    Parity,
    Point,
    Setting,
    Sweep,
    best,
    dollars_per_1k,
    figures,
    parity,
    problems,
    with_setting,
)

POINT = Point(Setting(instances=2, queue_delay_us=500), batch=32, tokens=64)
FINE = Parity(prompts=64, max_difference=0.001, same_outcome=1.0, tolerance=0.02)


def test_the_sweep_is_every_combination_once():
    sweep = Sweep()
    points = [point for setting in sweep.settings() for point in sweep.points(setting)]
    assert len(set(points)) == len(points) == 4 * 5 * 2 * 3
    assert {point.in_flight for point in points} == {2, 4}


def test_figures_of_a_point():
    latencies = [10.0] * 98 + [20.0, 100.0]
    one = figures(POINT, latencies, 2.0, Gpu(0.1, 1000.0), Gpu(0.8, 1320.0), dollars_per_hour=0.72)
    assert one.rows_per_s == 1600.0  # 100 calls of 32 rows in 2 s
    assert one.p50_ms == 10.0
    assert 20 < one.p99_ms < 100
    assert one.joules_per_1k == 100.0  # 320 J for 3,200 rows
    assert one.gpu_utilisation == 0.8
    assert one.dollars_per_1k == pytest.approx(0.000125)  # 0.0002 dollars a second for 1.6 thousand rows


def test_without_a_gpu_there_is_no_energy():
    one = figures(POINT, [1.0], 1.0, Gpu(None, None), Gpu(None, None), dollars_per_hour=1)
    assert (one.joules_per_1k, one.gpu_utilisation) == (None, None)


def test_an_hour_of_rows_costs_the_hourly_price():
    assert dollars_per_1k(1000 / 3600, 3.0) == 3.0


def test_parity_is_the_greatest_difference():
    expected = np.array([[0.7, 0.1, 0.1, 0.1], [0.3, 0.4, 0.2, 0.1]])
    served = expected + np.array([[0, 0, 0, 0], [0.11, -0.11, 0, 0]])
    compared = parity(served, expected, tolerance=0.02)
    assert (compared.max_difference, compared.same_outcome, compared.holds) == (0.11, 0.5, False)
    assert parity(expected, expected, tolerance=0.02).holds


def test_a_row_that_was_not_scored_is_no_parity():
    expected = np.full((2, 4), 0.25)
    served = expected.copy()
    served[1] = np.nan
    assert not parity(served, expected, tolerance=0.02).holds


def test_a_gpu_instance_that_computes_on_the_cpu_is_a_problem():
    [problem] = problems("KIND_GPU", {"CPUExecutionProvider": 224.0}, FINE)
    assert problem == "the model is KIND_GPU, but 224 of its 224 nodes run on the CPU"
    assert problems("KIND_GPU", {"TensorrtExecutionProvider": 220.0, "CPUExecutionProvider": 4.0}, FINE) == []
    assert problems("KIND_CPU", {"CPUExecutionProvider": 224.0}, FINE) == []


def test_a_setting_changes_instances_and_delay_only():
    config = {
        "name": "prompt_classifier",
        "instance_group": [{"kind": "KIND_GPU", "count": 1, "gpus": [0]}],
        "dynamic_batching": {"max_queue_delay_microseconds": "500"},
    }
    changed = json.loads(with_setting(config, Setting(instances=3, queue_delay_us=0)))
    assert changed == {
        "name": "prompt_classifier",
        "instance_group": [{"kind": "KIND_GPU", "count": 3, "gpus": [0]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
    }
    assert '"count": 1' in json.dumps(config)


def test_mixed_traffic_has_short_and_long_prompts():
    lengths = [tokens for batch in mixed_batches() for tokens in batch]
    assert {len(batch) for batch in mixed_batches()} == {32}
    assert 40 < np.median(lengths) < 80
    assert min(lengths) < 16
    assert max(lengths) == LIMIT


def test_the_comparison_tells_how_many_times_faster():
    eager = [{"rows_per_s": 500.0, "device": "GPU X"}, {"rows_per_s": 100.0, "device": "GPU X"}]
    compared = compare(2000.0, eager)
    assert (compared.times_eager, compared.times_padded, compared.eager_device) == (4.0, 20.0, "GPU X")
    assert compare(2000.0, []).times_eager is None


def document(**changes):
    slow = figures(POINT, [10.0] * 10, 1.0, Gpu(0.2, 0.0), Gpu(0.3, 10.0), 1.0)
    fast = figures(Point(Setting(1, 0), 64, 64), [10.0] * 100, 1.0, Gpu(0.2, 0.0), Gpu(0.9, 640.0), 1.0)

    return {
        "gpu": "GPU X",
        "kind": "KIND_GPU",
        "version": "2",
        "parity": asdict(FINE),
        "mixed_traffic": asdict(compare(2000.0, [])),
        "sweep": [asdict(slow), asdict(fast)],
        "problems": [],
        **changes,
    }


def test_the_report_shows_the_best_point_of_each_length():
    lines = report(document()).splitlines()
    [row] = [line.split() for line in lines if line.strip().startswith("64 ")]
    assert row == ["64", "64", "1", "0", "6,400", "10.00", "10.00", "90%", "100.0", "0.00004340"]
    assert "PyTorch eager, padded to 512: not measured" in "\n".join(lines)
    assert "FAILED: it is on fire" in report(document(problems=["it is on fire"]))


def test_no_point_of_a_length_has_no_best():
    assert best([], 16) is None
