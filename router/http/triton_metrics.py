"""What Triton says of itself on its metrics port, for the dashboard. Unreachable is said, never guessed."""

from __future__ import annotations

import asyncio
import http.client
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from router.http.samples import Samples

_FRESH_S = 1.0
_TIMEOUT_S = 1.0
_MAX_BYTES = 4_000_000

_GPU_FIGURES = {
    "utilization": "nv_gpu_utilization",
    "memory_used_bytes": "nv_gpu_memory_used_bytes",
    "memory_total_bytes": "nv_gpu_memory_total_bytes",
    "power_watts": "nv_gpu_power_usage",
    "power_limit_watts": "nv_gpu_power_limit",
}


class TritonMetrics:
    """The state of `model` by the metrics at `url`, asked at most once a second however many look."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._asked = -_FRESH_S
        self._state = self._unreachable("not asked yet")

    async def state(self) -> dict[str, Any]:
        """Return `described` and `reachable` true, or `reachable` false and `why`."""
        if monotonic() - self._asked >= _FRESH_S:
            self._asked = monotonic()
            self._state = await asyncio.to_thread(self._look)
        return self._state

    def _look(self) -> dict[str, Any]:
        try:
            samples = Samples.parse(_fetch(self._url))
        except TimeoutError:
            return self._unreachable(f"no answer within {_TIMEOUT_S:g} s")
        except OSError as error:
            return self._unreachable((error.strerror or type(error).__name__).lower())
        except (http.client.HTTPException, ValueError):
            return self._unreachable("what answers there is not Triton's metrics")
        return {"url": self._url, "reachable": True, **described(samples, self._model)}

    def _unreachable(self, why: str) -> dict[str, Any]:
        return {"url": self._url, "reachable": False, "why": why}


def _fetch(url: str) -> str:
    """GET over a plain connection: no proxy, no redirect."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}")
        return response.read(_MAX_BYTES).decode()
    finally:
        connection.close()


def described(samples: Samples, model: str) -> dict[str, Any]:
    """Return the model's counters since Triton started, what is pending now, and every GPU that Triton sees.

    `served` is false when the page does not know the model. Durations are microseconds, summed.
    """

    def counter(name: str) -> float:
        return samples.total(f"{name}_total", model=model)

    return {
        "model": model,
        "served": model in samples.by("model", "nv_inference_count_total"),
        "rows": counter("nv_inference_count"),
        "executions": counter("nv_inference_exec_count"),
        "requests": counter("nv_inference_request_success"),
        "failures": samples.by("reason", "nv_inference_request_failure_total", model=model),
        "request_us": counter("nv_inference_request_duration_us"),
        "queue_us": counter("nv_inference_queue_duration_us"),
        "compute_us": counter("nv_inference_compute_infer_duration_us"),
        "pending": samples.total("nv_inference_pending_request_count", model=model),
        "tokens": counter("prompt_classifier_tokens"),
        "padded_tokens": counter("prompt_classifier_padded_tokens"),
        "gpus": [_gpu(samples, gpu) for gpu in samples.by("gpu_uuid", "nv_gpu_memory_total_bytes")],
    }


def _gpu(samples: Samples, uuid: str) -> dict[str, Any]:
    figures = {
        figure: samples.total(name, gpu_uuid=uuid) if uuid in samples.by("gpu_uuid", name) else None
        for figure, name in _GPU_FIGURES.items()
    }
    return {"uuid": uuid, **figures}
