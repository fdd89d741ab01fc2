"""Distillation: a static encoder learns what a transformer expects, beside the labels that were seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier import checkpoint
from classifier.calibrate import Calibration
from classifier.examples import Examples, Labels
from classifier.inference import outputs
from classifier.recipe import StaticRecipe


def distilled(examples: Examples, teacher: Path, recipe: StaticRecipe, progress: Callable[[str], None]) -> Examples:
    """The examples with the targets of all heads moved to the teacher's by `recipe.teacher_share`.

    A prompt without a label gets the teacher's alone, at `recipe.unlabelled_weight`. The teacher must read the same
    tokens, and must not have seen the rows that the pupil is judged on.
    """
    model, spec = checkpoint.load(teacher)
    progress(f"asking {spec['name']} about {len(examples):,} prompts")
    said = outputs(model, examples.cut(spec["max_tokens"]).ids)
    calibration = Calibration(spec["calibration"]["temperature"], tuple(spec["calibration"]["bias"]))
    plain = Calibration(1.0, (0.0,) * said.task.shape[1])
    return replace(
        examples,
        outcome=_taught(examples.outcome, calibration.apply(said.outcome), recipe),
        task=_taught(examples.task, plain.apply(said.task), recipe),
        dimensions=_taught(examples.dimensions, said.dimensions.astype(np.float64), recipe),
    )


def _taught(labels: Labels, expected: NDArray[np.float64], recipe: StaticRecipe) -> Labels:
    seen = labels.weight > 0
    share = np.where(seen, recipe.teacher_share, 1.0)[:, None]
    targets = (1 - share) * labels.targets + share * expected
    weight = np.where(seen, labels.weight, recipe.unlabelled_weight)
    return Labels(targets.astype(np.float32), weight.astype(np.float32))
