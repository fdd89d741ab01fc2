"""How a client can misbehave on its connection: leave, be slow, send too much, send what can be read in two ways."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psutil
import pytest

from tests.faults.invariants import PATIENCE_S, counted
from tests.integration.canned_llm import SSE_HEAD
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, CHAT, Answer, RouterProcess, chat_body, wait_until

PROMPT = f"Hello? {CANARY}"
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n".encode()
LIMIT = 4_194_304


@contextmanager
def connected(router: RouterProcess, *sent: bytes) -> Iterator[socket.socket]:
    """Connect and send; leaving the block closes the connection."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=10) as connection:
        connection.sendall(b"".join(sent))
        yield connection


def request(content: str = PROMPT, **fields: Any) -> bytes:
    """Return a whole chat request as it goes over the wire."""
    body = json.dumps(chat_body(content, **fields)).encode()
    return HEAD + b"content-length: %d\r\n\r\n" % len(body) + body


def answer_on(connection: socket.socket) -> Answer:
    """Read one answer, which must be the last: the router closes the connection after it."""
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        answer = Answer(response.status, headers, response.read())
    assert answer.header("connection") == "close"
    assert connection.recv(1) == b""
    return answer


@pytest.mark.fault(
    "the client leaves before the answer, or before the first event",
    "the model sees the close within 1 s; outcome `client_cancelled`",
)
@pytest.mark.parametrize(("fault", "stream"), [("hang", False), ("hang", True), ("delay_ms=60000", True)])
def test_a_client_that_leaves_before_the_answer(stack: Stack, fault: str, stream: bool) -> None:
    stack.cheap.set_fault(fault)
    before = stack.cheap.stats()
    with counted(stack.router, "client_cancelled"):
        with connected(stack.router, request(model="cheap", stream=stream)):
            stack.cheap.wait_for(lambda stats: stats["requests"] == before["requests"] + 1)
        stack.cheap.wait_for(lambda stats: stats["disconnects"] == before["disconnects"] + 1)


@pytest.mark.fault("the client leaves in mid-stream", "the model sees the close within 1 s; outcome `client_cancelled`")
def test_a_client_that_leaves_in_mid_stream(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, CHUNK, then_hang=True)
    with counted(stack.router, "client_cancelled"):
        with connected(stack.router, request(model="canned", stream=True)) as connection:
            heard = b""
            while b"hi" not in heard:
                heard += connection.recv(65536)
        assert stack.canned.closed_by_peer.wait(PATIENCE_S)


@pytest.mark.fault(
    "the client asks for a long stream and does not read it", "the model is held back; the router's memory stays"
)
def test_a_client_that_does_not_read(stack: Stack) -> None:
    process, part = psutil.Process(stack.router.child.pid), CHUNK * 20_000
    stack.canned.say(SSE_HEAD, *[part] * 100)
    before = process.memory_info().rss
    with counted(stack.router, "client_cancelled"), connected(stack.router, request(model="canned", stream=True)):
        time.sleep(2)
        assert process.memory_info().rss - before < 10 * len(part)  # of a hundred
    wait_until(lambda: stack.router.connections_to(stack.canned.port) == 0)


@pytest.mark.fault("50 clients leave at once", "every call to the model ends; no connection is left over")
def test_many_clients_that_leave_leave_nothing_behind(stack: Stack) -> None:
    idle = stack.router.connections_to(stack.cheap.port)
    stack.cheap.set_fault("hang")
    with counted(stack.router, "client_cancelled", 50):
        connections = []
        for i in range(50):
            connections.append(socket.create_connection(("127.0.0.1", stack.router.port), timeout=5))
            connections[-1].sendall(request(f"{i} {PROMPT}", model="default@1", stream=i % 2 == 0))
        stack.cheap.wait_for(lambda stats: stats["in_flight"] == 50)
        assert stack.router.connections_to(stack.cheap.port) >= 50
        for connection in connections:
            connection.close()
        stack.cheap.wait_for(lambda stats: stats["in_flight"] == 0)
    wait_until(lambda: stack.router.connections_to(stack.cheap.port) <= idle)


@pytest.mark.fault("the client leaves within its body", "outcome `client_cancelled`; no model is called")
def test_a_client_that_leaves_within_its_body(router: RouterProcess) -> None:
    with counted(router, "client_cancelled"), connected(router, HEAD, b'content-length: 1000\r\n\r\n{"model":'):
        pass


@pytest.mark.fault("the body stops coming", "408 after `body_timeout_s`, and the connection closes")
def test_a_slow_body(router: RouterProcess) -> None:
    with (
        counted(router, "client_error"),
        connected(router, HEAD, b'content-length: 1000\r\n\r\n{"model":') as connection,
    ):
        answer = answer_on(connection)
    assert (answer.status, answer.error()["code"]) == (408, "request_timeout")


@pytest.mark.fault("a body announces more than `max_body_bytes`", "413 before it comes, and the connection closes")
def test_a_body_that_announces_too_much_is_refused_before_it_comes(router: RouterProcess) -> None:
    with counted(router, "client_error"), connected(router, HEAD, b"content-length: 4194305\r\n\r\n") as connection:
        answer = answer_on(connection)
    error = answer.error()
    assert (answer.status, error["code"]) == (413, "body_too_large")
    assert "4,194,304" in error["message"]
    assert "server.max_body_bytes" in error["message"]


@pytest.mark.fault("a client asks by `Expect` whether a body that is too large may come", "413, no `100 Continue`")
def test_who_asks_before_sending_too_much(router: RouterProcess) -> None:
    asked = b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with counted(router, "client_error"), connected(router, HEAD, asked % (LIMIT + 1)) as connection:
        assert answer_on(connection).status == 413
    with connected(router, HEAD, asked % 2) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")


