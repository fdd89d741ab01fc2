"""Linear heads on soft targets by full-batch L-BFGS: convex, so no epochs or learning rates to tune."""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

PROGRESS_EVERY = 50

Link = Literal["softmax", "sigmoid"]


def regression(
    features: Tensor,
    targets: Tensor,
    row_weight: Tensor,
    penalty: Tensor,
    *,
    link: Link,
    iterations: int,
    progress: Callable[[str], None],
    offset: Tensor | None = None,
) -> Tensor:
    """The weights of least penalised cross-entropy, float32 [p, k].

    `features` float32 [n, p], dense or sparse; `targets` [n, k] in 0..1, of the softmax rows that sum to 1;
    `row_weight` [n], of which only the proportions count; `penalty` [p], the price of a feature's squared weights;
    `offset` [n, k], logits that another model says already: the weights are then what to add to it.
    """
    said = torch.zeros_like(targets) if offset is None else offset
    weights = torch.zeros(features.shape[1], targets.shape[1], requires_grad=True)
    turned = features.t()
    if features.is_sparse:
        features, turned = _by_row(features), _by_row(turned)
    share = (row_weight / row_weight.sum())[:, None]
    price = penalty[:, None]
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )
    evaluations = 0

    @torch.no_grad()
    def loss() -> float:
        nonlocal evaluations
        logits = features @ weights + said
        value = (share * _cross_entropy(logits, targets, link)).sum() + (price * weights.square()).sum()
        surplus = (torch.softmax(logits, dim=1) if link == "softmax" else torch.sigmoid(logits)) - targets
        # By hand: autograd does not know that the transpose of a sparse matrix is worth keeping.
        weights.grad = turned @ (share * surplus) + 2 * price * weights
        evaluations += 1
        if evaluations % PROGRESS_EVERY == 0:
            progress(f"evaluation {evaluations}: loss {float(value):.4f}")
        return float(value)

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    progress(f"fitted, loss {loss():.4f} after {evaluations} evaluations")
    return weights.detach()


def _cross_entropy(logits: Tensor, targets: Tensor, link: Link) -> Tensor:
    """[n, k]; its gradient is the probability less the target for either link."""
    if link == "softmax":
        return -targets * torch.log_softmax(logits, dim=1)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _by_row(matrix: Tensor) -> Tensor:
    """A sparse matrix in the layout that multiplies fast."""
    with warnings.catch_warnings():
        # torch calls the layout beta; all that is asked of it here is a product with a dense matrix.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return matrix.coalesce().to_sparse_csr()
