"""Prompts with scores and, where they are known, graded answers: what is judged and calibrated on.

A row is what `predict` writes, or any router's own JSON line:

    score, or need_strong, gain, p_weak   what a router would rank by; more means: the strong model is worth it
    weak_score, strong_score              how good the two models' answers were, 0..1
    prompt, length                        for the baseline of prompt length
    source                                for a table by source
    task_type, given_task_type            the predicted and the labelled task type
    tokens                                {"prompt", "weak_out", "strong_out"}, for dollars
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifier.bootstrap import Graded
from classifier.data import ROUTING_FILE, Line
from classifier.errors import DataError
from classifier.metrics import Floats
from classifier.predict import described, predict, with_prompt
from classifier.rows import read_rows

LENGTH: Final = "prompt length"
OWN_SCORES: Final = ("need_strong", "gain", "one_minus_p_weak")  # what a policy of the router can compare
CHARACTERS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Of the cheap and of the expensive model; answers whose tokens are not told are taken to be `output_tokens`."""

    weak: Price
    strong: Price
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """n prompts. NaN and "" stand for what a row does not say; `scores` and `p_weak` are known of every row or absent.

    `tokens` is [n, 3]: of the prompt, of the weak answer, of the strong answer.
    """

    scores: Mapping[str, Floats]
    p_weak: Floats | None
    weak: Floats
    strong: Floats
    tokens: Floats
    sources: NDArray[np.str_]
    task_type: NDArray[np.str_]
    given_task_type: NDArray[np.str_]
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.weak)

    @property
    def has_outcome(self) -> NDArray[np.bool_]:
        """Where both answers are graded, [n]."""
        return ~np.isnan(self.weak)

    def rows(self, chosen: NDArray[np.bool_]) -> "Scored":
        """The prompts for which `chosen` is true."""
        return Scored(
            {name: score[chosen] for name, score in self.scores.items()},
            None if self.p_weak is None else self.p_weak[chosen],
            self.weak[chosen],
            self.strong[chosen],
            self.tokens[chosen],
            self.sources[chosen],
            self.task_type[chosen],
            self.given_task_type[chosen],
            [prompt for prompt, kept in zip(self.prompts, chosen.tolist(), strict=True) if kept],
        )

    def graded(self, prices: Prices | None = None) -> Graded:
        """The outcomes, of rows that all have one, with what the answers cost where prices are known."""
        return Graded(self.weak, self.strong, None if prices is None else self.dollars(prices))

    def dollars(self, prices: Prices) -> tuple[Floats, Floats]:
        """What the weak and the strong answer to each prompt cost, both [n]; unknown answers are of usual length."""
        prompt, *answers = self.tokens.T
        weak, strong = (np.where(np.isnan(tokens), prices.output_tokens, tokens) for tokens in answers)
        return (
            (prompt * prices.weak.input + weak * prices.weak.output) / 1e6,
            (prompt * prices.strong.input + strong * prices.strong.output) / 1e6,
        )


def scored_by_version(version: Path, files: Sequence[Path], progress: Callable[[str], None]) -> Scored:
    """Score the prompts of files with a version's own code; a directory stands for its routing_train.jsonl.gz."""
    rows: list[Line] = []
    for path in files:
        rows += read_rows(path / ROUTING_FILE if path.is_dir() else path, _with_prompt, progress)
    predictions = predict(version, [line.text("prompt") for line in rows], progress)
    return scored([Line(line.path, line.place, described(line, predictions, n)) for n, line in enumerate(rows)])


def scored_file(path: Path, progress: Callable[[str], None]) -> Scored:
    """Read the scores of any router."""
    return scored(read_rows(path, _checked, progress))


def scored(rows: Sequence[Line]) -> Scored:
    """Put rows side by side; raises DataError when they do not say the same things."""
    scores = _scores(rows)
    if all("length" in row.fields for row in rows):
        scores = {LENGTH: np.array([row.number("length") for row in rows]), **scores}
    elif all("prompt" in row.fields for row in rows):
        scores = {LENGTH: np.array([float(len(row.text("prompt"))) for row in rows]), **scores}
    knows_p_weak = all(row.fields.get("p_weak") is not None for row in rows)
    return Scored(
        scores=scores,
        p_weak=np.array([row.score("p_weak") for row in rows]) if knows_p_weak else None,
        weak=np.array([_outcome(row, "weak_score") for row in rows]),
        strong=np.array([_outcome(row, "strong_score") for row in rows]),
        tokens=np.array([_tokens(row) for row in rows]),
        sources=np.array([_word(row, "source") for row in rows]),
        task_type=np.array([_word(row, "task_type") for row in rows]),
        given_task_type=np.array([_word(row, "given_task_type") for row in rows]),
        prompts=[_word(row, "prompt") for row in rows],
    )


def _checked(line: Line) -> Line:
    """The line when its numbers can be used; raises DataError."""
    for key in ("score", "need_strong", "gain", "length"):
        if line.fields.get(key) is not None:
            line.number(key)
    if line.fields.get("p_weak") is not None:
        line.score("p_weak")
    return _graded(line)


def _with_prompt(line: Line) -> Line:
    """The line when it can be scored, and judged by if it has an outcome; raises DataError."""
    return _graded(with_prompt(line))


def _graded(line: Line) -> Line:
    """The line when its outcome, if it has one, and its tokens can be used; raises DataError."""
    if (line.fields.get("weak_score") is None) != (line.fields.get("strong_score") is None):
        raise line.wrong("weak_score", "there without `strong_score`, or the reverse", "both or neither")
    for key in ("weak_score", "strong_score"):
        _outcome(line, key)
    _tokens(line)
    return line


def _scores(rows: Sequence[Line]) -> dict[str, Floats]:
    """The scores that every row has: a router's own `score`, or those of our classifier."""
    first = rows[0]
    if "score" in first.fields:
        return {"score": np.array([row.number("score") for row in rows])}
    if first.fields.get("need_strong") is None:
        raise DataError(
            f"{first.path}, line {first.place}: neither `score` nor `need_strong` is there; give a router's score, or "
            "the file that `python -m classifier predict` has written"
        )
    found = {"need_strong": np.array([row.number("need_strong") for row in rows])}
    if all(row.fields.get("gain") is not None and row.fields.get("p_weak") is not None for row in rows):
        found["gain"] = np.array([row.number("gain") for row in rows])
        found["one_minus_p_weak"] = np.array([1 - row.score("p_weak") for row in rows])
    return found


def _outcome(row: Line, key: str) -> float:
    return float("nan") if row.fields.get(key) is None else row.score(key)


def _tokens(row: Line) -> tuple[float, float, float]:
    """Tokens of the prompt (4 characters each when they are not told) and of both answers (NaN)."""
    told: Any = row.fields.get("tokens") or {}
    if not isinstance(told, dict):
        raise row.wrong("tokens", type(told).__name__, 'an object with "prompt", "weak_out" and "strong_out"')
    counts = Line(row.path, row.place, told)
    prompt, weak, strong = (
        float("nan") if told.get(key) is None else counts.number(key) for key in ("prompt", "weak_out", "strong_out")
    )
    return (len(_word(row, "prompt")) / CHARACTERS_PER_TOKEN if np.isnan(prompt) else prompt), weak, strong


def _word(row: Line, key: str) -> str:
    value = row.fields.get(key)
    return value if isinstance(value, str) else ""
