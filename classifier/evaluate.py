"""Judge routing scores beside the baselines that they must beat: one document of plain numbers, and a table of it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from classifier.bootstrap import BINS, Graded, as_numbers, figures, spent_along
from classifier.errors import DataError
from classifier.metrics import Floats, curve
from classifier.scored import LENGTH, OWN_SCORES, Prices, Scored

POINTS: Final = 101  # of a curve in the document
HEADINGS: Final = ("router", "APGR [95% CI]", "CPT50", "CPT80", "strong for 95%", "AUC", "ECE", "quality at half")


def evaluate(scored: Scored, *, prices: Prices | None = None, rounds: int = 500, seed: int = 0) -> dict[str, Any]:
    """All figures as JSON-ready numbers; raises DataError when there is nothing to judge by.

    Routing is judged on the rows that have an outcome, the task type on those with a label. The cost of dollars is
    told when prices are given.
    """
    judged, labelled = scored.rows(scored.has_outcome), scored.rows(scored.given_task_type != "")
    if not len(judged) and not len(labelled):
        raise DataError("no row has `weak_score` and `strong_score`, or a labelled task type: nothing to judge by")
    return {
        "rows": len(scored),
        "routing": _routing(judged, prices, rounds, seed) if len(judged) else None,
        "task": _task(labelled, rounds, seed) if len(labelled) else None,
    }


def table(routing: Mapping[str, Any]) -> str:
    """The routing figures as aligned text."""
    blanks = ["-"] * (len(HEADINGS) - 2)
    lines: list[tuple[str, ...]] = [HEADINGS]
    lines += [
        (name.replace("_", " "), *blanks, f"{routing[name]['quality']:.3f}")
        for name in ("always_cheap", "always_strong")
    ]
    lines += [_line(name, figures) for name, figures in routing["routers"].items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _routing(judged: Scored, prices: Prices | None, rounds: int, seed: int) -> dict[str, Any]:
    graded = judged.graded(prices)
    routers = {"random": np.random.default_rng(seed).random(len(judged)), **judged.scores}
    sources = np.unique(judged.sources).tolist()
    return {
        "rows": len(judged),
        "always_cheap": _always(graded.weak, None if graded.dollars is None else graded.dollars[0]),
        "always_strong": _always(graded.strong, None if graded.dollars is None else graded.dollars[1]),
        "routers": {name: _router(name, score, graded, judged, rounds, seed) for name, score in routers.items()},
        "curves": {name: _curve(score, graded) for name, score in routers.items()},
        "reliability": None if judged.p_weak is None else _reliability(judged.p_weak, graded.weak),
        "sources": {source: _source(judged.rows(judged.sources == source), rounds, seed) for source in sources},
    }


def _router(name: str, score: Floats, graded: Graded, judged: Scored, rounds: int, seed: int) -> dict[str, Any]:
    p_weak = judged.p_weak if name in OWN_SCORES else None
    found = as_numbers(figures(score, graded, p_weak=p_weak, rounds=rounds, seed=seed))
    routed = curve(score, graded.weak, graded.strong)
    return {**found, "quality_at_half": round(float(np.interp(0.5, routed.strong_share, routed.quality)), 6)}


def _always(quality: Floats, dollars: Floats | None) -> dict[str, float]:
    found = {"quality": round(float(quality.mean()), 6)}
    return found if dollars is None else {**found, "dollars_per_1k": round(float(dollars.mean()) * 1000, 6)}


def _curve(score: Floats, graded: Graded) -> dict[str, list[float]]:
    routed = curve(score, graded.weak, graded.strong)
    shares = np.linspace(0, 1, POINTS)
    along = {"strong_share": shares, "quality": np.interp(shares, routed.strong_share, routed.quality)}
    if graded.dollars is not None:
        along["dollars_per_1k"] = np.interp(shares, routed.strong_share, spent_along(score, graded.dollars))
    return {name: values.round(6).tolist() for name, values in along.items()}


def _reliability(p_weak: Floats, weak: Floats) -> list[dict[str, float]]:
    """Predicted and observed score of the weak model, in bins of equal width that hold anything."""
    place = np.clip((p_weak * BINS).astype(int), 0, BINS - 1)
    return [
        {
            "rows": int((place == number).sum()),
            "predicted": round(float(p_weak[place == number].mean()), 6),
            "observed": round(float(weak[place == number].mean()), 6),
        }
        for number in np.unique(place).tolist()
    ]


def _source(part: Scored, rounds: int, seed: int) -> dict[str, Any]:
    names = [name for name in part.scores if name in (LENGTH, "score", "need_strong")]
    return {
        "rows": len(part),
        "always_cheap": round(float(part.weak.mean()), 6),
        "always_strong": round(float(part.strong.mean()), 6),
        "routers": {name: _router(name, part.scores[name], part.graded(), part, rounds, seed) for name in names},
    }


def _task(labelled: Scored, rounds: int, seed: int) -> dict[str, Any]:
    """Accuracy with its interval, what always saying the most frequent label reaches, and who is taken for whom."""
    right = (labelled.task_type == labelled.given_task_type).astype(float)
    rng = np.random.default_rng(seed)
    sampled = [right[rng.integers(0, len(right), len(right))].mean() for _ in range(rounds)]
    low, high = np.percentile(sampled, [2.5, 97.5]) if sampled else (np.nan, np.nan)
    confusion: dict[str, dict[str, int]] = {}
    pairs = Counter(zip(labelled.given_task_type.tolist(), labelled.task_type.tolist(), strict=True))
    for (given, said), count in sorted(pairs.items()):
        confusion.setdefault(given, {})[said] = count
    return {
        "rows": len(labelled),
        "accuracy": {
            "value": round(float(right.mean()), 6),
            "low": round(float(low), 6),
            "high": round(float(high), 6),
        },
        "majority": round(max(sum(row.values()) for row in confusion.values()) / len(labelled), 6),
        "confusion": confusion,
    }


def _line(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    apgr = found["apgr"]
    return (
        name,
        "-" if apgr["value"] is None else f"{apgr['value']:.3f} [{apgr['low']:.3f}, {apgr['high']:.3f}]",
        *(_shown(found.get(key), "{:.1%}") for key in ("cpt50", "cpt80", "strong_for_95")),
        *(_shown(found.get(key), "{:.3f}") for key in ("auc", "ece")),
        f"{found['quality_at_half']:.3f}",
    )


def _shown(interval: Mapping[str, float | None] | None, form: str) -> str:
    return "-" if interval is None or interval["value"] is None else form.format(interval["value"])
