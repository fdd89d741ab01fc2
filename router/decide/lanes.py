"""A lane leads to one version of a classifier. A model whose conversations are shared out has several.

Each has a batcher, a breaker and a deadline of its own: no batch mixes versions, and a version that fails does not
stop another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from router.decide.prompt import Prompt, opening_text
from router.decide.scorer import Guard, Scorer
from router.decide.triton import Classifier


@dataclass(frozen=True, slots=True)
class Lane:
    """A classifier with its guard, batcher and cache; policies that need the same Triton model share it."""

    classifier: Classifier
    guard: Guard
    scorer: Scorer


class Lanes:
    """The lanes of one Triton model, each with the percent of all conversations that it takes; together 100."""

    def __init__(self, lanes: Sequence[tuple[float, Lane]]) -> None:
        self._lanes = lanes

    def __iter__(self) -> Iterator[Lane]:
        return (lane for _, lane in self._lanes)

    def lane_of(self, prompt: Prompt) -> Lane:
        """Return the lane of this conversation: the same one for every turn, in every worker and every router.

        A conversation that a growing share has reached stays where it is while the share grows on.
        """
        if len(self._lanes) > 1:
            place = place_of(opening_text(prompt.messages))
            for percent, lane in self._lanes:
                if place < percent:
                    return lane
                place -= percent
        return self._lanes[-1][1]


def place_of(text: str) -> float:
    """Return where in 0..100 a text falls, evenly spread."""
    digest = blake2b(text.encode(), digest_size=6, person=b"share").digest()
    return int.from_bytes(digest, "big") / 2**48 * 100
