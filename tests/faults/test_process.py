"""The router as a process: a set-up that cannot work does not start, and says why."""

from __future__ import annotations

import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil
import pytest

from loadtest.simulated_llm import SimulatedLLM
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.faults.sabotaged import sabotaged
from tests.integration.conftest import Stack, closed_port, stack_config
from tests.integration.router_process import CANARY, REPOSITORY, chat_body, refuses_to_start, serve_command, wait_until


@pytest.mark.fault("the port is taken", "the start stops and names the settings")
def test_a_taken_port_is_named_with_its_settings(llm: SimulatedLLM, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refuses_to_start(config(llm, closed_port()), tmp_path, "--port", str(port))
    [message] = [line for line in said.splitlines() if "WARNING" not in line]
    assert message.startswith(f"127.0.0.1:{port} is taken")
    assert all(setting in message for setting in ("--port", "LLM_ROUTER_PORT", "server.port"))


@pytest.mark.fault("a mistake in the configuration", "the start stops with file, line and key, and no value")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("models: {cheap: [\n", 2, ()),
        ("server:\n  prot: 8084\n", 2, ("server.prot",)),
        ("models:\n  cheap:\n    api_base: 7\n", 3, ("models.cheap.api_base",)),
        (
            f"models:\n  cheap:\n    api_base: http://127.0.0.1/v1\n    api_key: [{CANARY}]\n",
            4,
            ("models.cheap.api_key",),
        ),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: tuple[str, ...]) -> None:
    said = refuses_to_start(text, tmp_path)
    [told] = [told for told in said.splitlines() if f"router.yaml:{line}: " in told]
    assert all(word in told for word in words)


@pytest.mark.fault("no configuration file", "the start stops and names the file")
def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    command = serve_command(tmp_path / "absent.yaml")
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "absent.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.fault("the event loop is blocked for 400 ms", "counted; the log says where it hung")
def test_a_blocked_event_loop_is_reported(llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(config(llm, closed_port()), env=sabotaged(BLOCK_S=0.4))
    blocked = "llm_router_event_loop_blocked_total"
    before = router.metrics().total(blocked)
    psutil.Process(router.child.pid).send_signal(signal.SIGUSR1)
    wait_until(lambda: router.metrics().total(blocked) > before)
    wait_until(lambda: "the event loop was blocked for" in router.log())
    assert "sitecustomize.block_the_event_loop" in router.log()
    assert router.post(chat_body(model="cheap")).status == 200


@pytest.mark.fault("the clock jumps by a day, forth or back", "timeouts, durations and the event loop do not notice")
@pytest.mark.parametrize("seconds", [86_400, -86_400])
def test_the_clock_jumps(seconds: int, llm: SimulatedLLM, start_router: StartRouter) -> None:
    settings = config(llm, closed_port())
    settings["models"]["cheap"]["timeouts"] = {"first_byte_s": 5}
    router = start_router(settings, env=sabotaged(CLOCK_S=seconds))
    llm.set_fault("delay_ms=500;times=1")
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(router.post, chat_body("What is a lake?", model="cheap"))
        llm.wait_for(lambda stats: stats["in_flight"] == 1)
        psutil.Process(router.child.pid).send_signal(signal.SIGUSR2)
        answer = waiting.result()
    assert answer.status == 200
    assert 0 <= float(answer.header("x-router-overhead-ms") or -1) < 10_000
    llm.set_fault("hang;times=1")
    assert router.post(chat_body("What is a pond?", model="cheap")).status == 504
    page = router.metrics()
    assert 0 < page.total("llm_router_request_duration_seconds_sum") < 60
    assert page.total("llm_router_event_loop_lag_seconds_sum") < 60


@pytest.mark.fault(
    "the clock jumps by a day, forth or back, beside a real Triton",
    "prompts are scored as before; a classifier that hangs still falls back in time",
)
@pytest.mark.parametrize("seconds", [86_400, -86_400])
def test_the_classifier_s_deadline_does_not_notice_a_clock_that_jumps(
    seconds: int, stack: Stack, start_router: StartRouter
) -> None:
    settings = stack_config(stack.triton.grpc_url, stack.cheap, stack.expensive, stack.canned)
    settings["triton"]["deadline_ms"] = 1000
    router = start_router(settings, env=sabotaged(CLOCK_S=seconds))
    day = parsedate_to_datetime(router.get("/health/live").header("date") or "").date()
    psutil.Process(router.child.pid).send_signal(signal.SIGUSR2)
    wait_until(lambda: parsedate_to_datetime(router.get("/health/live").header("date") or "").date() != day)

    def decision(prompt: str) -> str | None:
        return router.post(chat_body(prompt)).header("x-router-decision")

    wait_until(lambda: decision("What is a fjord?") == "classifier")
    assert [decision(f"What is lake number {number}?") for number in range(10)] == ["classifier"] * 10
    triton = psutil.Process(stack.triton.pid)
    triton.suspend()
    try:
        assert decision("What is a pond?") == "fallback;reason=deadline"
    finally:
        triton.resume()
    wait_until(lambda: decision("What is a bay?") == "classifier")
