"""What to measure and what it means: settings, points, rates, energy and dollars. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Setting:
    """How Triton serves the model."""

    instances: int
    queue_delay_us: int


@dataclass(frozen=True, slots=True)
class Point:
    """What the callers do: requests of `batch` rows of `tokens` tokens each, two in flight for each instance."""

    setting: Setting
    batch: int
    tokens: int

    @property
    def in_flight(self) -> int:
        """Return how many requests keep every instance busy while the next ones queue."""
        return 2 * self.setting.instances


@dataclass(frozen=True, slots=True)
class Sweep:
    """All settings times all batches times all lengths."""

    batches: tuple[int, ...] = (1, 8, 32, 64)
    tokens: tuple[int, ...] = (16, 64, 128, 256, 512)
    instances: tuple[int, ...] = (1, 2)
    queue_delays_us: tuple[int, ...] = (0, 500, 2000)

    def settings(self) -> list[Setting]:
        """Return the settings, each of which costs a reload of the model."""
        return [Setting(*pair) for pair in itertools.product(self.instances, self.queue_delays_us)]

    def points(self, setting: Setting) -> list[Point]:
        """Return what to measure under one setting."""
        return [Point(setting, batch, tokens) for batch, tokens in itertools.product(self.batches, self.tokens)]


@dataclass(frozen=True, slots=True)
class Gpu:
    """What Triton's metrics say of the GPUs, at one moment; None where the machine has none."""

    utilisation: float | None  # 0..1, the mean over the GPUs
    energy_j: float | None  # since Triton's start, all GPUs


@dataclass(frozen=True, slots=True)
class Measured:
    """One point's figures."""

    instances: int
    queue_delay_us: int
    batch: int
    tokens: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    gpu_utilisation: float | None
    joules_per_1k: float | None
    dollars_per_1k: float


@dataclass(frozen=True, slots=True)
class Parity:
    """The served answers beside those of the same version on the CPU, with its weights as they are."""

    prompts: int
    max_difference: float  # of an outcome probability
    same_outcome: float  # share of the prompts, 0..1
    tolerance: float

    @property
    def holds(self) -> bool:
        """Return whether the served numbers may be trusted."""
        return self.max_difference <= self.tolerance


def figures(
    point: Point,
    latencies_ms: Sequence[float],
    seconds: float,
    before: Gpu,
    after: Gpu,
    dollars_per_hour: float,
) -> Measured:
    """Turn what happened within `seconds` into figures."""
    rows = len(latencies_ms) * point.batch
    rate = rows / seconds
    energy = None
    if before.energy_j is not None and after.energy_j is not None:
        energy = round((after.energy_j - before.energy_j) / rows * 1000, 3)
    return Measured(
        instances=point.setting.instances,
        queue_delay_us=point.setting.queue_delay_us,
        batch=point.batch,
        tokens=point.tokens,
        rows_per_s=round(rate, 1),
        p50_ms=round(float(np.percentile(latencies_ms, 50)), 3),
        p99_ms=round(float(np.percentile(latencies_ms, 99)), 3),
        gpu_utilisation=after.utilisation,
        joules_per_1k=energy,
        dollars_per_1k=dollars_per_1k(rate, dollars_per_hour),
    )


def dollars_per_1k(rows_per_s: float, dollars_per_hour: float) -> float:
    """Return what a thousand rows cost on hardware of this hourly price that does nothing else."""
    return round(dollars_per_hour / 3600 / rows_per_s * 1000, 8)


def parity(served: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: float) -> Parity:
    """Compare outcome probabilities [n, 4]."""
    difference = np.abs(served - expected)
    return Parity(
        prompts=len(expected),
        # NaN compares as no difference at all; it is the greatest.
        max_difference=round(float(np.nan_to_num(difference, nan=1.0).max()), 6),
        same_outcome=round(float((served.argmax(axis=1) == expected.argmax(axis=1)).mean()), 4),
        tolerance=tolerance,
    )


def with_setting(config: Mapping[str, Any], setting: Setting) -> str:
    """Return a model config, as Triton's JSON, that serves with this setting: for a load with an override."""
    groups = [{**group, "count": setting.instances} for group in config["instance_group"]]
    batching = {**config.get("dynamic_batching", {}), "max_queue_delay_microseconds": setting.queue_delay_us}
    return json.dumps({**config, "instance_group": groups, "dynamic_batching": batching})


def problems(kind: str, nodes: Mapping[str, float], compared: Parity) -> list[str]:
    """Return why the check fails: the wrong provider, or other numbers than on the CPU. Empty when it holds."""
    found = []
    total = sum(nodes.values())
    if kind == "KIND_GPU" and nodes.get(CPU_PROVIDER, 0) > total / 2:
        found.append(f"the model is KIND_GPU, but {nodes[CPU_PROVIDER]:.0f} of its {total:.0f} nodes run on the CPU")
    if not compared.holds:
        found.append(
            f"an outcome probability differs from the CPU's by {compared.max_difference}, allowed is "
            f"{compared.tolerance}: see docs/gpu.md"
        )
    return found


def best(measured: Sequence[Measured], tokens: int) -> Measured | None:
    """Return the point of this length with the most rows per second."""
    return max((one for one in measured if one.tokens == tokens), key=lambda one: one.rows_per_s, default=None)
