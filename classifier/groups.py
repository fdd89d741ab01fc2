"""Near-duplicate groups: prompts that share text must fall on the same side of a split.

Two prompts are near-duplicates when the smaller set of 5-word shingles is at least half contained in the
other one. Shingles that occur in many prompts are boilerplate (an instruction, a template) and say nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS: Final = 5
CONTAINMENT: Final = 0.5
BOILERPLATE_PROMPTS: Final = 20

_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[int]:
    """Hashes of the runs of 5 words in `text`, case and punctuation ignored; a shorter text is one run."""
    words = _WORD.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return frozenset({hash(tuple(words))})
    return frozenset(hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS + 1))


def near_duplicate_groups(texts: Sequence[str], names: Sequence[str | None] = ()) -> NDArray[np.int64]:
    """A group number per text, shape [n]; near-duplicates, also through a chain of others, share one.

    `names`, one per text if given, join texts of one name too; None joins nothing.
    """
    sets = [shingles(text) for text in texts]
    seen_in = Counter(shingle for found in sets for shingle in found)
    telling = [frozenset(shingle for shingle in found if seen_in[shingle] <= BOILERPLATE_PROMPTS) for found in sets]
    groups = _Groups(len(texts))
    first_of_text: dict[str, int] = {}
    first_of_name: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is not None:
            groups.join(row, first_of_name.setdefault(name, row))
    owners: defaultdict[int, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        groups.join(row, first_of_text.setdefault(text, row))
        shared = Counter(other for shingle in telling[row] for other in owners[shingle])
        for other, count in shared.items():
            if count >= CONTAINMENT * min(len(telling[row]), len(telling[other])):
                groups.join(row, other)
        for shingle in telling[row]:
            owners[shingle].append(row)
    return np.array([groups.root(row) for row in range(len(texts))], dtype=np.int64)


class _Groups:
    """Union-find; the lowest row of a group is its number."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, row: int, other: int) -> None:
        low, high = sorted((self.root(row), self.root(other)))
        self._parent[high] = low
