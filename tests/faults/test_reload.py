"""A new configuration under a running router: all of it or none of it, in every worker, and no request is lost."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, Answer, RouterProcess, chat_body, events, send, tiers, wait_until
from tests.integration.router_process import write_config as write
from tests.tiny_classifier import render_spec, write_tiny_repository, write_tiny_version

RELOADS = "llm_router_config_reloads_total"


def admin_port(router: RouterProcess) -> int:
    [port] = re.findall(r"dashboard at http://127\.0\.0\.1:(\d+)/dashboard", router.log())
    return int(port)


def reload(router: RouterProcess, settings: Mapping[str, Any] | str | None = None) -> Answer:
    """POST /admin/reload, after writing the file anew where there is something to write."""
    if settings is not None:
        write(settings, router.child.log_path.parent)
    return send(admin_port(router), "POST", "/admin/reload")


def hang_up(router: RouterProcess, settings: Mapping[str, Any] | str) -> None:
    """Write the file anew and send SIGHUP."""
    write(settings, router.child.log_path.parent)
    psutil.Process(router.child.pid).send_signal(signal.SIGHUP)


def reloads(router: RouterProcess, result: str) -> float:
    return router.metrics().total(RELOADS, result=result)


def agree(router: RouterProcess) -> bool:
    page = router.metrics()
    return page.total("llm_router_config_hash") == page.total("llm_router_config_hash_min")


def with_default(settings: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "policies": {"default": policy}}


def model_of(router: RouterProcess, model: str = "auto") -> str | None:
    return router.post(chat_body(model=model)).header("x-router-model")


@pytest.fixture
def settings(llm: SimulatedLLM) -> dict[str, Any]:
    """All goes to the cheap model: nobody can score."""
    return with_default(config(llm, closed_port()), {"type": "fixed", "model": "cheap"})


@pytest.fixture
def changed(settings: dict[str, Any]) -> dict[str, Any]:
    return with_default(settings, {"type": "fixed", "model": "expensive"})


@pytest.fixture(scope="module")
def slow() -> Iterator[SimulatedLLM]:
    """An LLM whose streams take one and a half seconds."""
    with simulated_llm("slow-sim", any_model=True, tokens_per_s=20, answer_tokens=30, answer_sigma=0) as llm:
        yield llm


@contextmanager
def under_load(router: RouterProcess, statuses: list[int]) -> Iterator[None]:
    """Ask all the time from four clients; note every status, 0 for a connection that broke."""
    over = Event()

    def ask() -> None:
        while not over.is_set():
            try:
                statuses.append(router.post(chat_body("Hello?")).status)
            except OSError:
                statuses.append(0)

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            wait_until(lambda: len(statuses) > 20)
            yield
        finally:
            over.set()
        for one in asking:
            one.result()


@pytest.mark.fault(
    "the configuration changes, ten times under load", "SIGHUP puts it in force in every worker; no request is lost"
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_loses_no_request(
    settings: dict[str, Any], changed: dict[str, Any], start_router: StartRouter, workers: int
) -> None:
    router = start_router(settings, "--workers", str(workers))
    assert model_of(router) == "cheap"
    statuses: list[int] = []
    with under_load(router, statuses):
        for number in range(10):
            before = reloads(router, "ok")
            hang_up(router, settings if number % 2 else changed)
            wait_until(lambda before=before: reloads(router, "ok") == before + workers)  # type: ignore[misc]
            assert agree(router)
    assert {model_of(router) for _ in range(8)} == {"cheap"}
    assert set(statuses) == {200}


@pytest.mark.fault("POST /admin/reload", "200 names what changed; every worker follows")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_by_request(
    settings: dict[str, Any], changed: dict[str, Any], start_router: StartRouter, workers: int
) -> None:
    router = start_router(settings, "--workers", str(workers))
    before = router.metrics().total("llm_router_config_hash")
    answer = reload(router, changed)
    assert answer.status == 200, answer.body
    told = answer.json()
    assert told["changed"] == ["policies.default.model"]
    assert told["needs_restart"] == []
    wait_until(lambda: agree(router) and router.metrics().total("llm_router_config_hash") == told["config_hash"])
    assert told["config_hash"] != before
    assert {model_of(router) for _ in range(8)} == {"expensive"}
    assert reload(router).json()["changed"] == []


BROKEN = {
    "no YAML": ("models: [\n", ["router.yaml:2"]),
    "mistakes": (
        f"server: {{prot: 1}}\nmodels:\n  cheap: {{api_base: ftp://x, api_key: '{CANARY} x'}}\npolicies: {{}}\n",
        ["router.yaml:1: server.prot", "router.yaml:3: models.cheap.api_base", "router.yaml:3: models.cheap.api_key"],
    ),
    "an unset variable": ("models: {cheap: {api_base: '${NOT_SET_ANYWHERE}'}}\n", ["NOT_SET_ANYWHERE"]),
    "empty": ("", ["router.yaml"]),
}


@pytest.mark.fault(
    "a broken file at a reload", "the old configuration stays in every worker; 400 tells every mistake; counted"
)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_changes_nothing(settings: dict[str, Any], start_router: StartRouter, name: str) -> None:
    text, told = BROKEN[name]
    router = start_router(settings, "--workers", "2")
    before = router.metrics().total("llm_router_config_hash")
    answer = reload(router, text)
    assert answer.status == 400
    error = answer.error()
    assert error["code"] == "invalid_configuration"
    assert all(words in error["message"] for words in told), error["message"]
    hang_up(router, text)
    wait_until(lambda: reloads(router, "rejected") == 3)  # the worker that was asked, and both that were told
    assert {model_of(router) for _ in range(8)} == {"cheap"}
    assert agree(router)
    assert router.metrics().total("llm_router_config_hash") == before
    assert told[0] in router.log()


@pytest.mark.fault("the file is gone at a reload", "the old configuration stays; the log names the file")
def test_a_file_that_is_gone(settings: dict[str, Any], start_router: StartRouter) -> None:
    router = start_router(settings)
    (router.child.log_path.parent / "router.yaml").unlink()
    answer = reload(router)
    assert (answer.status, answer.error()["code"]) == (400, "invalid_configuration")
    assert model_of(router) == "cheap"


@pytest.mark.fault("a worker dies after a reload, or after one that was rejected", "its successor has what is in force")
def test_a_new_worker_has_the_newest_usable_configuration(
    settings: dict[str, Any], changed: dict[str, Any], start_router: StartRouter
) -> None:
    router = start_router(settings, "--workers", "2")
    parent = psutil.Process(router.child.pid)
    hang_up(router, changed)
    wait_until(lambda: reloads(router, "ok") == 2)
    hang_up(router, "models: [\n")
    wait_until(lambda: reloads(router, "rejected") == 2)
    for worker in parent.children():
        worker.kill()
        wait_until(lambda worker=worker: not worker.is_running())  # type: ignore[misc]
        wait_until(lambda: len(parent.children()) == 2)
    wait_until(lambda: answers(router))
    assert {model_of(router) for _ in range(8)} == {"expensive"}
    wait_until(lambda: agree(router))


def answers(router: RouterProcess) -> bool:
    try:
        return router.get("/health/live").status == 200
    except OSError:
        return False


@pytest.mark.fault("a reload while a stream is open", "the stream reaches its [DONE] on the old configuration")
def test_a_stream_outlives_its_configuration(slow: SimulatedLLM, start_router: StartRouter) -> None:
    settings = with_default(config(slow, closed_port()), {"type": "fixed", "model": "cheap"})
    router = start_router(settings)
    with ThreadPoolExecutor(1) as clients:
        stream = clients.submit(router.post, chat_body("Count!", model="expensive", stream=True))
        slow.wait_for(lambda stats: stats["in_flight"] == 1)
        del settings["models"]["expensive"]
        assert "models.expensive" in reload(router, settings).json()["changed"]
        assert router.post(chat_body(model="expensive", max_tokens=1)).status == 404
        assert not stream.done()
        assert events(stream.result().body)[-1] == b"[DONE]"
        wait_until(lambda: router.connections_to(slow.port) <= 1)


@pytest.mark.fault(
    "a reload changes where the router listens", "it says that this needs a restart; the rest is in force"
)
def test_what_only_a_start_reads(settings: dict[str, Any], changed: dict[str, Any], start_router: StartRouter) -> None:
    router = start_router(settings)
    changed["server"] = {"workers": 3, "port": 1, "drain_s": 7}
    told = reload(router, changed).json()
    assert sorted(told["changed"]) == ["policies.default.model", "server.drain_s", "server.port", "server.workers"]
    assert sorted(told["needs_restart"]) == ["server.port", "server.workers"]
    assert "only a restart takes over: server.port, server.workers" in router.log()
    in_force = router.get("/config").json()["server"]
    assert (in_force["port"], in_force["workers"], in_force["drain_s"]) == (router.port, 1, 7)
    assert model_of(router) == "expensive"


@pytest.mark.fault("a key changes", "the next request has the new one; neither is told")
def test_a_key_is_rotated(settings: dict[str, Any], llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(settings)
    settings["models"]["cheap"] = {**settings["models"]["cheap"], "api_key": f"sk-new-{CANARY}"}
    told = reload(router, settings)
    assert told.json()["changed"] == ["models.cheap.replicas[0].api_key"]
    assert CANARY.encode() not in told.body
    assert model_of(router) == "cheap"
    assert llm.requests()[-1].headers["authorization"] == f"Bearer sk-new-{CANARY}"


@pytest.mark.fault("a reload of policies only", "known scores stay known")
def test_the_cache_outlives_a_reload(triton: LocalTriton, llm: SimulatedLLM, start_router: StartRouter) -> None:
    port = int(triton.grpc_url.rsplit(":", 1)[1])
    settings = config(llm, port, deadline_ms=5000)
    router = start_router(settings)
    assert source(router) == "classifier"
    assert source(router) == "cache"
    reload(router, with_default(settings, tiers("cheap", "expensive", start=0.4)))
    assert source(router) == "cache"
    reload(router, config(llm, port, deadline_ms=5001))
    assert source(router) == "classifier"


def source(router: RouterProcess) -> str | None:
    return router.post(chat_body("What is a fjord?")).header("x-router-decision")


@pytest.mark.fault("a new policy needs what the served model lacks", "the reload is rejected and names policy and head")
def test_a_policy_that_the_classifier_cannot_serve(
    llm: SimulatedLLM, start_router: StartRouter, tmp_path: Path
) -> None:
    models = write_tiny_repository(tmp_path / "models")
    spec = write_tiny_version(models / "prompt_classifier" / "1", heads=("outcomes",))
    for path in (models / "prompt_classifier").rglob("*.pbtxt"):
        path.write_text(render_spec(path.read_text(), spec))
    with LocalTriton.start(tmp_path / "triton", models=models) as triton:
        settings = config(llm, int(triton.grpc_url.rsplit(":", 1)[1]), deadline_ms=5000)
        router = start_router(settings)
        answer = reload(router, with_default(settings, {**tiers("cheap", "expensive"), "score": "reasoning"}))
        assert (answer.status, answer.error()["code"]) == (400, "invalid_configuration")
        assert "policies.default: score 'reasoning' needs a dimensions head" in answer.error()["message"]
        assert source(router) == "classifier"


@pytest.mark.fault("reloads come faster than they can be done", "one after the other; the last file is in force")
def test_many_reloads_at_once(settings: dict[str, Any], changed: dict[str, Any], start_router: StartRouter) -> None:
    router = start_router(settings)
    with ThreadPoolExecutor(8) as clients:
        statuses = [clients.submit(lambda: reload(router).status) for _ in range(16)]
        hang_up(router, changed)
        assert {status.result() for status in statuses} <= {200, 400}  # a file may be read while it is written
    reload(router)
    assert model_of(router) == "expensive"