@pytest.mark.fault("a client sends all of a body that is too large", "it can read the 413 all the same")
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_who_sends_too_much_can_read_why_not(router: RouterProcess, size: int) -> None:
    sent = (HEAD, b"content-length: %d\r\n\r\n" % size, b"x" * size)
    with counted(router, "client_error"), connected(router, *sent) as connection:
        assert answer_on(connection).status == 413


@pytest.mark.fault("a chunked body without an end", "413 once it is over the limit, and the connection closes")
def test_an_endless_chunked_body_is_refused_before_it_is_buffered(router: RouterProcess) -> None:
    chunk, sent = b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 0
    with counted(router, "client_error"), connected(router, HEAD, b"transfer-encoding: chunked\r\n\r\n") as connection:
        while not answered(connection):
            connection.sendall(chunk)
            sent += len(chunk)
        answer = answer_on(connection)
    assert (answer.status, answer.error()["code"]) == (413, "body_too_large")
    assert sent < LIMIT + 8_000_000  # the limit, and what the kernel's socket buffers hold


def answered(connection: socket.socket) -> bool:
    """Return whether an answer has begun to arrive."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(10)


@pytest.mark.fault(
    "the request's head stops coming, or comes a byte a second", "408 after 10 s, and the connection closes"
)
def test_a_slow_head(router: RouterProcess) -> None:
    """Three clients at once, as each takes the whole ten seconds; the second has had an answer before."""
    earlier = b"GET /health/live HTTP/1.1\r\nhost: router\r\n\r\n"
    with (
        connected(router, HEAD) as stopped,
        connected(router, earlier) as second,
        connected(router, HEAD + b"x-slow: ") as dripping,
    ):
        while b'"live"' not in second.recv(65536):
            pass
        second.sendall(b"POST /v1/ch")
        while not answered(stopped):
            dripping.sendall(b"a")
            time.sleep(0.2)
        for connection in (stopped, second, dripping):
            answer = answer_on(connection)
            assert (answer.status, answer.error()["code"]) == (408, "head_timeout")


@pytest.mark.fault("a head of more than 64 KiB", "431, and the connection closes")
def test_a_head_without_an_end(router: RouterProcess) -> None:
    with connected(router, HEAD) as connection:
        for i in range(100):
            if answered(connection):
                break
            connection.sendall(b"x-%d: %s\r\n" % (i, b"a" * 4000))
            time.sleep(0.01)
        answer = answer_on(connection)
    assert (answer.status, answer.error()["code"]) == (431, "head_too_large")


MALFORMED = {
    "length and chunked": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a bare CR": HEAD + b"x-a: b\rx-b: c\r\ncontent-length: 2\r\n\r\n{}",
    "a header's second line": HEAD + b"x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}",
    "a space before the colon": HEAD + b"content-length : 2\r\n\r\n{}",
    "a length below zero": HEAD + b"content-length: -1\r\n\r\n{}",
    "a NUL": HEAD + b"x-a: \x00\r\ncontent-length: 2\r\n\r\n{}",
    "a chunk's size that is none": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "a tunnel": HEAD.replace(b"POST /v1/chat/completions", b"CONNECT router:443", 1) + b"upgrade: h2c\r\n\r\n",
    "a method that is none": HEAD.replace(b"POST", b"PO ST", 1) + b"content-length: 2\r\n\r\n{}",
}


@pytest.mark.fault(
    "what is not HTTP, or can be read in two ways: two lengths, a bare CR, a broken chunk",
    "400 `malformed_request`, no model is called, and the connection closes",
)
@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_request(stack: Stack, sent: bytes) -> None:
    before = stack.cheap.stats()["requests"]
    with connected(stack.router, sent) as connection:
        answer = answer_on(connection)
    assert (answer.status, answer.error()["code"]) == (400, "malformed_request")
    assert stack.cheap.stats()["requests"] == before


OFFERS = {
    "HTTP/2": b"upgrade: h2c\r\nconnection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABkAAQBAAAA\r\n",
    "WebSocket": b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n",
}


@pytest.mark.fault(
    "the client offers another protocol, as Java's HTTP client does with each first request",
    "it is answered by HTTP/1.1, and so is what follows on the connection",
)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("piece", [7, 65536])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunks", "length"])
def test_an_offer_to_change_the_protocol(router: RouterProcess, offer: bytes, piece: int, chunked: bool) -> None:
    body = json.dumps(chat_body(PROMPT, model="cheap")).encode()
    length = b"content-length: %d\r\n\r\n%b" % (len(body), body)
    framed = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else length
    with counted(router, "ok"), connected(router) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = HEAD + offer + framed
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
        with closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            assert (response.status, json.loads(response.read())["object"]) == (200, "chat.completion")
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: router\r\n" + offer + b"\r\n")
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with closing(http.client.HTTPResponse(connection)) as response:
            response.begin()
            assert (response.status, json.loads(response.read())) == (200, {"status": "OK"})


@pytest.mark.fault(
    "garbage after a request that is still being answered", "the connection closes; nothing is taken for its answer"
)
def test_garbage_behind_a_request(stack: Stack) -> None:
    stack.cheap.set_fault("hang")
    with counted(stack.router, "client_cancelled"), connected(stack.router, request(model="cheap")) as connection:
        stack.cheap.wait_for(lambda stats: stats["in_flight"] == 1)
        connection.sendall(b"\x00\x01 garbage\r\n\r\n")
        assert connection.recv(65536) == b""
