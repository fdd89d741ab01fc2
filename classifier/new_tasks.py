"""Another set of task types for a finished encoder: its other heads stay, its task head starts from nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from classifier.checkpoint import Encoder
from classifier.errors import DataError
from classifier.examples import Examples, Labels
from classifier.fit import add_experts
from classifier.heads import fit_heads
from classifier.labels import TASK_TYPES
from classifier.recipe import StaticRecipe
from classifier.starting_point import Start
from classifier.static_encoder import StaticEncoder


def with_task_types(start: Start, task_types: Sequence[str], dropout: float) -> Start:
    """The starting point with a task head for these names; the same one when it has just them already."""
    known = tuple((start.spec or {}).get("task_types") or TASK_TYPES)
    if start.model is None or known == tuple(task_types):
        return start
    return replace(start, model=_widened(start.model, len(task_types), dropout), new_tasks=True)


@torch.no_grad()
def fit_new_tasks(
    model: Encoder, examples: Examples, recipe: StaticRecipe, penalty: float, progress: Callable[[str], None]
) -> None:
    """Fit the new task head, in place, on those examples that have a task.

    A static encoder's is fitted with both experts: where nothing can be forgotten, tokens and pairs may learn too.
    """
    if not examples.task.weight.any():
        raise DataError("the task types are new, and no row has a `task_type`: nothing could be learned")
    if isinstance(model, StaticEncoder):
        add_experts(model, _only_tasks(examples), recipe, progress)
    else:
        fit_heads(model, examples, ("task",), penalty, progress)


@torch.no_grad()
def _widened(model: Encoder, tasks: int, dropout: float) -> Encoder:
    """A copy with `tasks` columns of zeros for the task head, wherever all heads stand side by side."""
    if isinstance(model, StaticEncoder):
        new: Encoder = StaticEncoder(replace(model.shape, tasks=tasks))
    else:
        new = type(model)(replace(model.shape, tasks=tasks), dropout)
    old = model.state_dict()
    for name, tensor in new.state_dict().items():
        if name.startswith("task."):
            tensor.zero_()
        elif name == "bias" or name.endswith("_logits"):
            outcome, _, dimensions = torch.split(old[name], list(model.widths), dim=-1)
            tensor.copy_(torch.cat([outcome, outcome.new_zeros(*outcome.shape[:-1], tasks), dimensions], dim=-1))
        else:
            tensor.copy_(old[name])
    return new.eval()


def _only_tasks(examples: Examples) -> Examples:
    def unlabelled(labels: Labels) -> Labels:
        return Labels(labels.targets, np.zeros_like(labels.weight))

    return replace(examples, outcome=unlabelled(examples.outcome), dimensions=unlabelled(examples.dimensions))
