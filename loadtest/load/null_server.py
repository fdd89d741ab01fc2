"""A server that does nothing but answer on time: what a generator measures against it is the generator's own floor."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

FIRST_TOKEN_S = 0.05
TOKENS = 20
GAP_S = 0.01

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_TOKEN = _part(b'data: {"choices":[{"index":0,"delta":{"content":"null "},"finish_reason":null}]}\n\n')
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\n' % TOKENS
_NO_MODELS = b'{"object":"list","data":[]}'
_LIST = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(_NO_MODELS), _NO_MODELS)
_END = _part(_USAGE + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class NullProtocol(asyncio.Protocol):
    """Answers every POST with the same stream: the first token after 50 ms, then one every 10 ms. It has no models."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._missing = -1  # bytes of the body still to come; -1: the headers are not complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read a request to its end, then answer it."""
        self._received += data
        if self._missing < 0:
            head, found, _ = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self._missing = len(head) + 4 + (int(lengths[0].partition(b":")[2]) if lengths else 0)
        if len(self._received) >= self._missing:
            asks_models = self._received.startswith(b"GET ")
            del self._received[: self._missing]
            self._missing = -1
            if asks_models:
                self._write(_LIST)
            else:
                self._answer()

    def _answer(self) -> None:
        loop, write = asyncio.get_running_loop(), self._write
        first = loop.time() + FIRST_TOKEN_S
        loop.call_at(first, write, _HEAD + _TOKEN)
        for number in range(1, TOKENS):
            loop.call_at(first + number * GAP_S, write, _TOKEN + (_END if number == TOKENS - 1 else b""))

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


async def serve(listener: socket.socket) -> None:
    """Answer on a listening socket for ever."""
    server = await asyncio.get_running_loop().create_server(NullProtocol, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
