"""Writes of one turn of the event loop leave together, in order, and nothing is lost by a close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from router.cork import Cork, CorkedTransport
from tests.unit.router.test_answer import RecordingTransport


def in_a_loop(work: Callable[[Cork, asyncio.AbstractEventLoop], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        await work(Cork(), asyncio.get_running_loop())

    asyncio.run(run())


def several(
    count: int, cork: Cork, loop: asyncio.AbstractEventLoop
) -> tuple[list[RecordingTransport], list[CorkedTransport]]:
    real = [RecordingTransport() for _ in range(count)]
    return real, [CorkedTransport(one, cork, loop) for one in real]


def test_what_one_turn_writes_leaves_at_its_end() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        real, corked = several(3, cork, loop)
        for number, one in enumerate(corked):
            one.write(b"%d" % number)
        assert [one.written for one in real] == [[], [], []]
        await asyncio.sleep(0)
        assert [one.written for one in real] == [[b"0"], [b"1"], [b"2"]]

    in_a_loop(work)


def test_a_long_turn_does_not_hold_its_first_writes_until_its_end() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        real, corked = several(40, cork, loop)
        for one in corked:
            one.write(b"a")
        assert [len(one.written) for one in real] == [1] * 24 + [0] * 16
        await asyncio.sleep(0)
        assert [len(one.written) for one in real] == [1] * 40
        corked[0].write(b"b")
        assert real[0].written == [b"a"], "the last turn had company, so this one is corked again"

    in_a_loop(work)


def test_several_writes_of_a_connection_are_one_in_their_order() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        [real], [corked] = several(1, cork, loop)
        corked.write(b"head ")
        corked.write(b"body")
        await asyncio.sleep(0)
        assert real.written == [b"head body"]

    in_a_loop(work)


def test_a_close_comes_after_what_was_written_before_it() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        [real], [corked] = several(1, cork, loop)
        corked.write(b"last words")
        corked.close()
        assert (real.written, real.closed) == ([b"last words"], True)
        await asyncio.sleep(0)
        assert real.written == [b"last words"]

    in_a_loop(work)


def test_nothing_is_written_to_a_connection_that_was_lost_meanwhile() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        real, corked = several(2, cork, loop)
        for one in corked:
            one.write(b"x")
        real[0].closed = True
        await asyncio.sleep(0)
        assert [one.written for one in real] == [[], [b"x"]]

    in_a_loop(work)


def test_a_write_without_company_soon_leaves_at_once_and_waits_again_when_there_is_company() -> None:
    async def work(cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        real, corked = several(2, cork, loop)
        waited = 0
        for turn in range(1000):
            corked[0].write(b"x")
            waited += len(real[0].written) == turn
            await asyncio.sleep(0)
        assert len(real[0].written) == 1000
        assert 5 < waited < 20
        for _ in range(200):
            corked[0].write(b"a")
            corked[1].write(b"b")
            await asyncio.sleep(0)
        before = len(real[0].written)
        corked[0].write(b"a")
        corked[1].write(b"b")
        assert len(real[0].written) == before
        await asyncio.sleep(0)
        assert (real[0].written[-1], real[1].written[-1]) == (b"a", b"b")
        assert (len(real[0].written), len(real[1].written)) == (1201, 201)

    in_a_loop(work)
