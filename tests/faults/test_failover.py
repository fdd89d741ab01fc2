"""Models that fail before their answer has begun: who answers instead, and how much that may cost the upstreams."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.faults.failover import PROMPT, Servers, StartFailover, at
from tests.faults.invariants import counted
from tests.integration.canned_llm import canned_llm, whole
from tests.integration.conftest import closed_port
from tests.integration.router_process import Answer, chat_body, events, wait_until

ALWAYS = {"retry_budget": 1, "failures_to_open": 1_000_000}  # every failure is repeated, and none is held against it
NEVER = {"retry_budget": 0, "failures_to_open": 1_000_000}
TO_EXPENSIVE = {"fallbacks": ["expensive"]}
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


def nobody() -> dict[str, Any]:
    return {"api_base": f"http://127.0.0.1:{closed_port()}/v1"}


def fell_back(answer: Answer, reason: str) -> None:
    assert answer.status == 200, answer.body
    assert answer.header("x-router-model") == "expensive"
    assert answer.header("x-router-fallback") == f"cheap->expensive;reason={reason}"


# Another server of the model


@pytest.mark.fault("one server of a model refuses connections", "the others answer; no client sees an error")
def test_a_replica_that_is_down(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap={"replicas": [nobody(), *at(servers.two)["replicas"]]}, upstreams={"retry_budget": 0})
    answers = [started.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.header("x-router-fallback") for answer in answers} == {None}
    assert started.counted("upstream_retries", model="cheap", reason="upstream_connect") >= 5


@pytest.mark.fault("one server of a model answers 5xx", "another one is asked; the client sees its answer")
@pytest.mark.parametrize("stream", [False, True])
def test_a_replica_that_fails(failover: StartFailover, servers: Servers, stream: bool) -> None:
    started = failover(cheap=at(servers.one, servers.two), upstreams=ALWAYS)
    servers.one.set_fault("status=503")
    assert {started.ask(stream=stream).status for _ in range(6)} == {200}
    assert started.counted("upstream_retries", model="cheap", reason="upstream_5xx") == 3


@pytest.mark.fault("one server of a model hangs", "who has the fewest requests under way is asked: the others")
def test_a_replica_that_hangs(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap=at(servers.one, servers.two))
    before = servers.asked()
    servers.one.set_fault("delay_ms=3000")
    with ThreadPoolExecutor() as clients:
        slow = [clients.submit(started.ask) for _ in range(2)]
        servers.one.wait_for(lambda stats: stats["in_flight"] > 0)
        assert {started.ask().status for _ in range(20)} == {200}
        assert {future.result().status for future in slow} == {200}
    one, two, _ = (after - first for after, first in zip(servers.asked(), before, strict=True))
    assert one <= 2
    assert one + two == 22


@pytest.mark.fault("the only server of a model fails once", "it is asked once more; the client sees the answer")
@pytest.mark.parametrize("fault", ["status=500", "status=408", "die_after_chunks=5", "error_event"])
def test_a_single_failure(failover: StartFailover, servers: Servers, fault: str) -> None:
    started = failover()
    servers.one.set_fault(f"{fault};times=1")
    with counted(started.process, "ok"):
        answer = started.ask(stream=fault == "error_event")
    assert (answer.status, answer.header("x-router-model")) == (200, "cheap")
    assert started.counted("upstream_retries", model="cheap") == 1


# Another model


@pytest.mark.fault(
    "the model cannot be reached: refused, no such name, no room for a connection",
    "its fallback answers, as header, metrics and cost say",
)
@pytest.mark.parametrize("where", ["refused", "name", "full"])
def test_an_unreachable_model_with_a_fallback(failover: StartFailover, servers: Servers, where: str) -> None:
    with unreachable(where) as base:
        gone = {"replicas": [{"api_base": base}], "timeouts": {"connect_s": 0.5}, **TO_EXPENSIVE}
        started = failover(cheap=gone, upstreams=NEVER)
        fell_back(started.ask(), "upstream_connect")
        fell_back(started.ask(model="default", stream=True), "upstream_connect")
        page = started.process.metrics()
    assert started.fallbacks("upstream_connect") == 2
    assert page.total("llm_router_upstream_errors_total", model="cheap", code="upstream_connect") == 2
    assert page.total("llm_router_requests_total", model="expensive", outcome="ok") == 2
    assert page.total("llm_router_cost_dollars_total", model="expensive") > 0
    assert page.total("llm_router_cost_dollars_total", model="cheap") == 0


@contextmanager
def unreachable(where: str) -> Iterator[str]:
    """Give the base URL of a server that takes no connection."""
    host, port = "no-such-host.invalid" if where == "name" else "127.0.0.1", closed_port()
    with ExitStack() as held:
        if where == "full":
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            port = listener.getsockname()[1]
            for _ in range(3):  # more than the backlog takes; whoever comes next waits in vain
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
        yield f"http://{host}:{port}/v1"


@pytest.mark.fault("the model keeps answering 5xx", "it is asked twice, then its fallback answers")
def test_a_failing_model_with_a_fallback(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(cheap=TO_EXPENSIVE), servers.asked()
    servers.one.set_fault("status=503")
    fell_back(started.ask(), "upstream_5xx")
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [2, 0, 1]


@pytest.mark.fault("the model keeps answering 5xx, and nobody stands in for it", "its own error, with its status")
def test_a_failing_model_alone(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(), servers.asked()
    servers.one.set_fault("status=503;retry_after=0")
    with counted(started.process, "upstream_5xx"):
        answer = started.ask()
    assert (answer.status, answer.header("x-router-model"), answer.header("retry-after")) == (503, "cheap", "0")
    assert answer.json()["error"]["message"] == "one was told to answer 503"
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [2, 0, 0]


@pytest.mark.fault("the model hangs before its answer", "its fallback answers; the model sees its connection close")
@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_model_with_a_fallback(failover: StartFailover, servers: Servers, stream: bool) -> None:
    started = failover(cheap={"timeouts": {"first_byte_s": 0.5}, **TO_EXPENSIVE})
    before = servers.one.stats()
    servers.one.set_fault("hang;times=1")
    fell_back(started.ask(stream=stream), "upstream_ttft_timeout")
    after = servers.one.stats()
    assert after["requests"] == before["requests"] + 1  # it has had its time, and is not asked again
    servers.one.wait_for(lambda stats: stats["disconnects"] == before["disconnects"] + 1)


@pytest.mark.fault("all attempts together take longer than `total_s`", "504 `upstream_timeout`")
def test_the_deadline_covers_all_attempts(failover: StartFailover, servers: Servers) -> None:
    slow = {"timeouts": {"first_byte_s": 1.0, "total_s": 1.5}, **TO_EXPENSIVE}
    started = failover(cheap=slow, expensive={"timeouts": {"first_byte_s": 10}})
    servers.one.set_fault("hang;times=1")
    servers.expensive.set_fault("hang")
    with counted(started.process, "upstream_error"):
        answer = started.ask()
    assert (answer.status, answer.error()["code"]) == (504, "upstream_timeout")
    servers.expensive.wait_for(lambda stats: stats["in_flight"] == 0)


@pytest.mark.fault("a stream begins with an error", "its fallback answers; no client sees the error")
def test_a_stream_that_begins_with_an_error(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap=TO_EXPENSIVE)
    servers.one.set_fault("error_event")
    answer = started.ask(stream=True)
    fell_back(answer, "upstream_error")
    assert events(answer.body)[-1] == b"[DONE]"
    assert b"simulated_fault" not in answer.body


@pytest.mark.fault("a stream breaks after its first event", "an error event; nobody else is asked")
def test_what_has_begun_is_not_begun_again(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(cheap=TO_EXPENSIVE, upstreams=ALWAYS), servers.asked()
    servers.one.set_fault("die_after_chunks=1;times=1")
    with counted(started.process, "upstream_error"):
        answer = started.ask(stream=True)
    assert answer.header("x-router-model") == "cheap"
    assert b'"code": "upstream_protocol"' in events(answer.body)[-1]
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [1, 0, 0]


@pytest.mark.fault("the model refuses the request itself (4xx)", "its error reaches the client; nobody else is asked")
@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_request_at_fault_is_not_repeated(failover: StartFailover, servers: Servers, status: int) -> None:
    started, before = failover(cheap=TO_EXPENSIVE, upstreams=ALWAYS), servers.asked()
    servers.one.set_fault(f"status={status}")
    with counted(started.process, "upstream_4xx"):
        assert started.ask().status == status
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [1, 0, 0]


@pytest.mark.fault("the model and its fallback fail", "the last one's error, with its status and both names")
def test_when_everybody_fails(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap=TO_EXPENSIVE, upstreams=NEVER)
    servers.one.set_fault("status=500")
    servers.expensive.set_fault("status=502")
    with counted(started.process, "upstream_5xx"):
        answer = started.ask()
    assert (answer.status, answer.header("x-router-model")) == (502, "expensive")
    assert answer.header("x-router-fallback") == "cheap->expensive;reason=upstream_5xx"
    assert answer.json()["error"]["message"] == "dear was told to answer 502"


@pytest.mark.fault("a policy has fallbacks of its own", "they stand in for the model's")
def test_a_policy_s_own_fallbacks(failover: StartFailover, servers: Servers) -> None:
    policies = {
        "strict": {"type": "fixed", "model": "cheap", "fallbacks": []},
        "lenient": {"type": "fixed", "model": "cheap", "fallbacks": ["cheap", "expensive"]},
    }
    started = failover(policies=policies, default_policy="strict", upstreams=NEVER)
    servers.one.set_fault("status=500")
    assert started.ask(model="strict").status == 500
    fell_back(started.ask(model="lenient"), "upstream_5xx")


@pytest.mark.fault("a proxy before the model answers with a page of its own", "its status, in OpenAI's shape")
def test_an_error_in_another_shape(failover: StartFailover, servers: Servers) -> None:
    with canned_llm() as canned:
        head = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\nretry-after: 0\r\nconnection: close\r\n"
        canned.say(whole(b"<html>secret</html>", head))
        started = failover(models={"canned": {"api_base": canned.base_url, "price": {"input": 1, "output": 1}}})
        with counted(started.process, "upstream_5xx"):
            answer = started.ask(model="canned")
    assert (answer.status, answer.header("retry-after")) == (502, "0")
    error = answer.error()
    assert (error["code"], error["message"]) == ("upstream_5xx", "Model 'canned' answered 502.")


# Pauses and breakers


@pytest.mark.fault("the model answers 429, and has a fallback", "that answers until `Retry-After` is over")
def test_a_busy_model_with_a_fallback(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(cheap=TO_EXPENSIVE), servers.asked()
    servers.one.set_fault("status=429;retry_after=2;times=1")
    fell_back(started.ask(), "upstream_429")
    fell_back(started.ask(), "upstream_rate_limited")
    assert [after - first for after, first in zip(servers.asked(), before, strict=True)] == [1, 0, 2]
    wait_until(lambda: started.ask().header("x-router-model") == "cheap")


@pytest.mark.fault(
    "the model answers 429, and nobody stands in", "429 with its `Retry-After`; it is left alone so long"
)
def test_a_busy_model_alone(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(), servers.asked()
    servers.one.set_fault("status=429;retry_after=2;times=1")
    first, second = started.ask(), started.ask()
    assert (first.status, first.header("retry-after")) == (429, "2")
    assert (second.status, second.error()["code"]) == (429, "upstream_rate_limited")
    assert second.header("retry-after") in ("1", "2")
    assert servers.asked()[0] == before[0] + 1


@pytest.mark.fault("`Retry-After` is a date, by a clock that is a day ahead", "it counts from the answer's own date")
def test_retry_after_as_a_date(failover: StartFailover) -> None:
    there = datetime.now(UTC) + timedelta(days=1)
    dates = {"date": there, "retry-after": there + timedelta(seconds=30)}
    lines = "".join(f"{name}: {format_datetime(date, usegmt=True)}\r\n" for name, date in dates.items())
    with canned_llm() as canned:
        canned.say(whole(b'{"error":{}}', b"HTTP/1.1 429 Too Many Requests\r\n" + lines.encode()))
        started = failover(models={"canned": {"api_base": canned.base_url, "price": {"input": 1, "output": 1}}})
        assert started.ask(model="canned").header("retry-after") == format_datetime(dates["retry-after"], usegmt=True)
        answer = started.ask(model="canned")
        assert answer.error()["code"] == "upstream_rate_limited"
        assert 1 <= int(answer.header("retry-after") or 0) <= 30
        assert len(canned.heard) == 1


@pytest.mark.fault(
    "the model keeps failing",
    "its breaker opens: 503 `upstream_unavailable` with `Retry-After` at once; healed, it is asked again",
)
def test_a_model_that_keeps_failing_is_left_alone(failover: StartFailover, servers: Servers) -> None:
    started = failover(upstreams={"retry_budget": 0, "cooldown_s": 1.5})
    servers.one.set_fault("status=500")
    assert [started.ask().status for _ in range(5)] == [500] * 5
    before = servers.asked()[0]
    answer = started.ask()
    assert (answer.status, answer.error()["code"]) == (503, "upstream_unavailable")
    assert answer.header("retry-after") in ("1", "2")
    assert servers.asked()[0] == before
    assert started.process.metrics().total("llm_router_upstream_breaker_state", model="cheap", replica="1") == 2
    servers.heal()
    wait_until(lambda: started.ask().status == 200)
    assert started.process.metrics().total("llm_router_upstream_breaker_state", model="cheap", replica="1") == 0


@pytest.mark.fault(
    "the model never begins an answer within `total_s`", "504; its breaker opens like after other failures"
)
def test_a_model_that_is_always_too_late_is_left_alone(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap={"timeouts": {"total_s": 0.3}}, upstreams={"cooldown_s": 5, "failures_to_open": 3})
    servers.one.set_fault("hang")
    before = servers.asked()[0]
    answers = [started.ask(stream=stream) for stream in (False, True, False, True)]
    codes = [answer.error()["code"] for answer in answers]
    assert codes == [*["upstream_timeout"] * 3, "upstream_unavailable"]
    assert servers.asked()[0] == before + 3
    servers.heal()
    wait_until(lambda: started.ask().status == 200)


@pytest.mark.fault("the model keeps failing, and has a fallback", "that is asked at once")
def test_a_model_that_is_left_alone_is_passed_over(failover: StartFailover, servers: Servers) -> None:
    started = failover(cheap=TO_EXPENSIVE, upstreams={"retry_budget": 0, "cooldown_s": 30, "failures_to_open": 2})
    servers.one.set_fault("status=500")
    before = servers.asked()[0]
    for reason in ("upstream_5xx", "upstream_5xx", "upstream_unavailable", "upstream_unavailable"):
        fell_back(started.ask(), reason)
    assert servers.asked()[0] == before + 2


@pytest.mark.fault("many clients leave before the answer", "the model's breaker stays closed")
def test_clients_that_leave_are_no_failure_of_the_model(failover: StartFailover, servers: Servers) -> None:
    started = failover(upstreams={"failures_to_open": 1})
    servers.one.set_fault("hang")
    body = b"".join(_request(chat_body(PROMPT, model="cheap")))
    with counted(started.process, "client_cancelled", 10):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", started.process.port), timeout=5) as connection:
                connection.sendall(body)
                servers.one.wait_for(lambda stats: stats["in_flight"] == 1)
            servers.one.wait_for(lambda stats: stats["in_flight"] == 0)
    assert started.process.metrics().total("llm_router_upstream_breaker_state", model="cheap") == 0


def _request(body: dict[str, Any]) -> tuple[bytes, bytes]:
    sent = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(sent), sent


# Herds


@pytest.mark.fault("the model flaps: every second request fails", "it sees at most 1.2 times the requests")
def test_a_flapping_model(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(), servers.asked()[0]
    servers.one.set_fault("status=503;every=2")
    statuses = [started.ask().status for _ in range(200)]
    attempts = servers.asked()[0] - before
    assert 200 < attempts <= 240
    assert statuses.count(200) > 100


@pytest.mark.fault("a model fails under a herd of requests", "it sees at most 1.2 times the requests")
def test_a_herd_before_a_failing_model(failover: StartFailover, servers: Servers) -> None:
    started, before = failover(upstreams={"failures_to_open": 1_000_000}), servers.asked()[0]
    servers.one.set_fault("delay_ms=300;status=503")
    with ThreadPoolExecutor(50) as clients:
        statuses = set(clients.map(lambda _: started.ask().status, range(200)))
    assert statuses == {503}
    assert 200 < servers.asked()[0] - before <= 240
