"""More than the router can do: what it takes on it answers, the rest hears so at once."""

from __future__ import annotations

import json
import select
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from typing import Any

import openai
import psutil
import pytest
import uvloop

from loadtest.constant_rate import Result, closed_loop, open_loop, post
from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.faults.invariants import PATIENCE_S
from tests.faults.sabotaged import sabotaged
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, CHAT, RouterProcess, chat_body, send, wait_until

TTFT_S = 0.2
REFUSED = "llm_router_refused_requests_total"


@pytest.fixture(scope="module")
def slow() -> Iterator[SimulatedLLM]:
    """An LLM that answers after a fifth of a second, however many ask."""
    with simulated_llm("slow-sim", any_model=True, ttft_ms=1000 * TTFT_S, answer_tokens=5, answer_sigma=0) as llm:
        yield llm


@pytest.fixture(scope="module")
def chatty() -> Iterator[SimulatedLLM]:
    """An LLM whose streams come as fast as the processor can."""
    with simulated_llm("chatty-sim", any_model=True, answer_tokens=30, answer_sigma=0) as llm:
        yield llm


def settings(llm: SimulatedLLM, **server: Any) -> dict[str, Any]:
    """A router that asks no classifier: what is looked at is the router."""
    policies = {"default": {"type": "fixed", "model": "cheap"}}
    return {**config(llm, closed_port()), "policies": policies, "server": server}


def offered(router: RouterProcess, rate: float, seconds: float, **fields: Any) -> Result:
    request = post(CHAT, json.dumps(chat_body("Hello?", **fields)).encode())
    # One new connection is accepted in a turn of the loop: under such a load some wait for it for longer than 10 s.
    return uvloop.run(open_loop(router.port, request, rate=rate, seconds=seconds, patience_s=60.0))


@pytest.mark.fault(
    "five times as many requests as `max_in_flight` allows",
    "exactly as many as it allows are let in and answered; the rest get a 503 without waiting for them",
)
def test_goodput_holds_at_five_times_the_capacity(slow: SimulatedLLM, start_router: StartRouter) -> None:
    in_flight = 10
    router = start_router(settings(slow, max_in_flight=in_flight))
    with ExitStack() as clients:
        slow.set_fault("hang")
        clients.callback(slow.set_fault, "")
        asking = [clients.enter_context(asked(router)) for _ in range(5 * in_flight)]
        for _ in range(4 * in_flight):
            refused, _, _ = select.select(asking, [], [], PATIENCE_S)
            assert refused[0].recv(12) == b"HTTP/1.1 503"
            asking.remove(refused[0])
        slow.wait_for(lambda stats: stats["in_flight"] == in_flight)
    router.settles()

    before = slow.stats()["requests"]
    result = offered(router, 5 * in_flight / TTFT_S, 4)
    assert set(result.statuses) == {200, 503}
    assert slow.stats()["requests"] - before == result.statuses[200], "who is let in is answered"
    page = router.metrics()
    assert page.total(REFUSED, reason="in_flight") == 4 * in_flight + result.statuses[503]
    assert page.total("llm_router_requests_total", outcome="overloaded") == page.total(REFUSED)


def asked(router: RouterProcess) -> socket.socket:
    """Return a connection on which a request is on its way."""
    connection = socket.create_connection(("127.0.0.1", router.port))
    connection.sendall(post(CHAT, json.dumps(chat_body("Hello?")).encode()))
    return connection


@pytest.mark.fault("a request beyond the limit", "503 `overloaded` before its body is read; told when to return")
def test_what_a_refused_client_is_told(slow: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings(slow, max_in_flight=1))
    with occupied(router, slow):
        asked = slow.stats()["requests"]
        answers = [router.post(chat_body(CANARY)) for _ in range(20)]
        for answer in answers:
            assert (answer.status, answer.error()["code"]) == (503, "overloaded")
            exact_s = int(answer.header("retry-after-ms") or 0) / 1000
            assert 0.5 <= exact_s <= int(answer.header("retry-after") or 0) <= 3
        assert len({answer.header("retry-after-ms") for answer in answers}) > 10, "all would return at the same time"
        assert slow.stats()["requests"] == asked

        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", router.port), timeout=5) as connection:
            connection.sendall(head.encode())  # and no body
            assert connection.recv(100).startswith(b"HTTP/1.1 503")
    assert router.post(chat_body()).status == 200


@contextmanager
def occupied(router: RouterProcess, llm: SimulatedLLM) -> Iterator[None]:
    """Hold the only place by a request that has no answer."""
    llm.set_fault("hang;times=1")
    try:
        with asked(router):
            llm.wait_for(lambda stats: stats["in_flight"] > 0)
            yield
    finally:
        llm.set_fault("")
    router.settles()


