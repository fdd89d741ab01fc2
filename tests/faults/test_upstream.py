"""What the client sees when the model behind the router misbehaves, and that nothing is left behind."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import openai
import pytest

from tests.integration.canned_llm import JSON_HEAD, SSE_HEAD, whole
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, RouterProcess, chat_body, events, wait_until

PROMPT = f"Hello? {CANARY}"
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


def failed(router: RouterProcess, outcome: str, **fields: Any) -> tuple[int, dict[str, Any], float]:
    """Ask and return status, error and seconds, having checked that it was counted once, as `outcome`."""
    before = router.metrics()
    started = time.monotonic()
    answer = router.post(chat_body(PROMPT, **fields))
    took = time.monotonic() - started
    after = router.metrics()
    name = "llm_router_requests_total"
    assert after.total(name, outcome=outcome) == before.total(name, outcome=outcome) + 1
    assert after.total(name) == before.total(name) + 1
    assert answer.header("x-router-model") == fields["model"]
    assert answer.header("x-chosen-classifier") == fields["model"]
    return answer.status, answer.error(), took


@pytest.mark.fault("the model's port refuses connections", "502 `upstream_connect` within 2 s")
@pytest.mark.parametrize("stream", [False, True])
def test_refused(router: RouterProcess, stream: bool) -> None:
    status, error, took = failed(router, "upstream_error", model="refused", stream=stream)
    assert (status, error["code"]) == (502, "upstream_connect")
    assert took < 2


@pytest.mark.fault(
    "the model never answers",
    "504 `upstream_ttft_timeout` after `first_byte_s`; the model sees its connection close",
)
@pytest.mark.parametrize("stream", [False, True])
def test_silence_before_the_first_byte(stack: Stack, stream: bool) -> None:
    before = stack.cheap.stats()["disconnects"]
    stack.cheap.set_fault("hang;times=1")
    status, error, took = failed(stack.router, "upstream_error", model="impatient", stream=stream)
    assert (status, error["code"]) == (504, "upstream_ttft_timeout")
    assert 0.5 <= took < 2
    stack.cheap.wait_for(lambda stats: stats["disconnects"] == before + 1 and not stats["in_flight"])


@pytest.mark.fault("the model answers 4xx or 5xx", "its status, message and `Retry-After` reach the client")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "more"), [(400, ""), (401, ""), (404, ""), (429, ";retry_after=7"), (500, ""), (503, "")]
)
def test_the_upstreams_own_error_is_passed_on(stack: Stack, status: int, more: str, stream: bool) -> None:
    stack.cheap.set_fault(f"status={status}{more}")
    outcome = f"upstream_{status // 100}xx"
    before = stack.router.outcomes(outcome)
    answer = stack.router.post(chat_body(PROMPT, model="cheap", stream=stream))
    assert answer.status == status
    assert answer.json()["error"]["message"] == f"cheap-sim was told to answer {status}"
    assert answer.header("retry-after") == ("7" if more else None)
    assert answer.header("x-router-model") == "cheap"
    assert stack.router.outcomes(outcome) == before + 1


@pytest.mark.fault(
    "the model's error has a shape of its own",
    "status, body and retry headers stay as they came, byte for byte",
)
def test_the_upstreams_own_error_keeps_its_bytes(stack: Stack) -> None:
    body = b' {"error" :{"message":"caf\\u00e9","code":42}, "trace": [1.0] }\r\n'
    head = JSON_HEAD.replace(b"200 OK", b"418 I'm a teapot") + b"retry-after-ms: 12\r\nx-should-retry: false\r\n"
    stack.canned.say(whole(body, head))
    answer = stack.router.post(chat_body(PROMPT, model="canned"))
    assert (answer.status, answer.body) == (418, body)
    assert (answer.header("retry-after-ms"), answer.header("x-should-retry")) == ("12", "false")


@pytest.mark.fault(
    "the model answers with a redirect",
    "502 `upstream_protocol`; it is not followed, and the client does not see where it leads",
)
def test_a_redirect_is_neither_followed_nor_passed_on(stack: Stack) -> None:
    elsewhere = f"location: {stack.cheap.base_url}/chat/completions\r\n".encode()
    stack.canned.say(whole(b"", b"HTTP/1.1 307 Temporary Redirect\r\n" + elsewhere))
    before = stack.cheap.stats()["requests"]
    answer = stack.router.post(chat_body(PROMPT, model="canned"))
    assert (answer.status, answer.error()["code"]) == (502, "upstream_protocol")
    assert answer.header("location") is None
    assert stack.cheap.stats()["requests"] == before


@pytest.mark.fault("the model closes, or answers what is not HTTP", "502 `upstream_protocol`")
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"nonsense\r\n\r\n", JSON_HEAD + b"content-length: 9\r\n\r\n{"]
)
def test_what_is_not_an_http_answer(stack: Stack, answer: bytes) -> None:
    stack.canned.say(answer)
    status, error, _ = failed(stack.router, "upstream_error", model="canned")
    assert (status, error["code"]) == (502, "upstream_protocol")


@pytest.mark.fault("a whole answer breaks off", "502 `upstream_protocol`")
def test_an_answer_that_breaks_off(stack: Stack) -> None:
    stack.cheap.set_fault("die_after_chunks=20")
    status, error, _ = failed(stack.router, "upstream_error", model="cheap")
    assert (status, error["code"]) == (502, "upstream_protocol")


@pytest.mark.fault("an answer of more than 8 MB", "502 `upstream_protocol`")
def test_an_answer_over_the_limit(stack: Stack) -> None:
    stack.cheap.set_fault("huge")
    status, error, _ = failed(stack.router, "upstream_error", model="cheap")
    assert (status, error["code"]) == (502, "upstream_protocol")
    assert "8,000,000 bytes" in error["message"]


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
    assert 0.5 <= time.monotonic() - started < 2
    assert stack.canned.closed_by_peer.wait(1)


@pytest.mark.fault("a stream breaks under the OpenAI client", "it raises `APIError`")
@pytest.mark.parametrize("fault", ["die_after_chunks=3", "die_after_chunks=3;die_mid_event", "malformed"])
def test_the_openai_client_raises(stack: Stack, client: openai.OpenAI, fault: str) -> None:
    stack.cheap.set_fault(fault)
    stream = client.chat.completions.create(
        model="cheap", messages=[{"role": "user", "content": "Hello?"}], stream=True
    )
    with pytest.raises(openai.APIError, match=r"Model 'cheap'|The upstream"):
        list(stream)


@pytest.mark.fault("the model sends headers of its connection, account or origin", "they stay behind")
def test_headers_of_another_account_or_origin_stay_behind(stack: Stack) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: x-hop\r\nx-hop: 1\r\n"
        b"openai-organization: org\r\naccess-control-allow-origin: *\r\nx-kept: 1\r\n"
    )
    stack.canned.say(whole(b"{}", head))
    names = {name for name, _ in stack.router.post(chat_body(PROMPT, model="canned")).headers}
    assert "x-kept" in names
    assert not names & {"x-hop", "openai-organization", "access-control-allow-origin"}


@pytest.mark.fault("the model sends headers and nothing more", "504 `upstream_ttft_timeout`")
def test_headers_and_then_silence_is_no_first_byte(stack: Stack) -> None:
    stack.canned.say(SSE_HEAD, then_hang=True)
    answer = stack.router.post(chat_body(PROMPT, model="impatient-canned", stream=True))
    assert (answer.status, answer.error()["code"]) == (504, "upstream_ttft_timeout")


@pytest.mark.fault("the model refuses by an event stream", "its status and `Retry-After` reach the client")
def test_an_upstream_s_refusal_by_event_stream_keeps_its_status(stack: Stack) -> None:
    head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/event-stream\r\nretry-after: 7\r\n"
    stack.canned.say(whole(b'data: {"error":{}}\n\n', head))
    answer = stack.router.post(chat_body(PROMPT, model="canned", stream=True))
    assert (answer.status, answer.header("retry-after")) == (429, "7")


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
    wait_until(lambda: stack.router.outcomes("ok") == done + 1, deadline_s=2)
    assert stack.router.metrics().total("llm_router_tokens_total", model="canned") == tokens + 8
