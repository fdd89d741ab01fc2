"""The recipe: every number that a training run may be given. The defaults made the committed weights."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Recipe:
    """Sizes and regularisation of a static encoder."""

    dimensions: int = field(default=64, metadata={"help": "principal components kept of MiniLM's vectors"})
    bigrams: int = field(default=1 << 16, metadata={"help": "rows of the hashed bigram table"})
    dense_penalty: float = field(default=3e-3, metadata={"help": "price of the dense expert's squared weights"})
    sparse_penalty: float = field(default=5e-5, metadata={"help": "price of the sparse expert's squared weights"})
    sparse_share: float = field(
        default=0.4, metadata={"help": "of the averaged outcome logits, 0 to 1; the dense expert has the rest"}
    )
    task_sparse_share: float = field(default=0.8, metadata={"help": "the same for the task head"})
    pair_average: float = field(
        default=0.5, metadata={"help": "how far targets move to the mean over pairs of models alike, 0 to 1"}
    )
    iterations: int = field(default=60, metadata={"help": "of L-BFGS, at most, per regression"})
    seed: int = field(default=0, metadata={"help": "deals the near-duplicate groups to the splits"})
