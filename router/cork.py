"""Lets what one turn of the event loop writes leave together, at its end.

A write wakes who reads at the other end, and that costs more than the write itself. One by one, with work in between,
each wakes a reader that has gone back to sleep; together, the first wakes it and the others find it awake.

A write that is alone in its turn would only wait. So where one was, the next ones leave at once, and now and then a
turn is corked to see whether there is company again.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Cork:
    """Holds the writes of the connections of one event loop."""

    _MOST_HELD = 24  # more gain nothing, and in a long turn the first would wait for the last
    _MOST_AT_ONCE = 128

    def __init__(self) -> None:
        self._holding: list[CorkedTransport] = []
        self._held_in_turn = 0
        self.at_once = 0  # so many writes leave before a turn is corked again
        self._next_at_once = 1

    def hold(self, transport: CorkedTransport, loop: asyncio.AbstractEventLoop) -> None:
        """Flush a transport at the end of this turn, or with the next ones of a long turn."""
        if not self._held_in_turn:
            loop.call_soon(self._turn_over)
        self._held_in_turn += 1
        self._holding.append(transport)
        if len(self._holding) >= self._MOST_HELD:
            self._release()

    def _turn_over(self) -> None:
        if self._held_in_turn == 1:
            self.at_once = self._next_at_once
            self._next_at_once = min(2 * self._next_at_once, self._MOST_AT_ONCE)
        else:
            self._next_at_once = 1
        self._held_in_turn = 0
        self._release()

    def _release(self) -> None:
        holding, self._holding = self._holding, []
        for transport in holding:
            transport.flush()


class CorkedTransport(asyncio.Transport):
    """A connection's transport whose writes wait in `cork`; what closes it keeps their order."""

    __slots__ = ("_cork", "_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, cork: Cork, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._cork = cork
        self._loop = loop
        self._held = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's own
        """Return what the transport knows of its connection."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Leave what arrives to the kernel."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def write(self, data: bytes) -> None:  # type: ignore[override] # asyncio's takes other buffers too
        """Send, together with what else is written in this turn."""
        cork = self._cork
        if self._held:
            self._held += data
        elif cork.at_once:
            cork.at_once -= 1
            self._transport.write(data)
        else:
            self._held = data
            cork.hold(self, self._loop)

    def flush(self) -> None:
        """Send now what is held."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Send what is held, and close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is held is lost."""
        self._held = b""
        self._transport.abort()
