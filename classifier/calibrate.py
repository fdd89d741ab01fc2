"""Temperature and bias: the two numbers per version that make its probabilities honest."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# How many prompts speak for temperature 1 and bias 0. A dozen prompts alone would take any temperature that suits them.
PRIOR_ROWS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Applied when scoring as softmax(logits / temperature + bias)."""

    temperature: float
    bias: tuple[float, ...]

    def apply(self, logits: NDArray[np.float32]) -> Floats:
        """Logits [n, k] -> probabilities [n, k]."""
        shifted = np.asarray(logits, np.float64) / self.temperature + np.array(self.bias)
        powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def calibrate(logits: NDArray[np.float32], targets: Floats) -> Calibration:
    """The temperature and bias of least cross-entropy against `targets`, probabilities of shape [n, k].

    Both are held back by PRIOR_ROWS: what few targets say counts little.
    """
    given, wanted = torch.from_numpy(logits).double(), torch.from_numpy(targets)
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_probability = torch.log_softmax(given / log_temperature.exp() + bias, dim=1)
        held_back = log_temperature.square().sum() + bias.square().sum()
        value = -(wanted * log_probability).sum(dim=1).mean() + PRIOR_ROWS / len(wanted) * held_back
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    with torch.no_grad():
        centred = bias - bias.mean()
        return Calibration(float(log_temperature.exp()), tuple(float(value) for value in centred))
