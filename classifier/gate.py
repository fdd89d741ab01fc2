"""Whether a candidate may serve: pure comparisons on held-out prompts that neither version was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from classifier.bootstrap import apgr_difference, as_numbers
from classifier.errors import DataError
from classifier.metrics import Interval
from classifier.scored import LENGTH, Scored

SCORE: Final = "need_strong"
HEADS: Final = ("outcomes", "task_types", "dimensions")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a candidate must not serve (empty: it may), and its APGR less that of others."""

    objections: tuple[str, ...]
    differences: Mapping[str, Interval]

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"objections": list(self.objections), "apgr_differences": as_numbers(self.differences)}


def compare(candidate: Scored, serving: Scored, *, margin: float, rounds: int = 500) -> Verdict:
    """Hold a candidate against prompt length and the serving version, scores of the same prompts in the same order.

    It must beat length: the 95% interval of the difference lies above 0. And it must not be worse than the serving
    version: the interval may not reach below -margin. Raises DataError without outcomes.
    """
    judged = candidate.has_outcome
    if not judged.any():
        raise DataError("no row has `weak_score` and `strong_score`: a candidate is judged on held-out outcomes")
    ours, theirs = candidate.rows(judged), serving.rows(judged)
    if not (ours.strong != ours.weak).any():
        raise DataError(
            "both models' answers have equal scores on every row: nothing tells a good router from a bad one"
        )
    graded = ours.graded()
    over_length = apgr_difference(ours.scores[SCORE], ours.scores[LENGTH], graded, rounds=rounds)
    over_serving = apgr_difference(ours.scores[SCORE], theirs.scores[SCORE], graded, rounds=rounds)
    objections = []
    if not over_length.low > 0:
        objections.append(f"it does not beat prompt length for certain: APGR {_shown(over_length)}")
    if not over_serving.low >= -margin:
        objections.append(
            f"it may be worse than the serving version: APGR {_shown(over_serving)}, allowed is {-margin:g} or more "
            "throughout; more held-out prompts narrow the interval"
        )
    return Verdict(tuple(objections), {"prompt length": over_length, "serving": over_serving})


def lost_heads(candidate: Mapping[str, Any], serving: Mapping[str, Any]) -> list[str]:
    """The heads of the serving version's spec that the candidate lacks."""
    return [head for head in HEADS if serving.get(head) is not None and candidate.get(head) is None]


def _shown(difference: Interval) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
