"""Training: rows -> groups -> splits -> learn -> calibrate -> figures -> checkpoint."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from classifier import checkpoint, vocabulary
from classifier.blend import blend
from classifier.calibrate import Calibration, calibrate
from classifier.checkpoint import Encoder
from classifier.corpus import OWN_SET, Corpus, Mask, build_corpus, check_labels, check_split, split_by_group
from classifier.distill import distilled
from classifier.errors import DataError
from classifier.features import mean_vectors
from classifier.figures import ROUTING_FIGURES, head_figures, routing_figures
from classifier.finetune import finetune
from classifier.fit import fit
from classifier.heads import ALL, Head, fit_heads
from classifier.inference import Model, Outputs, outputs
from classifier.int8 import int8_model
from classifier.labelled import Row
from classifier.labels import DIMENSIONS, OUTCOMES, TASK_TYPES
from classifier.new_tasks import fit_new_tasks, with_task_types
from classifier.own_set import read_own_set
from classifier.recipe import DataRecipe, FinetuneRecipe, StaticRecipe
from classifier.starting_point import Start, starting_point
from classifier.static_encoder import StaticEncoder
from classifier.transformer_encoder import TransformerEncoder

Progress = Callable[[str], None]
Mode = Literal["calibrate", "heads", "finetune"]

# Fewer labelled prompts than these teach a mode less than the mode before it knows.
LEAST_ROWS: Final = {"calibrate": 100, "heads": 250, "finetune": 5_000}
STATIC_MAX_TOKENS: Final = 512
STATE: Final = "unfinished"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, and how."""

    encoder: str
    mode: Mode
    out: Path
    task_types: tuple[str, ...] = TASK_TYPES
    data: DataRecipe = field(default_factory=DataRecipe)
    static: StaticRecipe = field(default_factory=StaticRecipe)
    transformer: FinetuneRecipe = field(default_factory=FinetuneRecipe)
    teacher: Path | None = None  # a checkpoint whose outcomes a static encoder learns from too
    own_set: bool = True  # learn from the project's labelled prompts too, for the task and the dimensions head
    hold_out_sources: bool = False
    command: str = ""  # for the card


def train(rows: Sequence[Row], plan: Plan, progress: Progress) -> dict[str, Any] | None:
    """Write a checkpoint to `plan.out` and return its spec, figures included; None in a process that only helped."""
    started = time.monotonic()
    own = own_rows(plan.task_types) if plan.own_set else []
    if len(rows) + len(own) < LEAST_ROWS[plan.mode]:
        raise DataError(
            f"--mode {plan.mode} needs {LEAST_ROWS[plan.mode]:,} labelled prompts, there are {len(rows) + len(own):,}: "
            "take a mode that needs fewer (calibrate 100, heads 250, finetune 5,000) or add data"
        )
    start = starting_point(plan.encoder, plan.mode, plan.transformer.dropout)
    start = with_task_types(start, plan.task_types, plan.transformer.dropout)
    if start.new_tasks and plan.mode == "calibrate":
        raise DataError("--mode calibrate changes no head, and the task types are new: take --mode heads")
    tokenizer = vocabulary.load_tokenizer(start.tokenizer_file)
    max_tokens = _max_tokens(start, plan)
    progress(f"{len(rows):,} prompts and {len(own):,} of the own set; tokenizing and grouping near-duplicates")
    corpus = build_corpus([*rows, *own], tokenizer, max_tokens, plan.data, plan.task_types)
    check_labels(corpus, plan.task_types)
    plan.out.mkdir(parents=True, exist_ok=True)  # now, not when all is learned
    trainer = Trainer(corpus, start, plan, progress)

    split = split_by_group(corpus.groups, plan.data.seed)
    check_split(split, corpus)
    model = trainer.learn(split.train, split.calibration, plan.out / STATE, plan.teacher)
    if model is None:
        return None
    calibration = trainer.calibrate(model, split.calibration | (split.train if plan.mode == "calibrate" else False))
    metrics = {"test_split": _unchanged_figures(start, plan, corpus) | trainer.figures(model, calibration, split.test)}
    if isinstance(model, TransformerEncoder):
        metrics["test_split_int8"] = trainer.figures(int8_model(model), calibration, split.test)
    if plan.hold_out_sources:
        metrics["leave_one_source_out"] = trainer.leave_one_source_out()
    spec = {
        "format": 1,
        "name": start.name,
        "outcomes": list(OUTCOMES),
        "task_types": list(plan.task_types),
        "dimensions": list(DIMENSIONS) if _knows_dimensions(start, corpus) else None,
        "encoder": {"kind": "static" if isinstance(model, StaticEncoder) else "transformer", "source": start.source},
        "max_tokens": max_tokens,
        "calibration": {"temperature": calibration.temperature, "bias": list(calibration.bias)},
        "training_data": {"sha256": corpus.sha256, "rows": len(corpus.examples)},
        "training": {
            "commands": [*_commands(start), plan.command],
            "mode": plan.mode,
            "seed": plan.data.seed,
            "minutes": round(max(trainer.body_seconds, time.monotonic() - started) / 60, 1),
            "recipe": {**asdict(plan.data), **asdict(plan.static if start.model is None else plan.transformer)},
        },
        "metrics": metrics,
    }
    checkpoint.save(plan.out, model, spec, tokenizer.to_str(pretty=False))
    progress(f"checkpoint written to {plan.out}")
    return spec


