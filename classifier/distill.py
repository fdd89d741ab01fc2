"""Distillation: a static encoder learns the outcomes that a transformer expects, beside those that were seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from classifier import checkpoint
from classifier.calibrate import Calibration
from classifier.examples import Examples, Labels
from classifier.inference import outputs
from classifier.recipe import StaticRecipe


def distilled(examples: Examples, teacher: Path, recipe: StaticRecipe, progress: Callable[[str], None]) -> Examples:
    """The examples with outcome targets moved to the teacher's by `recipe.teacher_share`.

    A prompt without an outcome gets the teacher's alone, at `recipe.unlabelled_weight`. The teacher must read the same
    tokens, and must not have seen the rows that the pupil is judged on.
    """
    model, spec = checkpoint.load(teacher)
    progress(f"asking {spec['name']} for the outcomes of {len(examples):,} prompts")
    cut = [ids[: spec["max_tokens"]] for ids in examples.ids]
    calibration = Calibration(spec["calibration"]["temperature"], tuple(spec["calibration"]["bias"]))
    expected = calibration.apply(outputs(model, cut).outcome)
    seen = examples.outcome.weight > 0
    share = np.where(seen, recipe.teacher_share, 1.0)[:, None]
    targets = (1 - share) * examples.outcome.targets + share * expected
    weight = np.where(seen, examples.outcome.weight, recipe.unlabelled_weight)
    return replace(examples, outcome=Labels(targets.astype(np.float32), weight.astype(np.float32)))
