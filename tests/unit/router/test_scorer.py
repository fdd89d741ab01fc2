"""Scores with memory: the cache, the deadline, and what happens to rows that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import Breaker
from router.decide.batching import MicroBatcher
from router.decide.classification import Classification, Version
from router.decide.scorer import ClassificationCache, Guard, Scorer
from router.errors import ClassifierError
from tests.unit.router.examples import classification
from tests.unit.router.virtual_time import run


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = ClassificationCache(2)
    cache.saw(Version("1"))
    for text in ("a", "b"):
        cache.put(text, classification())
    assert cache.get("a")
    cache.put("c", classification())
    assert cache.get("b") is None
    assert cache.get("a")
    assert cache.get("c")
    assert len(cache) == 2


def test_another_version_has_its_own_entries_and_none_drives_the_other_out() -> None:
    cache = ClassificationCache(10)
    old, new = classification(version="1"), classification(version="2")
    for one in (old, new, old):
        cache.saw(one.version)
        cache.put("a", one)
        assert cache.get("a") is one
    assert cache.get("a", Version("2")) is new
    assert cache.get("a", Version("3")) is None
    assert len(cache) == 2


def test_a_cache_of_no_entries_remembers_nothing() -> None:
    cache = ClassificationCache(0)
    cache.put("a", classification())
    assert cache.get("a") is None
    assert len(cache) == 0


def test_only_exactly_the_same_text_is_known() -> None:
    cache = ClassificationCache(10)
    cache.saw(Version("1"))
    cache.put("a", classification())
    assert [cache.get(text) for text in ("A", "a ", "\ufeffa", "")] == [None] * 4


@given(st.integers(0, 4), st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef"), st.sampled_from("12"))))
def test_the_cache_is_an_lru_of_texts_and_versions(entries: int, steps: list[tuple[bool, str, str]]) -> None:
    cache = ClassificationCache(entries)
    expected: OrderedDict[tuple[str, str], Classification] = OrderedDict()
    for is_put, text, version in steps:
        known = (text, version)
        if is_put:
            expected[known] = classification(version=version)
            expected.move_to_end(known)
            cache.put(text, expected[known])
            while len(expected) > entries:
                expected.popitem(last=False)
        else:
            assert cache.get(text, Version(version)) is expected.get(known)
            if known in expected:
                expected.move_to_end(known)
        assert len(cache) == len(expected) <= entries


class FakeClassifier:
    """Takes `takes_s`; says of a text what `says` has, else a classification of its own."""

    def __init__(self, takes_s: float = 0.01, says: dict[str, Classification | ClassifierError] | None = None) -> None:
        self.takes_s = takes_s
        self.says = says or {}
        self.calls: list[list[str]] = []

    async def classify(self, texts: Sequence[str]) -> list[Classification | ClassifierError]:
        self.calls.append(list(texts))
        await asyncio.sleep(self.takes_s)
        return [self.says.setdefault(text, classification()) for text in texts]


def scorer(
    fake: FakeClassifier, *, deadline_s: float = 1.0, waiting: int = 100, size: int = 8, in_flight: int = 4
) -> Scorer:
    guard = Guard(fake.classify, Breaker(failures_to_open=5, cooldown_s=1.0, now=asyncio.get_running_loop().time))
    batcher: MicroBatcher[Classification] = MicroBatcher(
        guard.classify,
        max_batch_size=size,
        max_queue_delay_s=0.002,
        max_waiting=waiting,
        max_in_flight=in_flight,
    )
    return Scorer(batcher, ClassificationCache(100), guard, deadline_s)


def test_each_text_is_scored_once_and_its_score_kept() -> None:
    async def main() -> None:
        fake = FakeClassifier()
        scores = scorer(fake)
        first, hits = await scores.score(["a", "b", "a"])
        assert (fake.calls, hits) == ([["a", "b"]], 0)
        assert [one is other for one, other in zip(first, map(fake.says.get, "aba"), strict=True)] == [True] * 3
        assert await scores.score(["c", "b"]) == ([fake.says["c"], fake.says["b"]], 1)
        assert fake.calls == [["a", "b"], ["c"]]
        assert await scores.score(["a", "b", "a"]) == ([fake.says["a"], fake.says["b"], fake.says["a"]], 3)
        assert fake.calls == [["a", "b"], ["c"]]

    run(main())


def test_the_deadline_ends_the_wait_and_forgets_the_rows() -> None:
    async def main() -> None:
        fake = FakeClassifier(takes_s=3.0)
        scores = scorer(fake, deadline_s=0.5, size=1, in_flight=1)
        started = asyncio.get_running_loop().time()
        with pytest.raises(ClassifierError, match="500 ms") as late:
            await scores.score(["sent", "never sent"])
        assert late.value.reason == "deadline"
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.5)
        await asyncio.sleep(10)
        assert fake.calls == [["sent"]]
        with pytest.raises(ClassifierError):
            await scores.score(["sent"])
        assert fake.calls == [["sent"], ["sent"]]

    run(main())


def test_a_row_that_failed_is_the_reason_and_is_not_remembered() -> None:
    async def main() -> None:
        fake = FakeClassifier(says={"bad": ClassifierError("invalid_output", "NaN")})
        scores = scorer(fake)
        with pytest.raises(ClassifierError) as failed:
            await scores.score(["good", "bad"])
        assert failed.value.reason == "invalid_output"
        fake.says["bad"] = classification()
        assert await scores.score(["bad"]) == ([fake.says["bad"]], 0)

    run(main())


def test_several_failures_at_once_are_one_error_and_none_goes_unread() -> None:
    async def main() -> None:
        says: dict[str, Classification | ClassifierError] = {
            text: ClassifierError("unhealthy", text) for text in ("a", "b", "c")
        }
        scores = scorer(FakeClassifier(says=says), size=1)
        with pytest.raises(ClassifierError):
            await scores.score(["a", "b", "c"])
        await asyncio.sleep(10)

    run(main())


def test_a_prompt_that_does_not_fit_into_the_queue_takes_its_other_turns_out_again() -> None:
    async def main() -> None:
        fake = FakeClassifier(says={"first": ClassifierError("unhealthy", "unread")})
        scores = scorer(fake, waiting=1)
        with pytest.raises(ClassifierError) as refused:
            await scores.score(["first", "second"])
        assert refused.value.reason == "queue_full"
        await asyncio.sleep(10)
        assert fake.calls == []

    run(main())


def test_a_cancelled_caller_leaves_nothing_to_send() -> None:
    async def main() -> None:
        fake = FakeClassifier()
        waiting = asyncio.create_task(scorer(fake).score(["a", "b"]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(10)
        assert waiting.cancelled()
        assert fake.calls == []

    run(main())


@pytest.mark.parametrize("reason", ["unavailable", "deadline", "not_found", "unhealthy"])
def test_a_classifier_that_keeps_failing_is_asked_once_a_second_until_it_answers(reason: str) -> None:
    async def main() -> None:
        fake = FakeClassifier(takes_s=0.01)
        scores = scorer(fake)

        async def reason_of(text: str) -> str | None:
            fake.says.setdefault(text, ClassifierError(reason, "in trouble"))
            try:
                await scores.score([text])
            except ClassifierError as error:
                return error.reason
            return None

        for i in range(5):
            assert await reason_of(f"in trouble {i}") == reason
        assert [await reason_of(f"refused {i}") for i in range(3)] == [reason] * 3
        assert len(fake.calls) == 5
        await asyncio.sleep(1.1)
        assert [await reason_of(f"once more {i}") for i in range(3)] == [reason] * 3
        assert len(fake.calls) == 6
        await asyncio.sleep(1.1)
        fake.says["it is back"] = classification()
        assert await reason_of("it is back") is None
        fake.says["and stays"] = classification()
        assert await reason_of("and stays") is None

    run(main())


@pytest.mark.parametrize("reason", ["queue_full", "invalid_output", "contract"])
def test_what_is_no_trouble_of_the_classifier_s_leaves_the_breaker_closed(reason: str) -> None:
    async def main() -> None:
        fake = FakeClassifier(says={str(i): ClassifierError(reason, "not its fault") for i in range(9)})
        scores = scorer(fake)
        for i in range(9):
            with pytest.raises(ClassifierError):
                await scores.score([str(i)])
        assert len(fake.calls) == 9

    run(main())
