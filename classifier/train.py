"""Train a static encoder: data -> groups -> splits -> fit -> calibrate -> figures -> checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from classifier import checkpoint, data, minilm, vocabulary
from classifier.calibrate import Calibration, calibrate
from classifier.corpus import MAX_TOKENS, Corpus, Mask, build_corpus, split_by_group
from classifier.features import mean_vectors
from classifier.fit import Progress, fit, logits
from classifier.labels import OUTCOMES, TASK_TYPES
from classifier.metrics import Report, need_strong, report
from classifier.recipe import Recipe
from classifier.static_encoder import StaticEncoder

NAME = "static-minilm"
SOURCE = "all-MiniLM-L6-v2"


def train(
    routing: Sequence[data.RoutingRow],
    tasks: Sequence[data.TaskRow],
    out: Path,
    recipe: Recipe,
    *,
    hold_out_sources: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Write a checkpoint to `out` and return its spec, figures included."""
    tokenizer_file = minilm.model_directory() / "tokenizer.json"
    tokenizer = vocabulary.load_tokenizer(tokenizer_file)
    progress(f"{len(routing):,} outcomes and {len(tasks):,} task types; tokenizing and grouping near-duplicates")
    corpus = build_corpus(routing, tasks, tokenizer, recipe.pair_average)
    vectors, kept = vocabulary.principal_components(
        vocabulary.minilm_vectors(out / vocabulary.CACHE, tokenizer, progress), recipe.dimensions
    )
    progress(f"{recipe.dimensions} principal components keep {kept:.1%} of the variance")
    token_weight = vocabulary.token_weights(tokenizer, corpus.examples.ids)
    # One penalty fits all tables only if the features that it prices are of one size.
    vectors /= mean_vectors(corpus.examples.ids, vectors, token_weight).std()
    trainer = Trainer(corpus, vectors, token_weight, recipe, progress)

    split = split_by_group(corpus.groups, recipe.seed)
    model, calibration = trainer.fit(split.train, split.calibration)
    metrics = {"test_split": trainer.figures(model, calibration, split.test)}
    if hold_out_sources:
        metrics["leave_one_source_out"] = trainer.leave_one_source_out()
    spec = {
        "format": 1,
        "name": NAME,
        "outcomes": list(OUTCOMES),
        "task_types": list(TASK_TYPES),
        "dimensions": None,
        "encoder": {"kind": "static", "source": SOURCE},
        "max_tokens": MAX_TOKENS,
        "calibration": {"temperature": calibration.temperature, "bias": list(calibration.bias)},
        "training_data": {"sha256": corpus.sha256, "rows": len(corpus.examples)},
        "metrics": metrics,
    }
    plain = vocabulary.load_tokenizer(tokenizer_file).to_str(pretty=False)
    checkpoint.save(out, model, spec, plain)
    progress(f"checkpoint written to {out}")
    return spec


class Trainer:
    """One corpus and one recipe; fits and judges as often as wanted."""

    def __init__(
        self,
        corpus: Corpus,
        vectors: torch.Tensor,
        token_weight: torch.Tensor,
        recipe: Recipe,
        progress: Progress,
    ) -> None:
        self.corpus = corpus
        self._vectors = vectors
        self._token_weight = token_weight
        self._recipe = recipe
        self._progress = progress

    def fit(self, train: Mask, calibration: Mask) -> tuple[StaticEncoder, Calibration]:
        """Fit on the rows of `train` and calibrate on those of `calibration` that have an outcome."""
        examples = self.corpus.examples
        chosen = examples.rows(np.flatnonzero(train))
        model = fit(self._vectors, self._token_weight, chosen, self._recipe, self._progress)
        rows = calibration & (examples.outcome.weight > 0)
        outcome, _ = logits(model, examples.rows(np.flatnonzero(rows)).ids)
        return model, calibrate(outcome, self.corpus.outcomes(rows))

    def predict(self, model: StaticEncoder, calibration: Calibration, rows: Mask) -> NDArray[np.float64]:
        """Calibrated outcome probabilities of these rows, [rows, 4]."""
        outcome, _ = logits(model, self.corpus.examples.rows(np.flatnonzero(rows)).ids)
        return calibration.apply(outcome)

    def figures(self, model: StaticEncoder, calibration: Calibration, test: Mask) -> dict[str, Any]:
        """Routing figures of the model and of prompt length, and the task head's accuracy, on `test`."""
        rows = test & self.corpus.routing
        outcome = self.predict(model, calibration, rows)
        return {
            **self._routing(outcome, rows),
            "task": self._task_accuracy(model, test & ~self.corpus.routing),
        }

    def leave_one_source_out(self) -> dict[str, Any]:
        """Each source judged by a model that saw neither it nor near-duplicates of it; all pooled."""
        corpus = self.corpus
        outcome = np.zeros((len(corpus.examples), len(OUTCOMES)))
        per_source = {}
        for source in np.unique(corpus.sources[corpus.routing]):
            held = corpus.sources == source
            self._progress(f"leaving out {source} ({held.sum():,} prompts)")
            rest = ~held & ~np.isin(corpus.groups, corpus.groups[held])
            inner = split_by_group(corpus.groups, self._recipe.seed)
            model, calibration = self.fit(rest & ~inner.calibration, rest & inner.calibration)
            outcome[held] = self.predict(model, calibration, held)
            per_source[str(source)] = _apgr_only(self._routing(outcome[held], held))
        return {**self._routing(outcome[corpus.routing], corpus.routing), "sources": per_source}

    def _routing(self, outcome: NDArray[np.float64], rows: Mask) -> dict[str, Any]:
        weak, strong = self.corpus.weak[rows], self.corpus.strong[rows]
        lengths = np.array([len(row) for row in self.corpus.examples.rows(np.flatnonzero(rows)).ids], float)
        model = report(need_strong(outcome), weak, strong, p_weak=outcome[:, 0] + outcome[:, 2])
        return {
            "rows": int(rows.sum()),
            "need_strong": summary(model),
            "prompt_length": summary(report(lengths, weak, strong)),
        }

    def _task_accuracy(self, model: StaticEncoder, rows: Mask) -> dict[str, Any]:
        chosen = self.corpus.examples.rows(np.flatnonzero(rows))
        _, task = logits(model, chosen.ids)
        wanted = chosen.task.targets.argmax(axis=1)
        return {
            "rows": len(chosen),
            "accuracy": round(float((task.argmax(axis=1) == wanted).mean()), 4),
            "majority": round(float(chosen.task.targets.mean(axis=0).max()), 4),
        }


def _apgr_only(routing: dict[str, Any]) -> dict[str, Any]:
    """What the card tells of one source: rows, and APGR of the model and of prompt length."""
    return {
        "rows": routing["rows"],
        "apgr": routing["need_strong"].get("apgr"),
        "prompt_length_apgr": routing["prompt_length"].get("apgr"),
    }


def summary(figures: Report) -> dict[str, Any]:
    """A report as JSON, four decimals; undefined figures are left out."""
    values = {
        "apgr": figures.apgr.value,
        "apgr_low": figures.apgr.low,
        "apgr_high": figures.apgr.high,
        "cpt50": figures.cpt50,
        "cpt80": figures.cpt80,
        "strong_for_95": figures.strong_for_95,
        "auc": figures.auc,
        "ece": figures.ece,
    }
    return {key: round(value, 4) for key, value in values.items() if not np.isnan(value)}
