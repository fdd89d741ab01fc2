"""More prompts than can be scored in time, in virtual seconds: who cannot be helped does not hold up the others."""

from __future__ import annotations

import asyncio

from router.errors import ClassifierError
from tests.unit.router.test_batching import Recorder, batcher, now
from tests.unit.router.virtual_time import run


def test_who_cannot_be_answered_in_time_is_told_at_once_and_takes_no_row() -> None:
    async def main() -> None:
        send = Recorder(takes_s=5)
        batch = batcher(send, size=2, delay_s=0, in_flight=1, patience_s=12)
        for round_ in range(20):  # until it knows how long a call takes
            await asyncio.gather(batch.submit(f"a{round_}"), batch.submit(f"b{round_}"))
        before, began = len(send.calls), now()
        futures = [batch.submit(f"{i}") for i in range(8)]  # two leave at once, 5 s each; the newest come next
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [text for _, texts in send.calls[before:] for text in texts] == ["0", "1", "6", "7"]
        assert [isinstance(one, ClassifierError) and one.reason for one in outcomes[2:6]] == ["deadline"] * 4
        assert now() - began == 10
        assert batch.waiting == 0

    run(main())


def test_a_call_that_was_slow_once_does_not_stop_the_calls() -> None:
    async def main() -> None:
        send = Recorder(takes_s=1000)
        batch = batcher(send, size=2, delay_s=0, in_flight=1, patience_s=12)
        await asyncio.gather(batch.submit("a"), batch.submit("b"))
        send.takes_s = 1
        futures = [batch.submit(f"{i}") for i in range(20)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert sum(isinstance(one, str) for one in outcomes) >= 2
        for round_ in range(60):
            await batch.submit(f"again {round_}")
        futures = [batch.submit(f"later {i}") for i in range(20)]
        assert all(isinstance(one, str) for one in await asyncio.gather(*futures, return_exceptions=True))

    run(main())
