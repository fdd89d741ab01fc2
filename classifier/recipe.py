"""The recipes: every number that a training run may be given. The defaults made the committed weights."""

import math
from dataclasses import dataclass, field
from typing import Any


def _number(default: float, about: str, least: float = 0, most: float = math.inf) -> Any:  # noqa: ANN401 - as typeshed has dataclasses.field
    return field(default=default, metadata={"help": about, "least": least, "most": most})


def _count(default: int, about: str, least: int = 1) -> Any:  # noqa: ANN401 - as dataclasses.field
    return _number(default, about, least)


def _share(default: float, about: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    return _number(default, about, most=1)


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What becomes of the data before anything is fitted."""

    seed: int = _number(0, "deals the near-duplicate groups to the splits, and the batches")
    pair_average: float = _share(0.5, "how far targets move to the mean over pairs of models alike, 0 to 1")
    own_weight: float = _number(3.0, "weight of a prompt of the own set for the task head; templates have 1")


@dataclass(frozen=True, slots=True)
class StaticRecipe:
    """Sizes and regularisation of a static encoder."""

    dimensions: int = _count(64, "principal components kept of MiniLM's vectors")
    bigrams: int = _count(1 << 16, "rows of the hashed bigram table")
    dense_penalty: float = _number(3e-3, "price of the dense expert's squared weights in the outcome head")
    sparse_penalty: float = _number(5e-5, "price of the sparse expert's squared weights in the outcome head")
    label_penalty: float = _number(0.1, "of both prices, in the task and the dimensions head")
    sparse_share: float = _share(0.4, "of the averaged outcome logits, 0 to 1; the dense expert has the rest")
    task_sparse_share: float = _share(0.8, "the same for the task head")
    dimensions_sparse_share: float = _share(0.8, "the same for the dimensions head")
    teacher_share: float = _share(0.5, "with --teacher: how far targets move to the teacher's, 0 to 1")
    unlabelled_weight: float = _number(0.05, "with --teacher: weight of a prompt that has only its word")
    iterations: int = _count(60, "of L-BFGS, at most, per regression")


@dataclass(frozen=True, slots=True)
class FinetuneRecipe:
    """How a transformer is fine-tuned."""

    max_tokens: int = _count(256, "tokens of a prompt that are read when it serves", least=8)
    train_tokens: int = _count(128, "tokens of a prompt that are read while its body is trained", least=8)
    epochs: int = _count(2, "passes over the data, at most")
    batch: int = _count(16, "prompts per step and process")
    learning_rate: float = _number(5e-5, "peak, of the body; linear warm-up, then linearly down to 0")
    head_learning_rate: float = _number(1e-3, "peak, of the heads")
    warmup: float = _share(0.06, "share of the steps")
    weight_decay: float = _number(0.01, "of matrices; norms and biases have none")
    dropout: float = _share(0.1, "share of hidden values dropped while training")
    answers_share: float = _number(1.0, "weight of the loss on every model's answers, beside the outcome's 1")
    task_share: float = _number(0.5, "weight of the task head's loss")
    dimensions_share: float = _number(5.0, "weight of the dimensions head's loss")
    validations: int = _count(4, "per epoch")
    patience: int = _count(2, "validations without a better loss before it stops early")
    blend_share: float = _share(0.3, "of a transformer's sparse expert in the averaged logits, 0 to 1")
    blend_penalty: float = _number(5e-5, "price of a transformer's sparse expert's squared weights")
    blend_iterations: int = _count(60, "of L-BFGS, at most, per head of a transformer's sparse expert")
    head_penalty: float = _number(1e-2, "price of a squared change when heads are fitted on the finished body")
