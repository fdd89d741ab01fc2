"""Streams: whole events only, an error event where one breaks, and nothing left over when it is over."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import openai
import psutil
import pytest

from loadtest.simulated_llm import simulated_llm
from tests.faults.failover import Servers, StartFailover
from tests.faults.invariants import PATIENCE_S, counted
from tests.faults.test_upstream import CHUNK, PROMPT, failed
from tests.integration.canned_llm import SSE_HEAD
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, CHAT, RouterProcess, chat_body, events, wait_until


@pytest.mark.fault("a stream fails before its first event", "502 with an error object instead of a stream")
@pytest.mark.parametrize("fault", ["error_event", "die_after_chunks=0", "huge"])
def test_a_stream_that_fails_before_its_first_event_is_a_whole_error(stack: Stack, fault: str) -> None:
    stack.cheap.set_fault(fault)
    status, error, _ = failed(stack.router, "upstream_error", model="cheap", stream=True)
    assert status == 502
    assert error["code"] == ("upstream_error" if fault == "error_event" else "upstream_protocol")


def broken_stream(stack: Stack, model: str) -> tuple[list[bytes], dict[str, Any]]:
    """Ask for a stream that breaks: return the whole events before the error, and the error in it."""
    before = stack.router.outcomes("upstream_error")
    answer = stack.router.post(chat_body(PROMPT, model=model, stream=True))
    assert answer.status == 200
    assert answer.header("x-router-model") == model
    *passed, last = events(answer.body)
    assert stack.router.outcomes("upstream_error") == before + 1
    assert b"[DONE]" not in answer.body
    assert CANARY.encode() not in answer.body
    return passed, dict(json.loads(last)["error"])


@pytest.mark.fault(
    "the model dies in mid-stream",
    "whole events arrive, half a one does not; then an error event, no `[DONE]`, no invented `finish_reason`",
)
@pytest.mark.parametrize("mid_event", ["", ";die_mid_event"])
def test_death_in_mid_stream(stack: Stack, mid_event: str) -> None:
    stack.cheap.set_fault(f"die_after_chunks=3{mid_event}")
    passed, error = broken_stream(stack, "cheap")
    assert len(passed) == 3
    assert all(json.loads(event)["choices"][0]["finish_reason"] is None for event in passed)
    assert (error["code"], error["status"]) == ("upstream_protocol", 502)


@pytest.mark.fault("a stream ends within an event", "whole events arrive, then an error event")
def test_a_stream_that_ends_properly_within_an_event(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, CHUNK + CHUNK[:20])
    passed, error = broken_stream(stack, "canned")
    assert [b"data: " + event + b"\n\n" for event in passed] == [CHUNK]
    assert error["code"] == "upstream_protocol"


@pytest.mark.fault(
    "a stream ends without `finish_reason` and `[DONE]`", "an error event: a part is not to be taken for the whole"
)
def test_a_stream_that_ends_before_its_answer_is_complete(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, CHUNK, CHUNK)
    passed, error = broken_stream(stack, "canned")
    assert len(passed) == 2
    assert (error["code"], error["status"]) == ("upstream_protocol", 502)


@pytest.mark.fault("a stream without a single event", "502 `upstream_protocol`")
def test_a_stream_without_events(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD)
    status, error, _ = failed(stack.router, "upstream_error", model="canned", stream=True)
    assert (status, error["code"]) == (502, "upstream_protocol")


@pytest.mark.fault(
    "a stream ends after its `finish_reason`, without `[DONE]`", "it passes as it is; the answer is complete"
)
def test_a_complete_stream_without_done(stack: Stack) -> None:
    stream = CHUNK + CHUNK.replace(b'"delta":{"content":"hi"}', b'"delta":{},"finish_reason":"stop"')
    stack.canned.say(SSE_HEAD, stream)
    before = stack.router.outcomes("ok")
    assert stack.router.post(chat_body(PROMPT, model="canned", stream=True)).body == stream
    assert stack.router.outcomes("ok") == before + 1


@pytest.mark.fault("an event that is not JSON", "an error event `upstream_protocol` in its place")
def test_a_malformed_event(stack: Stack) -> None:
    stack.cheap.set_fault("malformed")
    passed, error = broken_stream(stack, "cheap")
    assert len(passed) == 1
    assert (error["code"], error["status"]) == ("upstream_protocol", 502)


@pytest.mark.fault("a fault that comes in one read with good events", "what was whole before it arrives")
@pytest.mark.parametrize("together", [True, False])
def test_what_was_whole_before_a_fault_arrives_however_the_network_cuts_it(stack: Stack, together: bool) -> None:
    pieces = (CHUNK, CHUNK, b'data: {"choices"\n\n', CHUNK)
    stack.canned.say(SSE_HEAD, *([b"".join(pieces)] if together else pieces))
    passed, error = broken_stream(stack, "canned")
    assert len(passed) == 2
    assert error["code"] == "upstream_protocol"


@pytest.mark.fault(
    "the model reports an error within its stream",
    "the event passes as it is; the outcome is `upstream_error`",
)
def test_an_error_event_after_the_first_one_is_the_clients_to_read(stack: Stack) -> None:
    stream = CHUNK + b'data: {"error":{"message":"overloaded"}}\n\n'
    before = stack.router.outcomes("upstream_error")
    stack.canned.say(SSE_HEAD, stream)
    assert stack.router.post(chat_body(PROMPT, model="canned", stream=True)).body == stream
    wait_until(lambda: stack.router.outcomes("upstream_error") == before + 1)


@pytest.mark.fault("an event of more than 1 MB", "an error event in its place")
def test_an_event_that_never_ends(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, CHUNK, *[b"data: " + b"x" * 100_000] * 20)
    passed, error = broken_stream(stack, "canned")
    assert len(passed) == 1
    assert "1,000,000 bytes" in error["message"]


@pytest.mark.fault(
    "the model falls silent in mid-stream",
    "an error event after `idle_s`; the model sees its connection close",
)
def test_silence_in_mid_stream(stack: Stack) -> None:
    """`idle_s` ends it: the client gets an error frame, the upstream sees its connection close."""
    stack.cheap.set_fault("")
    model = "impatient-canned"
    stack.canned.say(SSE_HEAD, CHUNK, then_hang=True)
    started = time.monotonic()
    passed, error = broken_stream(stack, model)
    assert (len(passed), error["code"], error["status"]) == (1, "upstream_timeout", 504)
    assert 0.5 <= time.monotonic() - started < PATIENCE_S
    assert stack.canned.closed_by_peer.wait(PATIENCE_S)


@pytest.mark.fault("a stream breaks under the OpenAI client", "it raises `APIError`")
@pytest.mark.parametrize("fault", ["die_after_chunks=3", "die_after_chunks=3;die_mid_event", "malformed"])
def test_the_openai_client_raises(stack: Stack, client: openai.OpenAI, fault: str) -> None:
    stack.cheap.set_fault(fault)
    stream = client.chat.completions.create(
        model="cheap", messages=[{"role": "user", "content": "Hello?"}], stream=True
    )
    with pytest.raises(openai.APIError, match=r"Model 'cheap'|The upstream"):
        list(stream)


@pytest.mark.fault(
    "the model keeps its connection open after `[DONE]`, and the client leaves",
    "outcome `ok`, tokens counted",
)
def test_a_stream_that_is_done_is_paid_for_also_when_the_client_is_quicker_than_the_upstream(stack: Stack) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\ndata: [DONE]\n\n'
    done, tokens = stack.router.outcomes("ok"), stack.router.metrics().total("llm_router_tokens_total", model="canned")
    stack.canned.say(SSE_HEAD, CHUNK + usage, then_hang=True)
    body = json.dumps(chat_body(PROMPT, model="canned", stream=True)).encode()
    with socket.create_connection(("127.0.0.1", stack.router.port), timeout=5) as connection:
        connection.sendall(
            b"POST /completions HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(65536)
    wait_until(lambda: stack.router.outcomes("ok") == done + 1)
    assert stack.router.metrics().total("llm_router_tokens_total", model="canned") == tokens + 8


@pytest.mark.fault("a stream dribbles: each event in time, the whole too late", "an error event after `total_s`")
def test_a_stream_that_takes_too_long(failover: StartFailover) -> None:
    with simulated_llm("dribble", any_model=True, tokens_per_s=5, answer_tokens=1000, answer_sigma=0) as llm:
        slow = {"api_base": llm.base_url, "price": {"input": 1, "output": 1}, "timeouts": {"idle_s": 1, "total_s": 1.5}}
        started = failover(models={"slow": slow})
        with counted(started.process, "upstream_error"):
            answer = started.ask(model="slow", stream=True)
        *passed, last = events(answer.body)
        assert len(passed) >= 3
        assert (answer.status, json.loads(last)["error"]["code"]) == (200, "upstream_timeout")
        llm.wait_for(lambda stats: stats["in_flight"] == 0)


@pytest.mark.fault(
    "a client opens a stream and does not read it",
    "it ends after `total_s`; the model sees the close, and its breaker stays closed",
)
def test_a_client_that_does_not_read(failover: StartFailover, servers: Servers) -> None:
    with simulated_llm("torrent", any_model=True, tokens_per_s=10_000, answer_tokens=100_000, answer_sigma=0) as llm:
        endless = {"api_base": llm.base_url, "price": {"input": 1, "output": 1}, "timeouts": {"total_s": 2}}
        started = failover(models={"endless": endless}, upstreams={"failures_to_open": 1})
        with counted(started.process, "upstream_error"), _asked(started.process.port, model="endless", stream=True):
            llm.wait_for(lambda stats: stats["in_flight"] == 1)
            llm.wait_for(lambda stats: stats["in_flight"] == 0)
            started.process.settles()
        assert started.counted("upstream_errors", model="endless", code="upstream_timeout") == 1
        assert started.process.metrics().total("llm_router_upstream_breaker_state", model="endless") == 0


@pytest.mark.fault(
    "the client leaves after the model's headers, before its first event", "the model sees the close within 1 s"
)
def test_a_client_that_leaves_between_headers_and_events(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, then_hang=True)
    with counted(stack.router, "client_cancelled"):
        with _asked(stack.router.port, model="canned", stream=True):
            wait_until(lambda: bool(stack.canned.heard))
        assert stack.canned.closed_by_peer.wait(PATIENCE_S)


@pytest.mark.fault("the client leaves while a fallback is asked", "the fallback sees the close within 1 s")
def test_a_client_that_leaves_during_a_fallback(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap={"fallbacks": ["expensive"]})
    servers.one.set_fault("status=503")
    servers.expensive.set_fault("hang")
    with counted(started.process, "client_cancelled"):
        with _asked(started.process.port, model="cheap"):
            servers.expensive.wait_for(lambda stats: stats["in_flight"] == 1)
        servers.expensive.wait_for(lambda stats: stats["in_flight"] == 0)


def _asked(port: int, **fields: Any) -> socket.socket:
    """Return a connection on which a chat has been asked; closing it is leaving."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(_request(**fields))
    return connection


