"""The loss that fine-tuning minimises: four heads, each on the rows that teach it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

from classifier.examples import Examples, Labels
from classifier.recipe import FinetuneRecipe


@dataclass(frozen=True, slots=True)
class HeadLogits:
    """What the heads say of n prompts before softmax and sigmoid; float32 [n, k]."""

    outcome: Tensor
    task: Tensor
    dimensions: Tensor
    answers: Tensor


def multi_task_loss(logits: HeadLogits, examples: Examples, recipe: FinetuneRecipe) -> Tensor:
    """Sum over the prompts of what each label costs, by the recipe's shares. A scalar."""
    return (
        _softmax_loss(logits.outcome, examples.outcome)
        + recipe.task_share * _softmax_loss(logits.task, examples.task)
        + recipe.dimensions_share * _sigmoid_loss(logits.dimensions, examples.dimensions)
        + recipe.answers_share * _answers_loss(logits.answers, examples)
    )


def _softmax_loss(logits: Tensor, labels: Labels) -> Tensor:
    targets, weight = _on(logits, labels)
    return -(weight[:, None] * targets * torch.log_softmax(logits, dim=1)).sum()


def _sigmoid_loss(logits: Tensor, labels: Labels) -> Tensor:
    """Each column is a chance of its own; a row costs the mean of its columns."""
    targets, weight = _on(logits, labels)
    return (weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)).sum()


def _answers_loss(logits: Tensor, examples: Examples) -> Tensor:
    """Was each model's answer good? A row costs the mean over the models that answered it."""
    scores = torch.from_numpy(examples.answers).to(logits.device)
    if scores.shape[1] == 0:
        return logits.sum() * 0
    known = ~torch.isnan(scores)
    cost = F.binary_cross_entropy_with_logits(logits, scores.nan_to_num(), reduction="none")
    return ((cost * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)).sum()


def _on(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(labels.targets).to(logits.device), torch.from_numpy(labels.weight).to(logits.device)
