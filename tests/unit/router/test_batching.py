"""The micro-batcher, in virtual seconds: who shares a call, when it leaves, and who gets which answer."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from router.decide.batching import BatchReport, MicroBatcher
from router.errors import ClassifierError
from tests.unit.router.virtual_time import NothingWillHappen, VirtualTimeLoop, run

Send = Callable[[Sequence[str]], Awaitable[Sequence[str | Exception]]]


def now() -> float:
    return asyncio.get_running_loop().time()


def timers() -> int:
    return cast(VirtualTimeLoop, asyncio.get_running_loop()).timers


@dataclass
class Recorder:
    """A `send` that answers `text!` after `takes_s`, and remembers what it was asked and when."""

    takes_s: float = 5.0
    calls: list[tuple[float, list[str]]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def __call__(self, texts: Sequence[str]) -> Sequence[str | Exception]:
        self.calls.append((now(), list(texts)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.running -= 1
        return [f"{text}!" for text in texts]


def batcher(
    send: Send,
    *,
    size: int = 4,
    delay_s: float = 2.0,
    waiting: int = 100,
    in_flight: int = 2,
    patience_s: float = math.inf,
    observe: Callable[[BatchReport], None] = lambda _: None,
) -> MicroBatcher[str]:
    return MicroBatcher(
        send,
        max_batch_size=size,
        max_queue_delay_s=delay_s,
        max_waiting=waiting,
        max_in_flight=in_flight,
        patience_s=patience_s,
        observe=observe,
        now=now,
    )


def test_the_first_prompt_opens_the_window_and_its_end_sends_all_that_came() -> None:
    async def main() -> None:
        send = Recorder()
        batch = batcher(send)
        first = batch.submit("a")
        await asyncio.sleep(1.5)
        second = batch.submit("b")
        assert [await first, await second] == ["a!", "b!"]
        assert send.calls == [(2.0, ["a", "b"])]

    run(main())


def test_a_full_batch_leaves_at_once_and_takes_its_window_along() -> None:
    async def main() -> None:
        send = Recorder(takes_s=0.5)
        batch = batcher(send, size=2)
        futures = [batch.submit("a"), batch.submit("b")]
        assert await asyncio.gather(*futures) == ["a!", "b!"]
        assert send.calls == [(0.0, ["a", "b"])]
        await batch.submit("c")
        assert send.calls[1] == (2.5, ["c"])

    run(main())


def test_equal_prompts_share_a_row_and_all_get_its_answer() -> None:
    async def main() -> None:
        send = Recorder()
        reports: list[BatchReport] = []
        batch = batcher(send, size=3, observe=reports.append)
        futures = [batch.submit(text) for text in ("a", "b", "a", "a")]
        assert await asyncio.gather(*futures) == ["a!", "b!", "a!", "a!"]
        assert send.calls == [(2.0, ["a", "b"])]
        [report] = reports
        assert (report.rows, report.shared, len(report.queue_s)) == (2, 2, 2)
        assert all(delay >= 0 for delay in (*report.queue_s, report.call_s))

    run(main())


def test_a_cancelled_caller_is_not_sent_but_the_row_stays_for_another() -> None:
    async def main() -> None:
        send = Recorder()
        batch = batcher(send)
        gone, shared_gone, shared = batch.submit("gone"), batch.submit("shared"), batch.submit("shared")
        gone.cancel()
        shared_gone.cancel()
        assert await shared == "shared!"
        assert send.calls == [(2.0, ["shared"])]

    run(main())


def test_a_caller_cancelled_while_its_batch_is_under_way_does_not_disturb_its_mates() -> None:
    async def main() -> None:
        batch = batcher(Recorder())
        gone, mate = batch.submit("gone"), batch.submit("mate")
        await asyncio.sleep(3)
        gone.cancel()
        assert await mate == "mate!"

    run(main())


def test_nothing_is_sent_when_everybody_has_gone() -> None:
    async def main() -> None:
        send = Recorder()
        batch = batcher(send)
        batch.submit("a").cancel()
        await asyncio.sleep(10)
        assert (send.calls, batch.waiting, batch.in_flight) == ([], 0, 0)

    run(main())


def test_while_nothing_waits_nothing_runs() -> None:
    async def main() -> None:
        batch = batcher(Recorder())
        assert timers() == 0
        await batch.submit("a")
        assert (timers(), batch.waiting, batch.in_flight) == (0, 0, 1)
        await asyncio.sleep(0)
        assert batch.in_flight == 0
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingWillHappen):
        run(main())


def test_no_more_calls_than_allowed_and_what_waits_leaves_when_one_ends_newest_first() -> None:
    async def main() -> None:
        send = Recorder()
        batch = batcher(send, size=2, in_flight=2)
        futures = [batch.submit(str(i)) for i in range(7)]
        assert await asyncio.gather(*futures) == [f"{i}!" for i in range(7)]
        assert send.most_running == 2
        assert send.calls == [(0.0, ["0", "1"]), (0.0, ["2", "3"]), (5.0, ["5", "6"]), (5.0, ["4"])]

    run(main())


@pytest.mark.parametrize(
    ("takes_s", "leaves_s"),
    [
        pytest.param(1.0, 2.0, id="a window as ever: it should be back before"),
        pytest.param(20.0, 4.0, id="until it should be back, a fifth of the one call that is known"),
        pytest.param(100.0, 8.0, id="four windows at most"),
    ],
)
def test_who_finds_a_call_under_way_waits_until_it_should_be_back(takes_s: float, leaves_s: float) -> None:
    async def main() -> None:
        send = Recorder(takes_s)
        batch = batcher(send)
        await batch.submit("how long a call takes")
        under_way = batch.submit("a")
        await asyncio.sleep(2.0)
        began = now()
        later = batch.submit("b")
        await asyncio.gather(under_way, later)
        assert send.calls[1:] == [(began, ["a"]), (began + leaves_s, ["b"])]

    run(main())


def test_a_call_that_takes_over_half_of_the_patience_halves_the_next_and_full_ones_in_time_let_them_grow() -> None:
    async def main() -> None:
        batch = batcher(send := Recorder(), size=8, in_flight=1, patience_s=10.0)
        for send.takes_s in (6.0, 1.0, 1.0):
            await asyncio.gather(*[batch.submit(text) for text in "abcdefgh"])
        assert [len(texts) for _, texts in send.calls] == [8, 4, 4, 5, 3]

    run(main())


def test_too_many_waiting_rows_are_refused_at_once_but_a_shared_one_is_not_another() -> None:
    async def main() -> None:
        batch = batcher(Recorder(), waiting=2)
        futures = [batch.submit("a"), batch.submit("b"), batch.submit("a")]
        with pytest.raises(ClassifierError) as refused:
            batch.submit("c")
        assert refused.value.reason == "queue_full"
        assert await asyncio.gather(*futures) == ["a!", "b!", "a!"]
        assert await batch.submit("c") == "c!"

    run(main())


def test_a_bad_row_fails_alone() -> None:
    async def send(texts: Sequence[str]) -> Sequence[str | Exception]:
        return [ClassifierError("invalid_output", text) if text == "bad" else text for text in texts]

    async def main() -> None:
        batch = batcher(send)
        good, bad = await asyncio.gather(batch.submit("good"), batch.submit("bad"), return_exceptions=True)
        assert good == "good"
        assert isinstance(bad, ClassifierError)
        assert str(bad) == "bad"

    run(main())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_results_is_nobodys_answer(count: int) -> None:
    async def send(_: Sequence[str]) -> Sequence[str | Exception]:
        return ["somebody's"] * count

    async def main() -> None:
        batch = batcher(send)
        results = await asyncio.gather(batch.submit("a"), batch.submit("b"), return_exceptions=True)
        assert [cast(ClassifierError, result).reason for result in results] == ["invalid_output"] * 2

    run(main())


def test_a_call_that_its_transport_cancels_is_unavailable() -> None:
    async def send(_: Sequence[str]) -> Sequence[str | Exception]:
        raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(ClassifierError) as failed:
            await batcher(send).submit("a")
        assert failed.value.reason == "unavailable"

    run(main())


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0, 3.0], ids=["waiting", "waiting longer", "leaving", "under way"])
@pytest.mark.parametrize("size", [1, 4], ids=["full at once", "in its window"])
def test_closing_fails_everybody_and_leaves_nothing_behind(after_s: float, size: int) -> None:
    async def main() -> None:
        batch = batcher(Recorder(), size=size, in_flight=1)
        futures = [batch.submit("a"), batch.submit("b")]
        if after_s:
            await asyncio.sleep(after_s)
        await batch.close()
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 1.0)
        assert [cast(ClassifierError, result).reason for result in results] == ["unavailable"] * 2
        assert (batch.waiting, batch.in_flight, timers()) == (0, 0, 0)
        assert await batch.submit("late") == "late!"

    run(main())


@dataclass(frozen=True)
class Caller:
    """Comes at a whole second; goes, if at all, between two: never in the instant in which a batch leaves."""

    arrives: int
    text: str
    patience: int | None


@dataclass(frozen=True)
class Call:
    """How one call goes: its seconds, and whether it answers, fails, miscounts or has bad rows."""

    takes_s: int
    fate: str


callers = st.builds(Caller, st.integers(0, 9), st.sampled_from("abcdef"), st.none() | st.integers(0, 6))
calls = st.builds(
    Call, st.integers(0, 6), st.sampled_from(["answers"] * 4 + ["raises", "too few", "too many", "bad row"])
)


@dataclass
class UnreliableClassifier:
    """Answers each text with `(text, number of the call)`, as its plan says; checks what it is sent."""

    plan: list[Call]
    most_rows: int
    most_calls: int
    wanted: Counter[str]
    left_at: list[float] = field(default_factory=list)
    ended_at: set[float] = field(default_factory=set)
    running: int = 0

    async def send(self, texts: Sequence[str]) -> Sequence[tuple[str, int] | Exception]:
        number = len(self.left_at)
        call = self.plan[number % len(self.plan)]
        self.left_at.append(now())
        self.running += 1
        assert 1 <= len(texts) <= self.most_rows
        assert len(set(texts)) == len(texts)
        assert all(self.wanted[text] > 0 for text in texts), "a row was sent that nobody waits for"
        assert self.running <= self.most_calls
        await asyncio.sleep(call.takes_s)
        self.running -= 1
        self.ended_at.add(now())
        results: list[tuple[str, int] | Exception] = [(text, number) for text in texts]
        match call.fate:
            case "raises":
                raise ClassifierError("unhealthy", "all rows")
            case "too few":
                return results[1:]
            case "too many":
                return [*results, results[0]]
            case "bad row":
                results[0] = ClassifierError("invalid_output", texts[0])
        return results


@given(
    people=st.lists(callers, min_size=1, max_size=25),
    plan=st.lists(calls, min_size=1, max_size=6),
    size=st.integers(1, 4),
    delay_s=st.integers(0, 3),
    waiting=st.integers(1, 6),
    in_flight=st.integers(1, 3),
)
@profile(max_examples=500)
def test_every_caller_gets_its_own_answer_whatever_happens(
    people: list[Caller], plan: list[Call], size: int, delay_s: int, waiting: int, in_flight: int
) -> None:
    wanted: Counter[str] = Counter()
    classifier = UnreliableClassifier(plan, size, in_flight, wanted)
    reports: list[BatchReport] = []
    fates = Counter[str]()

    async def main() -> None:
        batch: MicroBatcher[tuple[str, int]] = MicroBatcher(
            classifier.send,
            max_batch_size=size,
            max_queue_delay_s=delay_s,
            max_waiting=waiting,
            max_in_flight=in_flight,
            observe=reports.append,
        )

        async def live(caller: Caller) -> None:
            await asyncio.sleep(caller.arrives)
            full = batch.waiting == waiting
            try:
                future = batch.submit(caller.text)
            except ClassifierError as error:
                fates[f"{error.reason} when {'' if full else 'not '}full"] += 1
                return
            assert batch.waiting <= waiting
            wanted[caller.text] += 1
            submitted = now()
            try:
                async with asyncio.timeout(None if caller.patience is None else caller.patience + 0.5):
                    text, number = await future
            except TimeoutError:
                fates["gone"] += 1
            except ClassifierError as error:
                its_own = str(error) in ("all rows", caller.text) or "results came for" in str(error)
                fates[error.reason if its_own else f"the error of another row: {error}"] += 1
            else:
                assert text == caller.text
                left = classifier.left_at[number]
                assert submitted <= left
                assert left <= submitted + delay_s or left in classifier.ended_at
                fates["answered"] += 1
            finally:
                wanted[caller.text] -= 1

        await asyncio.gather(*map(live, people))
        await asyncio.sleep(1000)
        assert (batch.waiting, batch.in_flight, timers()) == (0, 0, 0)

    run(main())
    assert fates.total() == len(people)
    assert set(fates) <= {"answered", "gone", "unhealthy", "invalid_output", "queue_full when full"}
    assert len(reports) == len(classifier.left_at)
