"""Judge routing scores beside the baselines that they must beat, as one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifier.data import RoutingRow, json_lines
from classifier.errors import DataError
from classifier.metrics import Floats, Report, curve, need_strong, report
from classifier.predict import predict

HEADINGS = ("router", "APGR [95% CI]", "CPT50", "CPT80", "strong for 95%", "AUC", "ECE", "quality at half")


@dataclass(frozen=True, slots=True)
class Judged:
    """Prompts with graded answers and the scores of one or more routers, all arrays [n]."""

    weak: Floats
    strong: Floats
    scores: Mapping[str, Floats]
    p_weak: Floats | None  # the predicted score of the weak model, for the ECE of the scores made from it

    def rows(self, chosen: Sequence[bool]) -> "Judged":
        """The prompts for which `chosen` is true."""
        mask = np.array(chosen)
        return Judged(
            self.weak[mask],
            self.strong[mask],
            {name: score[mask] for name, score in self.scores.items()},
            None if self.p_weak is None else self.p_weak[mask],
        )


def judge_version(version: Path, rows: Sequence[RoutingRow], progress: Callable[[str], None]) -> Judged:
    """Score the prompts with a version's own code; prompt length in tokens comes with them."""
    outcome, tokens = predict(version, [row.prompt for row in rows], progress)
    both, only_strong, only_weak, _ = outcome.T
    return Judged(
        weak=np.array([row.weak_score for row in rows]),
        strong=np.array([row.strong_score for row in rows]),
        scores={
            "prompt length": tokens,
            "model, need_strong": need_strong(outcome),
            "model, gain": only_strong - only_weak,
            "model, 1 - p_weak": 1 - both - only_weak,
        },
        p_weak=both + only_weak,
    )


def judge_file(path: Path) -> Judged:
    """Read `score, weak_score, strong_score` per line, and `prompt` or `length` for the baseline if given."""
    lines = list(json_lines(path))
    if not lines:
        raise DataError(f"{path} has no rows")
    scores = {"score": np.array([line.number("score") for line in lines])}
    if all("length" in line.fields for line in lines):
        scores = {"prompt length": np.array([line.number("length") for line in lines]), **scores}
    elif all("prompt" in line.fields for line in lines):
        lengths = np.array([float(len(line.text("prompt"))) for line in lines])
        scores = {"prompt length": lengths, **scores}
    return Judged(
        weak=np.array([line.score("weak_score") for line in lines]),
        strong=np.array([line.score("strong_score") for line in lines]),
        scores=scores,
        p_weak=None,
    )


def table(judged: Judged, *, rounds: int = 500, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """The table as text, and the same figures as JSON-ready numbers."""
    random = np.random.default_rng(seed).random(len(judged.weak))
    reports: dict[str, Report] = {}
    lines = [HEADINGS, _fixed("always cheap", judged.weak), _fixed("always strong", judged.strong)]
    for name, score in {"random": random, **judged.scores}.items():
        p_weak = judged.p_weak if name.startswith("model") else None
        reports[name] = report(score, judged.weak, judged.strong, p_weak=p_weak, rounds=rounds)
        lines.append(_line(name, reports[name], _quality_at_half(score, judged)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    return text, {name: _without_nan(asdict(figures)) for name, figures in reports.items()}


def _without_nan(figures: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is undefined is null."""
    return {
        key: _without_nan(value) if isinstance(value, dict) else None if np.isnan(value) else value
        for key, value in figures.items()
    }


def _quality_at_half(score: Floats, judged: Judged) -> float:
    routed = curve(score, judged.weak, judged.strong)
    return float(np.interp(0.5, routed.strong_share, routed.quality))


def _fixed(name: str, quality: Floats) -> tuple[str, ...]:
    return (name, *["-"] * (len(HEADINGS) - 2), f"{quality.mean():.3f}")


def _line(name: str, figures: Report, quality: float) -> tuple[str, ...]:
    interval = figures.apgr
    return (
        name,
        f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
        _share(figures.cpt50),
        _share(figures.cpt80),
        _share(figures.strong_for_95),
        _figure(figures.auc),
        _figure(figures.ece),
        _figure(quality),
    )


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"


def _figure(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
