"""A running Triton as the check sees it: reload with a setting, send rows, read metrics."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc_client

from loadtest.bench_classifier import VOCABULARY, to_input
from loadtest.gpu_check.figures import Gpu, Measured, Point, Setting, figures, with_setting
from loadtest.scrape import Page

MODEL = "prompt_classifier"
LOAD_TIMEOUT_S = 1800.0  # TensorRT builds its engines at the first load
CALL_TIMEOUT_S = 60.0
WARM_UP_CALLS = 3
DISTINCT = 8  # batches that take turns
WORDS = VOCABULARY.split()[:40]  # each of them is one token


@dataclass(frozen=True, slots=True)
class Address:
    """Where Triton is; the key is what its model control asks for, if it does."""

    grpc: str
    metrics: str
    admin_key: str | None = None


class Served:
    """One Triton. A context manager that restores the model's own configuration at the end."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = grpc_client.InferenceServerClient(address.grpc)
        self._headers = {"admin-key": address.admin_key} if address.admin_key else None
        self.config: dict[str, Any] = self._client.get_model_config(MODEL, as_json=True)["config"]
        self._changed = False

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._changed:
                # A load without a config keeps the last override where no file has changed since.
                self._load(json.dumps(self.config))
        finally:
            self._client.close()

    @property
    def kind(self) -> str:
        """KIND_GPU or KIND_CPU."""
        return str(self.config["instance_group"][0]["kind"])

    @property
    def version(self) -> str:
        """The version that answers."""
        return str(self._client.get_model_metadata(MODEL, as_json=True)["versions"][-1])

    def apply(self, setting: Setting) -> None:
        """Reload the model with this setting; needs Triton's explicit model control."""
        self._changed = True
        self._load(with_setting(self.config, setting))

    def nodes(self) -> dict[str, float]:
        """Return how many nodes of the graph each ONNX Runtime provider runs."""
        return Page.get(self._address.metrics).by_label("prompt_classifier_nodes", "provider")

    def gpu(self) -> Gpu:
        """Read the GPU's state."""
        page = Page.get(self._address.metrics)
        utilisation = page.by_label("nv_gpu_utilization", "gpu_uuid")
        energy = page.by_label("nv_energy_consumption_total", "gpu_uuid")
        return Gpu(
            utilisation=round(sum(utilisation.values()) / len(utilisation), 3) if utilisation else None,
            energy_j=sum(energy.values()) if energy else None,
        )

    def outcome(self, prompts: Sequence[str]) -> npt.NDArray[Any]:
        """Score prompts, 32 in a call: outcome probabilities [n, 4]."""
        parts = [prompts[start : start + 32] for start in range(0, len(prompts), 32)]
        return np.concatenate([self._call(to_input(part)).as_numpy("OUTCOME") for part in parts])

    def measure(self, point: Point, seconds: float, dollars_per_hour: float) -> Measured:
        """Keep the point's requests in flight for so many seconds."""
        batches = [to_input(rows_of(point.tokens, point.batch, seed)) for seed in range(DISTINCT)]
        for batch in batches[:WARM_UP_CALLS]:
            self._call(batch)
        numbers = itertools.count()
        before, started = self.gpu(), time.perf_counter()

        def work() -> list[float]:
            latencies = []
            while (called := time.perf_counter()) < started + seconds:
                self._call(batches[next(numbers) % DISTINCT])
                latencies.append((time.perf_counter() - called) * 1e3)
            return latencies

        with ThreadPoolExecutor(point.in_flight) as pool:
            workers = [pool.submit(work) for _ in range(point.in_flight)]
            latencies = [latency for worker in workers for latency in worker.result()]
        elapsed = time.perf_counter() - started
        return figures(point, latencies, elapsed, before, self.gpu(), dollars_per_hour)

    def rate_of(self, batches: Sequence[Sequence[int]], seconds: float) -> float:
        """Send batches of rows of these lengths, two in flight; return rows per second."""
        inputs = [to_input([rows_of(tokens, 1, seed)[0] for tokens in batch]) for seed, batch in enumerate(batches)]
        for tensor in inputs[:WARM_UP_CALLS]:
            self._call(tensor)
        numbers = itertools.count()
        started = time.perf_counter()

        def work() -> int:
            rows = 0
            while time.perf_counter() < started + seconds:
                number = next(numbers) % len(inputs)
                self._call(inputs[number])
                rows += len(batches[number])
            return rows

        with ThreadPoolExecutor(2) as pool:
            rows = sum(worker.result() for worker in [pool.submit(work) for _ in range(2)])
        return round(rows / (time.perf_counter() - started), 1)

    def _load(self, config: str) -> None:
        self._client.load_model(MODEL, headers=self._headers, config=config, client_timeout=LOAD_TIMEOUT_S)

    def _call(self, tensor: grpc_client.InferInput) -> grpc_client.InferResult:
        return self._client.infer(MODEL, [tensor], client_timeout=CALL_TIMEOUT_S)


def rows_of(tokens: int, rows: int, seed: int) -> list[str]:
    """Return distinct prompts of so many tokens, [CLS] and [SEP] among them."""
    words = np.random.default_rng(seed * 1009 + tokens).choice(WORDS, size=(rows, max(1, tokens - 2)))
    return [" ".join(row) for row in words]
