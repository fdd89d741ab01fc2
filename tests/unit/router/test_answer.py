import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.server import ServerState

from router.cork import Cork
from router.http.admission import Admission
from router.http.asgi import ASGIApp, Receive, Scope, Send
from router.http.protocol import HTTPProtocol
from router.metrics import Metrics

REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
JSON = [(b"content-type", b"application/json")]


class RecordingTransport(asyncio.Transport):
    """Keeps what is written to it, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.closed_by_itself = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Read:
    """What a client's parser makes of the bytes."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.complete = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name not in self.headers
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def answered(app: Callable[[Send], Awaitable[None]], request: bytes = REQUEST) -> RecordingTransport:
    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        await app(send)

    async def run() -> RecordingTransport:
        config = uvicorn.Config(asgi(whole), log_config=None, log_level="critical")
        config.load()
        admission = Admission(Metrics())
        protocol = HTTPProtocol(
            admission=admission, cork=Cork(), config=config, server_state=ServerState(), app_state={}
        )
        protocol.connection_made(transport := RecordingTransport())
        protocol.data_received(request)
        await asyncio.gather(*protocol.tasks)
        transport.closed_by_itself = transport.closed
        protocol.connection_lost(None)
        return transport

    return asyncio.run(run())


def asgi(app: ASGIApp) -> Any:
    return app


def sending(*messages: dict[str, Any]) -> Callable[[Send], Coroutine[Any, Any, None]]:
    async def app(send: Send) -> None:
        for message in messages:
            await send(message)
            await asyncio.sleep(0)  # what one turn of the event loop writes leaves together

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


def test_a_whole_answer_leaves_in_one_write_and_the_connection_stays() -> None:
    transport = answered(sending(start(200, *JSON, (b"content-length", b"2")), body(b"{}")))
    [written] = transport.written
    read = Read(written)
    assert (read.status, read.body, read.complete) == (200, b"{}", True)
    assert read.headers[b"content-type"] == b"application/json"
    assert b"transfer-encoding" not in read.headers
    assert not transport.closed_by_itself


def test_a_stream_leaves_part_by_part_its_head_with_the_first() -> None:
    transport = answered(sending(start(), body(b"one", more=True), body(b"two", more=True), body(b"")))
    assert len(transport.written) == 3
    assert Read(transport.written[0]).body == b"one"
    read = Read(b"".join(transport.written))
    assert (read.body, read.complete, read.headers[b"transfer-encoding"]) == (b"onetwo", True, b"chunked")


def test_the_end_of_a_stream_can_bring_its_last_part() -> None:
    read = Read(b"".join(answered(sending(start(), body(b"one", more=True), body(b"two"))).written))
    assert (read.body, read.complete) == (b"onetwo", True)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_none(status: int) -> None:
    [written] = answered(sending(start(status), body(b""))).written
    read = Read(written)
    assert (read.status, read.body, read.complete) == (status, b"", True)
    assert b"transfer-encoding" not in read.headers


def test_a_status_that_has_no_name_is_passed_on() -> None:
    [written] = answered(sending(start(529, (b"content-length", b"0")), body(b""))).written
    assert Read(written).status == 529


def test_connection_close_closes_and_says_so_once() -> None:
    transport = answered(sending(start(400, (b"connection", b"close"), (b"content-length", b"2")), body(b"{}")))
    assert Read(transport.written[0]).headers[b"connection"] == b"close"
    assert transport.closed_by_itself


def test_a_client_that_wants_to_close_is_told_that_the_connection_does() -> None:
    request = REQUEST.replace(b"host", b"connection: close\r\nhost")
    transport = answered(sending(start(200, (b"content-length", b"0")), body(b"")), request)
    assert Read(transport.written[0]).headers[b"connection"] == b"close"
    assert transport.closed_by_itself


@pytest.mark.parametrize("parts", [(body(b"{}{}"),), (body(b"{"),), (body(b"{}"), body(b""))])
def test_another_body_than_the_head_has_announced_is_a_bug_of_ours_that_no_client_takes_for_an_answer(
    parts: tuple[dict[str, Any], ...],
) -> None:
    raised: list[BaseException] = []

    async def app(send: Send) -> None:
        try:
            await sending(start(200, (b"content-length", b"2")), *parts)(send)
        except RuntimeError as error:
            raised.append(error)
            raise

    transport = answered(app)
    assert len(raised) == 1
    assert transport.closed_by_itself or Read(b"".join(transport.written)).body == b"{}"


def test_an_answer_that_breaks_off_before_its_first_part_closes_the_connection() -> None:
    transport = answered(sending(start(200, (b"content-length", b"2"))))
    assert (transport.written, transport.closed_by_itself) == ([], True)
