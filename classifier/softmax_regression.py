"""Softmax regression on soft targets by full-batch L-BFGS: convex, so no epochs or learning rates to tune."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

PROGRESS_EVERY = 50


def softmax_regression(
    features: Tensor,
    targets: Tensor,
    row_weight: Tensor,
    penalty: Tensor,
    *,
    iterations: int,
    progress: Callable[[str], None],
) -> Tensor:
    """The weights of least penalised cross-entropy, float32 [p, k].

    `features` float32 [n, p], dense or sparse; `targets` [n, k] rows that sum to 1; `row_weight` [n], of which
    only the proportions count; `penalty` [p], the price of a feature's squared weights.
    """
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
        log_probability = torch.log_softmax(features @ weights, dim=1)
        value = -(share * targets * log_probability).sum() + (price * weights.square()).sum()
        # By hand: autograd does not know that the transpose of a sparse matrix is worth keeping.
        weights.grad = turned @ (share * (log_probability.exp() - targets)) + 2 * price * weights
        evaluations += 1
        if evaluations % PROGRESS_EVERY == 0:
            progress(f"evaluation {evaluations}: loss {float(value):.4f}")
        return float(value)

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    progress(f"fitted, loss {loss():.4f} after {evaluations} evaluations")
    return weights.detach()


def _by_row(matrix: Tensor) -> Tensor:
    """A sparse matrix in the layout that multiplies fast."""
    with warnings.catch_warnings():
        # torch calls the layout beta; all that is asked of it here is a product with a dense matrix.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return matrix.coalesce().to_sparse_csr()
