"""Scores with memory and patience: a cache in front of a breaker in front of a micro-batcher, under a deadline."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import cast

from router.breaker import Breaker
from router.decide.batching import MicroBatcher
from router.decide.classification import Classification, Version
from router.errors import ClassifierError


class ClassificationCache:
    """The last `entries` classifications by text and version; what an old version said dies out unused.

    Keys are digests, so that a long prompt takes no more room than a short one and no prompt stays in memory.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._newest = Version("")
        self._by_text: OrderedDict[bytes, Classification] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_text)

    def get(self, text: str, version: Version | None = None) -> Classification | None:
        """Return what a version, or else the one seen last, said of exactly this text."""
        if not self._by_text:
            return None
        key = _digest(text, version or self._newest)
        found = self._by_text.get(key)
        if found is not None:
            self._by_text.move_to_end(key)
        return found

    def saw(self, version: Version) -> None:
        """Learn which version answers who asks for none in particular."""
        self._newest = version

    def put(self, text: str, classification: Classification) -> None:
        """Remember a classification, forgetting the least recently used one when full."""
        if self._entries == 0:
            return
        key = _digest(text, classification.version)
        self._by_text[key] = classification
        self._by_text.move_to_end(key)
        if len(self._by_text) > self._entries:
            self._by_text.popitem(last=False)


def _digest(text: str, version: Version) -> bytes:
    return blake2b(text.encode(), digest_size=16, key=version.encode()).digest()


# What says that the classifier is in trouble, and not a single prompt or our own queue.
_TROUBLE = frozenset(["unavailable", "deadline", "not_found", "unhealthy"])

Classify = Callable[[Sequence[str]], Awaitable[Sequence[Classification | ClassifierError]]]


class Guard:
    """Stops asking a classifier that keeps failing, so that callers fall back at once and not at the deadline."""

    def __init__(self, classify: Classify, breaker: Breaker) -> None:
        self._classify = classify
        self._breaker = breaker
        self._reason = "unavailable"

    def check(self) -> None:
        """Raise ClassifierError with the last failure's reason while the breaker lets nobody through."""
        if not self._breaker.allows():
            raise ClassifierError(self._reason, "The classifier has failed repeatedly; it is tried again shortly.")

    async def classify(self, texts: Sequence[str]) -> Sequence[Classification | ClassifierError]:
        """Classify, and tell the breaker how that went."""
        try:
            results = await self._classify(texts)
        except ClassifierError as error:
            self._learn(error)
            raise
        self._learn(*results)
        return results

    def _learn(self, *results: Classification | ClassifierError) -> None:
        troubles = [r.reason for r in results if isinstance(r, ClassifierError) and r.reason in _TROUBLE]
        if len(troubles) == len(results):
            self._reason = troubles[-1]
            self._breaker.failed()
        elif any(isinstance(result, Classification) for result in results):
            self._breaker.succeeded()


class Scorer:
    """Classifies texts: what is known from the cache, the rest by the batcher under a deadline.

    `version` is the one that the batcher asks, None for whichever Triton takes for the newest.
    """

    def __init__(
        self,
        batcher: MicroBatcher[Classification],
        cache: ClassificationCache,
        guard: Guard,
        deadline_s: float,
        version: Version | None = None,
    ) -> None:
        self.batcher = batcher
        self._cache = cache
        self._guard = guard
        self._deadline_s = deadline_s
        self._version = version

    def saw(self, version: Version) -> None:
        """Learn which version is served now, also while every request is answered from the cache."""
        if self._version is None:
            self._cache.saw(version)

    async def score(self, texts: Sequence[str]) -> tuple[list[Classification], int]:
        """Return one classification per text, all of one version, and how many of them were known.

        Raises ClassifierError with the reason when one of them has none in time.
        """
        known = [self._cache.get(text, self._version) for text in texts]
        hits = len(texts) - known.count(None)
        if hits == len(texts):
            return cast(list[Classification], known), hits
        self._guard.check()
        by = asyncio.get_running_loop().time() + self._deadline_s
        found = {text: one for text, one in zip(texts, known, strict=True) if one is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found |= await self._classify(missing, by)
        newest = found[missing[-1]].version
        old = [text for text, classification in found.items() if classification.version != newest]
        if old:  # a version was promoted between two turns; their scores do not compare
            found |= await self._classify(old, by)
            hits = 0
        return [found[text] for text in texts], hits

    async def _classify(self, texts: Sequence[str], by: float) -> dict[str, Classification]:
        pending: list[asyncio.Future[Classification]] = []
        # A timer on the futures: `asyncio.timeout`, which ends whatever is awaited, costs five times as much.
        timer = asyncio.get_running_loop().call_at(by, self._end, pending)
        try:
            for text in texts:
                pending.append(self.batcher.submit(text))  # noqa: PERF401 - a full queue must not lose the first
            # For one text, as nearly always, `gather` would only take a turn of the loop more.
            results = [await pending[0]] if len(pending) == 1 else await asyncio.gather(*pending)
        finally:
            timer.cancel()
            for future in pending:  # when one has no score, the others need none any more
                future.cancel()
        scored = dict(zip(texts, results, strict=True))
        for text, classification in scored.items():
            self.saw(classification.version)
            self._cache.put(text, classification)
        return scored

    def _end(self, pending: Sequence[asyncio.Future[Classification]]) -> None:
        for future in pending:
            if not future.done():
                future.set_exception(ClassifierError("deadline", f"No score within {self._deadline_s * 1000:g} ms."))