def own_rows(task_types: Sequence[str] = TASK_TYPES) -> list[Row]:
    """The project's labelled prompts as training rows; a task that is not among the task types is left out."""
    return [
        Row(
            row.prompt,
            OWN_SET,
            task_type=row.task_type if row.task_type in task_types else None,
            dimensions=row.dimensions,
            group=f"{OWN_SET}/{row.group}",
        )
        for row in read_own_set()
    ]


class Trainer:
    """One corpus and one plan; learns and judges as often as wanted."""

    def __init__(self, corpus: Corpus, start: Start, plan: Plan, progress: Progress) -> None:
        self.corpus = corpus
        self._start = start
        self._plan = plan
        self._progress = progress
        self.body_seconds = 0.0  # of the last fine-tuning, killed starts included

    def learn(self, train: Mask, calibration: Mask, state: Path, teacher: Path | None) -> Encoder | None:
        """A model that has seen the rows of `train`, and for early stopping those of `calibration`.

        `teacher` must not have seen what the model is judged on. `state` keeps an unfinished run. None in a process
        that only helped another one.
        """
        examples = self.corpus.examples
        chosen = examples.rows(np.flatnonzero(train & examples.teaching))
        if self._start.model is None:
            if teacher is not None:
                chosen = distilled(chosen, teacher, self._plan.static, self._progress)
            vectors, token_weight = self._vocabulary()
            return fit(vectors, token_weight, chosen, self._plan.static, self._progress)
        model = copy.deepcopy(self._start.model)
        penalty = self._plan.transformer.head_penalty
        if self._plan.mode == "heads":
            heads: Sequence[Head] = ALL
            if self._start.new_tasks:
                fit_new_tasks(model, chosen, self._plan.static, penalty, self._progress)
                heads = ("outcome", "dimensions")
            fit_heads(model, chosen, heads, penalty, self._progress)
        if self._plan.mode == "finetune":
            if not isinstance(model, TransformerEncoder):
                raise DataError("--mode finetune continues no static encoder: take --encoder static, or --mode heads")
            validation = examples.rows(np.flatnonzero(calibration & examples.teaching))
            recipe, seed = self._plan.transformer, self._plan.data.seed
            seen, checked = chosen.cut(recipe.train_tokens), validation.cut(recipe.train_tokens)
            seconds = finetune(model, seen, checked, recipe, seed=seed, state=state, progress=self._progress)
            if seconds is None:
                return None
            self.body_seconds = seconds
            fit_heads(model, chosen, ("task", "dimensions"), penalty, self._progress)
            blend(model, chosen, self._token_weight(), recipe, self._progress)
        return model.eval()

    def calibrate(self, model: Encoder, rows: Mask) -> Calibration:
        """On those of `rows` that have an outcome; without any, the calibration that the model came with."""
        taught = rows & (self.corpus.examples.outcome.weight > 0)
        if not taught.any():
            old = self._start.spec["calibration"] if self._start.spec is not None else None
            return Calibration(1.0, (0.0,) * 4) if old is None else Calibration(old["temperature"], tuple(old["bias"]))
        return calibrate(self._outputs(model, taught).outcome, self.corpus.outcomes(taught))

    def figures(self, model: Model, calibration: Calibration, rows: Mask) -> dict[str, Any]:
        """What every head reaches on `rows`."""
        return head_figures(self.corpus, rows, self._outputs(model, rows), calibration)

    def leave_one_source_out(self) -> dict[str, Any]:
        """Each source of outcomes judged by a model that saw neither it nor near-duplicates of it; all pooled.

        Without the teacher, who saw them all.
        """
        corpus = self.corpus
        outcome = np.zeros((len(corpus.examples), len(OUTCOMES)))
        for source in np.unique(corpus.sources[corpus.routing]):
            held = corpus.routing & (corpus.sources == source)
            self._progress(f"leaving out {source} ({held.sum():,} prompts)")
            rest = ~held & ~np.isin(corpus.groups, corpus.groups[held])
            inner = split_by_group(corpus.groups, self._plan.data.seed)
            calibration_rows = rest & inner.calibration
            state = self._plan.out / f"{STATE}-without-{source}"
            model = self.learn(rest & ~inner.calibration, calibration_rows, state, None)
            if model is not None:
                calibration = self.calibrate(model, calibration_rows)
                outcome[held] = calibration.apply(self._outputs(model, held).outcome)
        return routing_figures(corpus, corpus.routing, outcome[corpus.routing])

    def _outputs(self, model: Model, rows: Mask) -> Outputs:
        return outputs(model, self.corpus.examples.rows(np.flatnonzero(rows)).ids)

    def _vocabulary(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A static encoder's vector and weight for each token."""
        tokenizer = vocabulary.load_tokenizer(self._start.tokenizer_file)
        vectors, kept = vocabulary.principal_components(
            vocabulary.minilm_vectors(self._plan.out / vocabulary.CACHE, tokenizer, self._progress),
            self._plan.static.dimensions,
        )
        self._progress(f"{self._plan.static.dimensions} principal components keep {kept:.1%} of the variance")
        token_weight = self._token_weight()
        # One penalty fits all tables only if the features that it prices are of one size.
        return vectors / mean_vectors(self.corpus.examples.ids, vectors, token_weight).std(), token_weight

    def _token_weight(self) -> torch.Tensor:
        tokenizer = vocabulary.load_tokenizer(self._start.tokenizer_file)
        return vocabulary.token_weights(tokenizer, self.corpus.examples.ids)


def _max_tokens(start: Start, plan: Plan) -> int:
    if start.spec is not None:
        return int(start.spec["max_tokens"])
    return STATIC_MAX_TOKENS if start.model is None else plan.transformer.max_tokens


def _unchanged_figures(start: Start, plan: Plan, corpus: Corpus) -> dict[str, Any]:
    """What is known of the outcome head from before, if nothing has touched it: body and head are as they were."""
    if start.spec is None or plan.mode == "finetune" or corpus.routing.any():
        return {}
    return {name: value for name, value in start.spec["metrics"]["test_split"].items() if name in ROUTING_FIGURES}


def _commands(start: Start) -> list[str]:
    """How what is continued was made."""
    return list(start.spec.get("training", {}).get("commands", [])) if start.spec is not None else []


def _knows_dimensions(start: Start, corpus: Corpus) -> bool:
    taught = bool((corpus.examples.dimensions.weight > 0).any())
    return taught or (start.spec is not None and start.spec.get("dimensions") is not None)