def _request(**fields: Any) -> bytes:
    body = json.dumps(chat_body(PROMPT, **fields)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class FakeSilentLLM:
    """Takes every connection, reads, and never answers; knows how many are open."""

    def __init__(self) -> None:
        self.seen = 0
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        self.open += 1
        try:
            while await reader.read(65536):
                pass
        finally:
            self.open -= 1
            writer.close()


@pytest.mark.fault("10,000 clients leave before their answer", "no connection, descriptor or request is left over")
async def test_ten_thousand_clients_that_leave(failover: StartFailover) -> None:
    llm, count = FakeSilentLLM(), 10_000
    async with await asyncio.start_server(llm, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{port}/v1"
        silent = {"api_base": base, "price": {"input": 1, "output": 1}}
        started = failover(models={"silent": silent})  # in this thread: a child ends with the thread that started it
        before = psutil.Process(started.process.child.pid).num_fds()
        requests = [_request(model="silent", stream=stream) for stream in (False, True)]

        async def leave(number: int) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", started.process.port)
            writer.write(requests[number % 2])
            await asyncio.sleep(number % 5 * 0.004)  # the request may have got nowhere yet, or as far as it gets
            writer.transport.abort() if number % 3 else writer.close()

        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await leave(number)

        await asyncio.gather(*(client() for _ in range(40)))
        await asyncio.to_thread(wait_until, lambda: nothing_left(started.process, llm, before), deadline_s=30)
        assert await asyncio.to_thread(started.process.outcomes, "client_cancelled") > 0.9 * count
        assert started.process.connections_to(port) == 0
        assert llm.seen > count / 2


def nothing_left(router: RouterProcess, llm: FakeSilentLLM, descriptors: int) -> bool:
    """Return whether the router works on nothing and holds no more descriptors than so many, and two to spare."""
    try:
        in_flight = router.metrics().total("llm_router_in_flight_requests")
    except OSError:  # busy with those that have left
        return False
    return in_flight == 0 and llm.open == 0 and psutil.Process(router.child.pid).num_fds() <= descriptors + 2
