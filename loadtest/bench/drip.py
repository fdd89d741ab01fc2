"""A simulated LLM that does nothing but keep time: streams whose every chunk says when it left, and late whole answers.

    python -m loadtest.bench.drip PORT [--chunks 20] [--interval-ms 200] [--delay-ms 0]

A raw protocol on one core, because it has to be faster than whoever is measured. A chunk's content is the moment of its
sending: nanoseconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from loadtest.bench.nginx import COMPLETION
from loadtest.processes import listen

_WANTS_STREAM = re.compile(rb'"stream":\s*true')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_FRAME = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(**fields: object) -> bytes:
    return b"data: " + json.dumps(_FRAME | fields, separators=(",", ":")).encode() + b"\n\n"


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _content(text: str) -> bytes:
    return _event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


_BEFORE, _AFTER = _content("@ ").split(b"@")
_END = b"".join(
    [
        _chunked(_event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])),
        _chunked(_event(choices=[], usage=COMPLETION["usage"])),
        _chunked(b"data: [DONE]\n\n"),
        b"0\r\n\r\n",
    ]
)
_WHOLE = json.dumps(COMPLETION).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_WHOLE) + _WHOLE


@dataclass(frozen=True, slots=True)
class Pace:
    """How many chunks a stream has, the seconds before each, and how late a whole answer is."""

    chunks: int
    interval_s: float
    delay_s: float


class Dripping(asyncio.Protocol):
    """One kept connection; one request at a time, as HTTP/1.1 clients do."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the stream."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect a request; answer when it is whole."""
        self._received += data
        head, separator, body = bytes(self._received).partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        if len(body) < (int(length[1]) if length else 0):
            return
        self._received.clear()
        if _WANTS_STREAM.search(body):
            self._transport.write(_STREAM_HEAD)
            self._next(self._loop.time() + self._pace.interval_s, self._pace.chunks)
        else:
            self._timer = self._loop.call_later(self._pace.delay_s, self._transport.write, _WHOLE)

    def _next(self, due: float, left: int) -> None:
        self._timer = self._loop.call_at(due, self._drip, due, left)

    def _drip(self, due: float, left: int) -> None:
        chunk = _chunked(b"%s%d%s" % (_BEFORE, time.monotonic_ns(), _AFTER))
        self._transport.write(chunk if left > 1 else chunk + _END)
        if left > 1:
            self._next(due + self._pace.interval_s, left - 1)


async def serve(port: int, pace: Pace) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    listener = listen(port, "PORT")
    server = await asyncio.get_running_loop().create_server(lambda: Dripping(pace), sock=listener, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.drip")
    parser.add_argument("port", type=int)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--interval-ms", type=float, default=200.0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    options = parser.parse_args()
    uvloop.run(serve(options.port, Pace(options.chunks, options.interval_ms / 1e3, options.delay_ms / 1e3)))


if __name__ == "__main__":
    main()
