"""Writes the answer to a POST on uvicorn's connection: its head leaves with the first part of its body.

uvicorn's own `send` takes a system call for each of the two, and looks for a line break in each header. Ours come from
parsers that let none through: the upstream's answer, and the configuration's names.
"""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from router.http.asgi import HeaderList, Message

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_BODILESS = (204, 304)


class Answer:
    """ASGI's `send` for one request, whose method is not HEAD."""

    __slots__ = ("_cycle", "_head", "_left")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._head = b""
        self._left: int | None = None  # bytes of the announced body, None for a body in chunks

    async def send(self, message: Message) -> None:
        """Take a head, which waits, or a part of the body, which takes it along.

        Raises RuntimeError when the parts make up another length than the head has announced, or come after its end.
        """
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        if cycle.response_complete:
            raise RuntimeError("The answer is complete.")
        if message["type"] == "http.response.start":
            cycle.response_started = True
            del cycle.send  # its caller has it by now; a reference cycle would be left to the garbage collector
            cycle.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], message["headers"])
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _head_of(self, status: int, headers: HeaderList) -> bytes:
        cycle = self._cycle
        content = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in cycle.default_headers:
            content += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                cycle.keep_alive = False
                continue
            content += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            content.append(b"connection: close\r\n")
        if status in _BODILESS:
            self._left = 0
        elif self._left is None:
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        return b"".join(content)

    def _write(self, body: bytes, *, more: bool) -> None:
        cycle, head = self._cycle, self._head
        self._head = b""
        if self._left is None:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            cycle.transport.write(b"%b%b%b" % (head, chunk, b"" if more else b"0\r\n\r\n"))
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("The body has another length than its head has announced.")
            cycle.transport.write(head + body)
        if not more:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()
