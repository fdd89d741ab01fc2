"""A worker dies, hangs or starves: the others go on, and it is replaced."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from threading import Event
from typing import Any

import psutil
import pytest

from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.integration.conftest import closed_port
from tests.integration.router_process import RouterProcess, chat_body, events, send, wait_until

REQUESTS = "llm_router_requests_total"
BACK_S = 5.0
"""Generous: a successor answers after some 0.1 s, and each look meets it by chance only."""


@pytest.fixture(scope="module")
def slow() -> Iterator[SimulatedLLM]:
    """An LLM whose streams take one and a half seconds."""
    with simulated_llm("slow-sim", any_model=True, tokens_per_s=20, answer_tokens=30, answer_sigma=0) as llm:
        yield llm


def workers_of(router: RouterProcess) -> list[psutil.Process]:
    return psutil.Process(router.child.pid).children()


def admin(router: RouterProcess) -> int:
    return int(router.log().partition("dashboard at http://127.0.0.1:")[2].partition("/")[0])


def is_replaced(router: RouterProcess, victim: psutil.Process) -> bool:
    """Return whether the other worker and a new one are there, and this look was answered by the new one."""
    by_age = sorted(workers_of(router), key=psutil.Process.create_time)
    try:
        answered = send(admin(router), "GET", "/admin/live", timeout_s=5).json()["worker"]
    except (OSError, HTTPException):
        return False
    return len(by_age) == 2 and victim not in by_age and answered == by_age[-1].pid


@pytest.mark.fault(
    "a worker is killed under load",
    "only what it was answering is lost; a successor is there at once; no counter decreases",
)
def test_a_killed_worker_is_replaced(llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(config(llm, closed_port()), "--workers", "2")
    over, lost, counts = Event(), [], [0.0]

    def ask() -> None:
        while not over.is_set():
            try:
                assert router.post(chat_body("Hello?", model="cheap")).status == 200
            except (OSError, HTTPException) as error:
                lost.append(error)

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            for _ in range(3):
                count_until(router, counts, more=20)
                victim = min(workers_of(router), key=psutil.Process.create_time)
                victim.kill()
                wait_until(lambda victim=victim: is_replaced(router, victim), deadline_s=BACK_S)  # type: ignore[misc]
                count_until(router, counts, more=20)
        finally:
            over.set()
        for one in asking:
            one.result()
    assert len(lost) <= 3 * 5  # four clients and a scrape at a time
    assert router.log().count("ended with status -9; it is replaced") == 3


def count_until(router: RouterProcess, counts: list[float], *, more: int) -> None:
    """Scrape until so many more requests are counted; no scrape shows fewer than the one before."""
    enough = counts[-1] + more

    def counted() -> bool:
        try:
            now = router.metrics().total(REQUESTS)
        except (OSError, HTTPException):  # the scrape met the victim
            return False
        assert now >= counts[-1], "a counter decreased"
        counts.append(now)
        return now >= enough

    wait_until(counted)


@pytest.mark.fault("a worker is killed while it streams", "its gauges go with it; other streams reach their [DONE]")
def test_the_gauges_of_the_dead_vanish(slow: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(config(slow, closed_port()), "--workers", "2")
    with ThreadPoolExecutor(8) as clients:
        streams = [clients.submit(stream, router) for _ in range(8)]
        slow.wait_for(lambda stats: stats["in_flight"] == 8)
        assert router.metrics().total("llm_router_in_flight_requests") == 8
        shares = {one: connections(one, slow.port) for one in workers_of(router)}
        victim = max(shares, key=lambda one: shares[one])
        victim.kill()
        complete = [one.result() for one in streams]
    assert complete.count(True) == 8 - shares[victim] < 8
    wait_until(lambda: router_says(router) == 0)  # what the dead had would stay for ever


def router_says(router: RouterProcess) -> float:
    return router.metrics().total("llm_router_in_flight_requests")


def connections(process: psutil.Process, port: int) -> int:
    return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections("tcp"))


def stream(router: RouterProcess) -> bool:
    try:
        body: Any = router.post(chat_body("Count!", model="cheap", stream=True)).body
    except (OSError, HTTPException):
        return False
    return body.endswith(b"\n\n") and events(body)[-1] == b"[DONE]"


@pytest.mark.fault("every worker is killed at once", "all are replaced; requests succeed again within two seconds")
def test_all_workers_die(llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(config(llm, closed_port()), "--workers", "3")
    for worker in workers_of(router):
        worker.send_signal(signal.SIGKILL)
    wait_until(lambda: len(workers_of(router)) == 3)
