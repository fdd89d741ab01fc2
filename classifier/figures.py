"""The figures of a model on held-out rows, as its spec and its card carry them; JSON-ready, four decimals."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifier.calibrate import Calibration
from classifier.corpus import OWN_SET, Corpus, Mask
from classifier.inference import Outputs
from classifier.labels import DIMENSIONS
from classifier.metrics import Report, need_strong, report, spearman

Floats = NDArray[np.float64]

ROUTING_FIGURES: Final = ("rows", "always_cheap", "always_strong", "need_strong", "gain", "prompt_length", "sources")


def head_figures(corpus: Corpus, rows: Mask, said: Outputs, calibration: Calibration) -> dict[str, Any]:
    """What every head reaches on `rows`, of which `said` has the outputs in their order."""
    found: dict[str, Any] = {}
    routing = corpus.routing[rows]
    if routing.any():
        found |= routing_figures(corpus, rows & corpus.routing, calibration.apply(said.outcome[routing]))
    labelled = (corpus.examples.task.weight > 0)[rows]
    own = (corpus.sources == OWN_SET)[rows]
    for name, chosen in (("task", labelled & ~own), ("own_task", labelled & own)):
        if chosen.any():
            found[name] = _task_figures(said.task[chosen], corpus.examples.task.targets[rows][chosen])
    dimensions = (corpus.examples.dimensions.weight > 0)[rows]
    if dimensions.any():
        found["dimensions"] = _dimension_figures(
            said.dimensions[dimensions], corpus.examples.dimensions.targets[rows][dimensions]
        )
    return found


def routing_figures(corpus: Corpus, rows: Mask, outcome: Floats) -> dict[str, Any]:
    """How the calibrated outcome probabilities of `rows`, [rows, 4], route, beside what any router must beat."""
    weak, strong = corpus.weak[rows], corpus.strong[rows]
    lengths = np.array([len(corpus.examples.ids[row]) for row in np.flatnonzero(rows).tolist()], np.float64)
    score, p_weak = need_strong(outcome), outcome[:, 0] + outcome[:, 2]
    sources = corpus.sources[rows]
    return {
        "rows": int(rows.sum()),
        "always_cheap": round(float(weak.mean()), 4),
        "always_strong": round(float(strong.mean()), 4),
        "need_strong": summary(report(score, weak, strong, p_weak=p_weak)),
        "gain": summary(report(outcome[:, 1] - outcome[:, 2], weak, strong)),
        "prompt_length": summary(report(lengths, weak, strong)),
        "sources": {
            str(source): _source_figures(score, lengths, weak, strong, sources == source)
            for source in np.unique(sources)
        },
    }


def summary(figures: Report) -> dict[str, Any]:
    """A report as JSON; undefined figures are left out."""
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


def _source_figures(score: Floats, lengths: Floats, weak: Floats, strong: Floats, rows: Mask) -> dict[str, Any]:
    """What the card tells of one source: rows, and APGR of the model and of prompt length."""
    model, length = (summary(report(by[rows], weak[rows], strong[rows], rounds=1)) for by in (score, lengths))
    return {"rows": int(rows.sum()), "apgr": model.get("apgr"), "prompt_length_apgr": length.get("apgr")}


def _task_figures(logits: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "rows": len(targets),
        "accuracy": round(float((logits.argmax(axis=1) == targets.argmax(axis=1)).mean()), 4),
        "majority": round(float(targets.mean(axis=0).max()), 4),
    }


def _dimension_figures(said: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, Any]:
    """Spearman's rank correlation with the labels; null where all labels are alike."""
    ranks = [spearman(*pair) for pair in zip(said.T.astype(np.float64), targets.T.astype(np.float64), strict=True)]
    return {
        "rows": len(targets),
        "spearman": {
            name: None if np.isnan(rank) else round(rank, 4) for name, rank in zip(DIMENSIONS, ranks, strict=True)
        },
    }
