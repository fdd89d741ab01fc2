"""How often a client may ask, and for how many dollars, as the real OpenAI client meets it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from router.clients.keys import digest_of
from tests.faults.clients import (
    CLIENT_COST,
    LEFT,
    NEW,
    OPS,
    REFUSALS,
    TEAM,
    ask,
    asking,
    in_file,
    reload,
    settings_of,
    status_of,
    with_budget,
)
from tests.faults.conftest import StartRouter
from tests.faults.invariants import counted
from tests.integration.conftest import closed_port
from tests.integration.router_process import RouterProcess, chat_body, send, wait_until


@pytest.fixture(scope="module")
def slow() -> Iterator[SimulatedLLM]:
    """An LLM whose streams take a second and a half."""
    with simulated_llm("slow-sim", any_model=True, tokens_per_s=20, answer_tokens=30, answer_sigma=0) as llm:
        yield llm


@pytest.fixture
def start(start_router: StartRouter) -> StartRouter:
    def started(settings: dict[str, Any], *options: str) -> RouterProcess:
        router = start_router(settings, *options)
        router.key = OPS
        return router

    return started


# --- how often ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("more requests than the key's rate", "429 `rate_limit_exceeded` with OpenAI's headers; others go on")
def test_more_than_the_rate(start: StartRouter, llm: SimulatedLLM) -> None:
    router = start(settings_of(llm, rate="2/hour"))
    with asking(router) as client:
        messages: Any = [{"role": "user", "content": "Hello?"}]
        first = client.chat.completions.with_raw_response.create(model="cheap", messages=messages)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"].endswith("s")
        assert list(client.chat.completions.create(model="cheap", messages=messages, stream=True))
    with counted(router, "client_error"), pytest.raises(openai.RateLimitError) as caught:
        ask(router)
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
    headers = caught.value.response.headers
    assert 3500 < int(headers["retry-after"]) <= 3600
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert ask(router, OPS).choices
    assert router.metrics().total(REFUSALS, client="team", reason="rate_limit_exceeded") == 1


@pytest.mark.fault("OpenAI's client meets a 429 of its rate", "by `Retry-After` its second try succeeds")
def test_openai_s_client_waits_for_its_turn(start: StartRouter, llm: SimulatedLLM) -> None:
    router = start(settings_of(llm, rate="1/second"))
    for _ in range(3):
        assert ask(router, max_retries=2).choices


@pytest.mark.fault(
    "one key's requests meet several workers", "one rate for all of them: not one request more, not one less"
)
def test_a_rate_over_two_workers(start: StartRouter, llm: SimulatedLLM) -> None:
    router = start(settings_of(llm, rate="30/hour"), "--workers", "2")
    with ThreadPoolExecutor(8) as callers:
        statuses = list(callers.map(lambda _: status_of(router), range(90)))
    assert (statuses.count(200), statuses.count(429)) == (30, 60)


# --- for how much ------------------------------------------------------------------------------------------------


@pytest.mark.fault("a key has spent its budget", "429 `insufficient_quota`; OpenAI's client does not try again")
def test_a_spent_budget(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    router = start(with_budget(llm, tmp_path / "state", 1.0))
    spent = ask(router).usage.total_tokens
    called = llm.stats()["requests"]
    with counted(router, "client_error"), pytest.raises(openai.RateLimitError, match="00:00 UTC") as caught:
        ask(router, max_retries=2)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 86_400
    assert llm.stats()["requests"] == called
    page = router.metrics()
    assert page.total(CLIENT_COST, client="team") == spent
    assert send(router.port, "POST", "/v1/route", chat_body(), {"authorization": f"Bearer {TEAM}"}).status == 200
    assert ask(router, OPS).choices
    wait_until(lambda: (LEFT in router.metrics_text()) and router.metrics().total(LEFT, client="team") == 0)


@pytest.mark.fault("the router stops and starts again", "what was spent today stays spent")
def test_a_budget_over_a_restart(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    settings = with_budget(llm, tmp_path / "state", 1.0)
    first = RouterProcess.start(settings, tmp_path / "first")
    assert status_of(first) == 200
    first.stop()
    assert status_of(start(settings)) == 429


@pytest.mark.fault("the router is killed a moment after", "what was spent two seconds before is in the file")
def test_a_budget_over_a_kill(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    settings = with_budget(llm, tmp_path / "state", 1.0)
    first = RouterProcess.start(settings, tmp_path / "first")
    try:
        assert status_of(first) == 200
        wait_until(lambda: LEFT in first.metrics_text() and first.metrics().total(LEFT) == 0)
        psutil.Process(first.child.pid).kill()
        wait_until(lambda: first.child.poll() is not None)
    finally:
        first.child.stop()
    assert status_of(start(settings)) == 429


@pytest.mark.fault("one worker spends, the other is asked", "it knows within seconds; nothing is counted twice")
def test_a_budget_over_two_workers(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    router = start(with_budget(llm, tmp_path / "state", 1.0), "--workers", "2")
    assert status_of(router) == 200
    spent = router.metrics().total(CLIENT_COST, client="team")
    last = [0] * 12

    def all_know() -> bool:
        last[:] = [status_of(router) for _ in last]
        return set(last) == {429}

    wait_until(all_know)
    spent = router.metrics().total(CLIENT_COST, client="team")
    wait_until(lambda: in_file(tmp_path / "state") == pytest.approx(spent))


@pytest.mark.fault(
    "the file of spending is locked, then removed", "requests are answered, budgets hold; it is written later"
)
def test_a_ledger_that_cannot_be_written(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    state = tmp_path / "state"
    router = start(with_budget(llm, state, 100_000.0))
    with closing(sqlite3.connect(state / "spending.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert [status_of(router) for _ in range(3)] == [200] * 3
        wait_until(lambda: "spending cannot be written (database is locked)" in router.log(), deadline_s=15)
        holder.execute("ROLLBACK")
    spent = router.metrics().total(CLIENT_COST, client="team")
    wait_until(lambda: in_file(state) == pytest.approx(spent))
    (state / "spending.sqlite").unlink()
    assert status_of(router) == 200
    more = router.metrics().total(CLIENT_COST, client="team") - spent
    wait_until(lambda: (state / "spending.sqlite").exists() and in_file(state) == pytest.approx(more))


@pytest.mark.fault("a client leaves each stream before the usage", "it is charged what the answer was expected to cost")
def test_a_stream_that_is_left_is_charged(slow: SimulatedLLM, start: StartRouter, tmp_path: Path) -> None:
    router = start(with_budget(slow, tmp_path / "state", 100.0))
    with counted(router, "client_cancelled"), asking(router) as client:
        messages: Any = [{"role": "user", "content": "Hello?"}]
        stream = client.chat.completions.create(model="cheap", messages=messages, stream=True, max_tokens=300)
        next(iter(stream))
        stream.close()
    assert router.metrics().total(CLIENT_COST, client="team") > 256  # `expected_output_tokens`, and the prompt
    assert status_of(router) == 429


@pytest.mark.fault("a key's model cannot be reached, then refuses", "nobody answered, so nothing is charged")
def test_an_answer_that_never_began_costs_nothing(llm: SimulatedLLM, start: StartRouter, tmp_path: Path) -> None:
    settings = with_budget(llm, tmp_path / "state", 1.0)
    cheap = settings["models"]["cheap"]
    settings["models"] |= {"gone": cheap | {"api_base": f"http://127.0.0.1:{closed_port()}/v1"}}
    settings["clients"]["team"]["models"] = ["cheap", "gone"]
    router = start(settings)
    with counted(router, "upstream_error"):
        assert status_of(router, model="gone") == 502
    llm.set_fault("status=500")
    with counted(router, "upstream_5xx"):
        assert status_of(router) == 500
    llm.set_fault("")
    page = router.metrics()
    assert page.total(CLIENT_COST, client="team") == page.total("llm_router_usage_unknown_total") == 0
    assert status_of(router) == 200


@pytest.mark.fault("a client leaves the stream of a dearer model that stood in", "it is charged at that model's price")
def test_a_stream_of_a_stand_in_that_is_left_is_charged(slow: SimulatedLLM, start: StartRouter, tmp_path: Path) -> None:
    settings = with_budget(slow, tmp_path / "state", 100.0)
    free, gone = {"input": 0, "output": 0}, f"http://127.0.0.1:{closed_port()}/v1"
    settings["models"]["cheap"] |= {"api_base": gone, "price": free, "fallbacks": ["expensive"]}
    router = start(settings)
    with counted(router, "client_cancelled"), asking(router) as client:
        messages: Any = [{"role": "user", "content": "Hello?"}]
        stream = client.chat.completions.create(model="cheap", messages=messages, stream=True, max_tokens=300)
        next(iter(stream))
        stream.close()
    assert router.metrics().total(CLIENT_COST, client="team") > 256


@pytest.mark.fault("a reload while a key is at its limits", "requests and dollars that were counted stay counted")
def test_counts_outlast_a_reload(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    settings = with_budget(llm, tmp_path / "state", 1.0)
    settings["clients"]["rated"] = {"key_sha256": digest_of(NEW), "rate": "1/hour"}
    router = start(settings)
    assert (status_of(router), status_of(router, NEW)) == (200, 200)
    reload(router, settings | {"policies": settings["policies"] | {"one-more": {"type": "fixed", "model": "cheap"}}})
    assert (status_of(router), status_of(router, NEW)) == (429, 429)
    with_more = settings["clients"]["team"] | {"budget_per_day": 1_000_000.0}
    reload(router, settings | {"clients": settings["clients"] | {"team": with_more}})
    assert status_of(router) == 200
