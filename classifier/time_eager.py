"""How fast the transformer is in plain PyTorch, eager: what the served graph is compared with.

Weights do not change the time, so MiniLM's own do, under random heads. fp16 on a GPU, fp32 on a CPU.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from classifier import minilm
from classifier.transformer_encoder import TransformerEncoder

WARM_UP = 3


def time_eager(batches: Sequence[Sequence[int]], *, pad_to: int | None, seconds: float) -> dict[str, Any]:
    """Run batches of rows, given by their lengths in tokens, for so many seconds; at least each once.

    Rows are padded to the longest of their batch, or to `pad_to`. Returns device, rows_per_s, p50_ms, p99_ms.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = minilm.fresh_encoder().eval().to(device, torch.float16 if device.type == "cuda" else torch.float32)
    inputs = [_padded(lengths, pad_to, encoder.shape.vocabulary) for lengths in batches]
    for ids, mask in inputs[:WARM_UP]:
        _run(encoder, ids, mask, device)
    latencies: list[float] = []
    rows = 0
    started = time.perf_counter()
    while len(latencies) < len(inputs) or time.perf_counter() - started < seconds:
        ids, mask = inputs[len(latencies) % len(inputs)]
        before = time.perf_counter()
        _run(encoder, ids, mask, device)
        latencies.append((time.perf_counter() - before) * 1e3)
        rows += len(ids)
    p50, p99 = torch.tensor(latencies).quantile(torch.tensor([0.5, 0.99])).tolist()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "rows_per_s": round(rows / (time.perf_counter() - started), 1),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
    }


@torch.inference_mode()
def _run(encoder: TransformerEncoder, ids: Tensor, mask: Tensor, device: torch.device) -> None:
    """From ids on the host to numbers on the host, as a server has to."""
    for output in encoder(ids.to(device), mask.to(device)):
        output.cpu()


def _padded(lengths: Sequence[int], pad_to: int | None, vocabulary: int) -> tuple[Tensor, Tensor]:
    width = pad_to or max(lengths)
    ids = torch.randint(vocabulary, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask
