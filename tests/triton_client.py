"""Short ways to ask a Triton over gRPC and to wait for what it counts."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc_client

from loadtest.local_triton import LocalTriton
from loadtest.scrape import Page

CLASSIFIER = "prompt_classifier"
OUTPUTS = ("OUTCOME", "TASK_TYPE", "DIMENSIONS", "COMPLEXITY", "TOKENS")


@contextmanager
def connect(triton: LocalTriton) -> Iterator[grpc_client.InferenceServerClient]:
    client = grpc_client.InferenceServerClient(triton.grpc_url)
    try:
        yield client
    finally:
        client.close()


def text_input(rows: Sequence[str | bytes], name: str = "TEXT") -> grpc_client.InferInput:
    encoded = [row.encode() if isinstance(row, str) else row for row in rows]
    tensor = grpc_client.InferInput(name, [len(encoded), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(encoded, dtype=object).reshape(-1, 1))
    return tensor


def classify(triton: LocalTriton, rows: Sequence[str | bytes], *, timeout_s: float = 20) -> dict[str, npt.NDArray[Any]]:
    with connect(triton) as client:
        result = client.infer(CLASSIFIER, [text_input(rows)], client_timeout=timeout_s)
        return {name: result.as_numpy(name) for name in OUTPUTS}


def counted(triton: LocalTriton, name: str, model: str = CLASSIFIER) -> float:
    """Return a counter of a model; the name ends in _total, also where Triton itself leaves that away."""
    return Page.get(triton.metrics_url).total(name, model=model)


def wait_until(condition: Callable[[], bool], *, deadline_s: float = 10) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