@pytest.mark.fault("the router is full", "health and metrics still answer; the openai client's retry succeeds")
def test_a_full_router_can_be_looked_at_and_retried(slow: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings(slow, max_in_flight=1))
    with ThreadPoolExecutor(1) as clients:
        with occupied(router, slow):
            for path in ("/health/live", "/health/ready", "/metrics", "/config", "/v1/models"):
                assert router.get(path).status == 200
            client = openai.OpenAI(base_url=router.base_url, api_key="sk-any", max_retries=20)
            messages: Any = [{"role": "user", "content": "Hello?"}]
            retried = clients.submit(client.chat.completions.create, model="auto", messages=messages)
            wait_until(lambda: router.metrics().total(REFUSED) > 0)
        assert retried.result().choices


@pytest.mark.fault(
    "more streams than the processor can pass on",
    "fewer are let in while the event loop is late, and those are whole; as many as before once it is on time",
)
def test_a_late_event_loop_sheds_load(chatty: SimulatedLLM, start_router: StartRouter) -> None:
    most = 1000
    router = start_router(settings(chatty, max_lag_ms=10, max_in_flight=most))
    statuses: Counter[int] = Counter()
    heavy = {str(i): {"a": i} for i in range(3000)}  # to read it takes the router longer than its LLM
    for rate in (300, 600, 1200, 2400):  # how much is too much depends on the processor
        statuses += Counter(offered(router, rate, 4, stream=True, metadata=heavy).statuses)
        if statuses[503]:
            break
    assert set(statuses) <= {200, 503}
    assert statuses[200] > 0
    page = router.metrics()
    assert page.total(REFUSED) == statuses[503]
    assert page.total(REFUSED, reason="event_loop") > 0
    assert page.total("llm_router_event_loop_lag_seconds_count") > 0
    wait_until(lambda: router.metrics().total("llm_router_in_flight_limit") == most, deadline_s=60)


@pytest.mark.fault(
    "more requests at once than can be begun within `max_wait_ms`",
    "those in line are answered; who would join it gets a 503",
)
def test_a_long_line_sheds_load(llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings(llm, max_wait_ms=1))
    request = post(CHAT, json.dumps(chat_body("Hello?")).encode())
    result = uvloop.run(closed_loop(router.port, request, clients=400, seconds=2.0))
    assert set(result.statuses) == {200, 503}
    assert router.metrics().total(REFUSED, reason="line") > 0
    assert router.post(chat_body()).status == 200
    wait_until(lambda: not clients_of(router))  # what was refused often is read later, also its end


def clients_of(router: RouterProcess) -> list[str]:
    connections = psutil.Process(router.child.pid).net_connections()
    return [one.status for one in connections if one.laddr.port == router.port and one.raddr]


FEW_FILES = 128


@pytest.mark.fault("idle connections hold every open file", "nothing crashes; once they close, all is well")
@pytest.mark.parametrize("workers", [1, 2])
def test_idle_connections_take_every_file(llm: SimulatedLLM, start_router: StartRouter, workers: int) -> None:
    router = start_router(settings(llm), "--workers", str(workers), env=sabotaged(FILES=FEW_FILES))
    assert f"only {FEW_FILES} open files are allowed" in router.log()
    with ExitStack() as idle:
        for _ in range(2 * FEW_FILES * workers):
            connection = idle.enter_context(socket.socket())
            connection.settimeout(1)
            try:
                connection.connect(("127.0.0.1", router.port))
            except OSError:
                break
        for _ in range(3):
            with suppress(OSError, HTTPException):  # it waits for a file, or was closed: no answer, but no crash either
                assert send(router.port, "POST", CHAT, chat_body(), timeout_s=1).status in (200, 503)
    wait_until(lambda: succeeds(router))
    assert psutil.Process(router.child.pid).is_running()
    assert "ended with status" not in router.log()


def succeeds(router: RouterProcess) -> bool:
    try:
        return send(router.port, "POST", CHAT, chat_body(), timeout_s=2).status == 200
    except (OSError, HTTPException):
        return False


@pytest.mark.fault("more requests than open files allow", "503 `overloaded` beyond what they allow")
def test_requests_beyond_the_open_files(slow: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings(slow), env=sabotaged(FILES=FEW_FILES))
    with ThreadPoolExecutor(60) as clients:  # with more, connections alone would take every file
        statuses = list(clients.map(lambda _: router.post(chat_body()).status, range(300)))
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 20


@pytest.mark.fault(
    "clients that send again at once, whatever they are told",
    "a thousand refusals a second are answered at once; beyond that a refused connection is read the later",
)
def test_refusals_leave_time_for_answers(slow: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings(slow, max_in_flight=1))
    clients, seconds, request = 64, 2.0, post(CHAT, json.dumps(chat_body("Hello?")).encode())
    with occupied(router, slow):
        result = uvloop.run(closed_loop(router.port, request, clients=clients, seconds=seconds))
        assert set(result.statuses) == {503}
        assert 2 * clients < result.statuses[503] <= 1000 * seconds + 20 + clients
    assert router.post(chat_body()).status == 200
