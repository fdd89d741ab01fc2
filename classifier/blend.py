"""Average a fine-tuned transformer with a sparse expert, which is fitted by itself on the same examples."""

from collections.abc import Callable

import torch
from torch import Tensor

from classifier.examples import Examples
from classifier.features import sparse_features
from classifier.fit import add_sparse_expert, fit_expert
from classifier.recipe import FinetuneRecipe
from classifier.transformer_encoder import TransformerEncoder


@torch.no_grad()
def blend(
    model: TransformerEncoder,
    examples: Examples,
    token_weight: Tensor,
    recipe: FinetuneRecipe,
    progress: Callable[[str], None],
) -> None:
    """Give `model`, in place, a sparse expert that has `recipe.blend_share` of every head's logits.

    `token_weight` is 0 for the tokens that it must not see, [vocabulary].
    """
    weights = recipe.blend_share * fit_expert(
        sparse_features(examples.ids, token_weight, model.shape.bigrams),
        examples,
        (recipe.blend_penalty,) * 3,
        recipe.blend_iterations,
        lambda message: progress(f"sparse expert, {message}"),
    )
    constants = torch.split(add_sparse_expert(model.sparse, weights), list(model.widths))
    model.visible.copy_(token_weight > 0)
    for head, constant in zip(model.heads(), constants, strict=True):
        head.weight.mul_(1 - recipe.blend_share)
        head.bias.mul_(1 - recipe.blend_share).add_(constant)
