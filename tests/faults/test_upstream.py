"""What the client sees when the model behind the router misbehaves, and that nothing is left behind."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.invariants import PATIENCE_S
from tests.integration.canned_llm import JSON_HEAD, SSE_HEAD, whole
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, RouterProcess, chat_body

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
    assert error["message"] == "Model 'refused' cannot be reached: the connection was refused."
    assert took < PATIENCE_S


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
    assert 0.5 <= took < PATIENCE_S
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
