"""The router's end: what was asked for is answered first, as far as patience goes."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from loadtest.processes import Child
from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.faults.configuration import config
from tests.integration.conftest import closed_port
from tests.integration.router_process import (
    CANARY,
    REPOSITORY,
    Answer,
    RouterProcess,
    chat_body,
    events,
    has_ended,
    send,
    serve_command,
    wait_until,
    write_config,
)

TOKENS, TOKENS_PER_S = 30, 20


@pytest.fixture(scope="module")
def slow_llm() -> Iterator[SimulatedLLM]:
    """An LLM whose streams take one and a half seconds."""
    options = {"tokens_per_s": TOKENS_PER_S, "answer_tokens": TOKENS, "answer_sigma": 0}
    with simulated_llm("slow-sim", any_model=True, **options) as llm:
        yield llm


@contextmanager
def ending(llm: SimulatedLLM, directory: Path, *options: str, **server: Any) -> Iterator[RouterProcess]:
    """Start a router that the block brings to its end: exit 0, nobody left, and nothing in the log that must not be."""
    settings = config(llm, closed_port())
    settings["server"] = server
    router = RouterProcess.start(settings, directory, *options)
    family = psutil.Process(router.child.pid).children(recursive=True)
    try:
        yield router
        wait_until(lambda: router.child.poll() is not None, deadline_s=10)
        assert router.child.poll() == 0, router.log()
        wait_until(lambda: all(map(has_ended, family)), deadline_s=5)
        assert "Traceback" not in router.log()
        assert CANARY not in router.log()
    finally:
        router.child.stop()


def signalled(router: RouterProcess, number: signal.Signals = signal.SIGTERM) -> None:
    psutil.Process(router.child.pid).send_signal(number)


def streaming(
    clients: ThreadPoolExecutor, router: RouterProcess, llm: SimulatedLLM, count: int = 1
) -> list[Future[Answer]]:
    """Open so many streams and wait until the model is at work on all of them."""
    before = llm.stats()["requests"]
    streams = [clients.submit(router.post, chat_body("Count!", model="cheap", stream=True)) for _ in range(count)]
    llm.wait_for(lambda stats: stats["requests"] == before + count)
    return streams


def is_complete(stream: Answer) -> bool:
    return stream.status == 200 and events(stream.body)[-1] == b"[DONE]"


@pytest.mark.fault("SIGTERM with open streams", "each reaches its [DONE], nobody new is let in, exit 0")
@pytest.mark.parametrize("workers", [1, 2])
def test_open_streams_are_drained(slow_llm: SimulatedLLM, tmp_path: Path, workers: int) -> None:
    with ThreadPoolExecutor(4) as clients, ending(slow_llm, tmp_path, "--workers", str(workers)) as router:
        streams = streaming(clients, router, slow_llm, 4)
        signalled(router)
        wait_until(lambda: refuses_connections(router))
        assert not any(stream.done() for stream in streams)
        assert all(is_complete(stream.result()) for stream in streams)


def refuses_connections(router: RouterProcess) -> bool:
    try:
        send(router.port, "GET", "/health/live", timeout_s=2)
    except OSError:
        return True
    return False


@pytest.mark.fault("Ctrl-C in a terminal, which every worker hears", "streams reach their [DONE], exit 0")
def test_an_interrupt_of_the_whole_group_drains_too(slow_llm: SimulatedLLM, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as clients, ending(slow_llm, tmp_path, "--workers", "2") as router:
        streams = streaming(clients, router, slow_llm, 2)
        parent = psutil.Process(router.child.pid)
        for process in (*parent.children(), parent):
            process.send_signal(signal.SIGINT)
        assert all(is_complete(stream.result()) for stream in streams)


@pytest.mark.fault(
    "SIGTERM behind a load balancer that needs time to notice",
    "ready is 503 `stopping` at once; requests are answered during `stop_delay_s`",
)
def test_load_balancers_have_time_to_notice(slow_llm: SimulatedLLM, tmp_path: Path) -> None:
    with ending(slow_llm, tmp_path, stop_delay_s=3) as router:
        signalled(router)
        wait_until(lambda: router.get("/health/ready").status == 503)
        assert router.ready()["status"] == "stopping"
        assert router.get("/health/live").status == 200
        assert router.post(chat_body(model="cheap", max_tokens=1)).status == 200


@pytest.mark.fault("streams and waiting requests outlast `drain_s`", "an error frame, or 503 `stopping`; exit 0")
@pytest.mark.parametrize("workers", [1, 2])
def test_at_the_end_of_patience_everybody_is_told(tmp_path: Path, workers: int) -> None:
    options = {"tokens_per_s": 2, "answer_tokens": 200, "answer_sigma": 0}
    with (
        simulated_llm("endless-sim", any_model=True, **options) as llm,
        ThreadPoolExecutor(4) as clients,
        ending(llm, tmp_path, "--workers", str(workers), drain_s=0.5) as router,
    ):
        [stream] = streaming(clients, router, llm)
        whole = clients.submit(router.post, chat_body("Count!", model="cheap"))
        llm.wait_for(lambda stats: stats["in_flight"] == 2)
        client = openai.OpenAI(base_url=router.base_url, api_key=f"sk-{CANARY}", max_retries=0)
        messages: Any = [{"role": "user", "content": "Count!"}]
        parts = client.chat.completions.create(model="cheap", messages=messages, stream=True)
        next(iter(parts))
        signalled(router)
        with pytest.raises(openai.APIError, match="stopped"):
            list(parts)
        assert (whole.result().status, whole.result().error()["code"]) == (503, "stopping")
        *_, last = events(stream.result().body)
        assert b'"code": "stopping"' in last
        assert b"[DONE]" not in stream.result().body


@pytest.mark.fault("a second SIGTERM", "the drain ends at once, exit 0")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, workers: int) -> None:
    options = {"tokens_per_s": 2, "answer_tokens": 200, "answer_sigma": 0}
    with (
        simulated_llm("endless-sim", any_model=True, **options) as llm,
        ThreadPoolExecutor(1) as clients,
        ending(llm, tmp_path, "--workers", str(workers)) as router,
    ):
        [stream] = streaming(clients, router, llm)
        signalled(router)
        wait_until(lambda: refuses_connections(router))
        signalled(router)
        wait_until(lambda: router.child.poll() is not None)
        with pytest.raises((http.client.HTTPException, OSError, AssertionError)):
            assert is_complete(stream.result())


@pytest.mark.fault("the parent of the workers is killed", "the workers drain and end; the port is free")
def test_workers_without_a_parent_end(slow_llm: SimulatedLLM, tmp_path: Path) -> None:
    router = RouterProcess.start(config(slow_llm, closed_port()), tmp_path, "--workers", "2")
    try:
        workers = psutil.Process(router.child.pid).children()
        with ThreadPoolExecutor(1) as clients:
            [stream] = streaming(clients, router, slow_llm)
            signalled(router, signal.SIGKILL)
            assert is_complete(stream.result())
        wait_until(lambda: all(map(has_ended, workers)))
        assert refuses_connections(router)
    finally:
        router.child.stop()


@pytest.mark.fault("the parent of the workers is killed while they start", "the workers end, though none knew it alive")
def test_workers_that_start_without_a_parent_end(slow_llm: SimulatedLLM, tmp_path: Path) -> None:
    file, log = write_config(config(slow_llm, closed_port()), tmp_path), tmp_path / "router.log"
    for _ in range(3):
        child = Child.start("router", serve_command(file, "--workers", "2"), log_path=log, cwd=REPOSITORY)
        try:
            parent = psutil.Process(child.pid)
            wait_until(lambda parent=parent: len(parent.children()) == 2, deadline_s=30, every_s=0)  # type: ignore[misc]
            workers = parent.children()
            parent.kill()
            wait_until(lambda workers=workers: all(map(has_ended, workers)))  # type: ignore[misc]
        finally:
            child.stop()
