"""The admin listener: what is served where, what /admin/live tells, and what it never tells."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loadtest.processes import listen
from loadtest.scrape import Page
from tests.integration.conftest import CHEAP_KEY, EXPENSIVE_KEY, Stack, stack_config
from tests.integration.router_process import (
    CANARY,
    CHAT,
    REPOSITORY,
    Answer,
    RouterProcess,
    chat_body,
    send,
    serve_command,
    wait_until,
    write_config,
)

BOTH = ("/metrics", "/config", "/health", "/health/live", "/health/ready")
ADMIN_ONLY = ("/dashboard", "/admin/live")
PUBLIC_ONLY = ("/v1/models", "/docs", "/openapi.json")


def admin_port(router: RouterProcess) -> int:
    """The port that the log names."""
    [port] = re.findall(r"dashboard at http://127\.0\.0\.1:(\d+)/dashboard", router.log())
    return int(port)


def ask(router: RouterProcess, path: str, headers: dict[str, str] | None = None) -> Answer:
    return send(admin_port(router), "GET", path, headers=headers)


def live(router: RouterProcess) -> Any:
    return ask(router, "/admin/live").json()


def config_with_triton_metrics(stack: Stack) -> dict[str, Any]:
    config = stack_config(stack.triton.grpc_url, stack.cheap, stack.expensive, stack.canned)
    config["triton"]["metrics_url"] = stack.triton.metrics_url
    return config


@pytest.fixture(scope="module")
def two_workers(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    config = config_with_triton_metrics(running_stack)
    router = RouterProcess.start(config, tmp_path_factory.mktemp("workers"), "--workers", "2")
    yield router
    router.stop()


@pytest.mark.parametrize("path", BOTH)
def test_what_both_listeners_serve(router: RouterProcess, path: str) -> None:
    assert ask(router, path).status == router.get(path).status == 200


@pytest.mark.parametrize("path", ADMIN_ONLY)
@pytest.mark.parametrize("workers", ["one worker", "two workers"])
def test_what_only_the_admin_listener_serves(
    router: RouterProcess, two_workers: RouterProcess, path: str, workers: str
) -> None:
    chosen = router if workers == "one worker" else two_workers
    assert ask(chosen, path).status == 200
    error = chosen.get(path)
    assert (error.status, error.error()["code"]) == (404, "not_found")
    assert str(admin_port(chosen)) not in error.body.decode()


@pytest.mark.parametrize("path", [*PUBLIC_ONLY, "/", "/redoc"])
def test_what_the_admin_listener_does_not_serve(router: RouterProcess, path: str) -> None:
    assert ask(router, path).error()["code"] == "not_found"


def test_no_chat_on_the_admin_listener(router: RouterProcess) -> None:
    for path in (CHAT, "/completions"):
        assert send(admin_port(router), "POST", path, chat_body()).status in (404, 405)


def test_a_header_does_not_open_the_admin_listener(router: RouterProcess) -> None:
    port = admin_port(router)
    claims = {
        "host": f"127.0.0.1:{port}",
        "x-forwarded-host": f"127.0.0.1:{port}",
        "x-forwarded-port": str(port),
        "forwarded": f"host=127.0.0.1:{port}",
    }
    assert router.get("/admin/live", claims).status == 404


def test_a_prompt_can_be_tried_on_the_admin_listener(router: RouterProcess) -> None:
    body = {"model": "default", "inputs": ["Prove that the square root of 2 is irrational."]}
    tried = send(admin_port(router), "POST", "/v1/route", body, {"x-router-threshold": "-1"})
    [decision] = tried.json()["data"]
    assert (decision["model"], decision["policy"]) == ("expensive", "default")
    assert send(admin_port(router), "POST", "/v1/route", {"inputs": 3}).error()["param"] == "inputs"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/admin/reload", "/v1/route"])
def test_another_site_s_page_cannot_make_a_browser_act_here(
    router: RouterProcess, path: str, headers: dict[str, str]
) -> None:
    body = {"model": "default", "inputs": ["Hello?"]}
    for content_type in ("text/plain", "application/json"):
        sent = {"content-type": content_type, **headers}
        error = send(admin_port(router), "POST", path, body, sent).error()
        assert (error["status"], error["code"]) == (403, "foreign_site")
    assert ask(router, "/health", headers).status == 200


@pytest.mark.parametrize("site", [{"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {}])
def test_the_router_s_own_page_and_programs_act_here(router: RouterProcess, site: dict[str, str]) -> None:
    port = admin_port(router)
    for host in (f"127.0.0.1:{port}", "router.internal"):
        own = {"host": host, "origin": f"http://{host}"}
        for headers in (site, {**own, **site}):
            body = {"model": "default", "inputs": ["Hello?"]}
            assert send(port, "POST", "/v1/route", body, headers).status == 200
            assert send(port, "POST", "/admin/reload", headers=headers).status == 200


def test_the_page_is_sealed_off(router: RouterProcess) -> None:
    answer = ask(router, "/dashboard")
    policy = answer.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert answer.header("x-content-type-options") == "nosniff"
    assert (answer.header("content-type") or "").startswith("text/html")


def test_live_tells_the_last_decisions_and_what_the_metrics_say(router: RouterProcess) -> None:
    asked = router.post(chat_body("What is a fjord?", model="default@1"), headers={"x-request-id": "fjord"})
    router.post(chat_body(model="nonsense"), headers={"x-request-id": "refused"})
    told = live(router)
    refused, fjord = told["decisions"][:2]
    assert (refused["request_id"], refused["outcome"], refused["model"]) == ("refused", "client_error", None)
    assert fjord["request_id"] == "fjord"
    for name in ("model", "policy", "reason"):
        assert fjord[name] == asked.header(f"x-router-{name}")
    assert fjord["score"] == pytest.approx(float(asked.header("x-router-score") or "nan"), abs=1e-4)
    assert fjord["overhead_ms"] == pytest.approx(float(asked.header("x-router-overhead-ms") or "nan"), abs=0.01)
    assert (fjord["prompt_tokens"], fjord["completion_tokens"]) == tuple(
        asked.json()["usage"][f"{kind}_tokens"] for kind in ("prompt", "completion")
    )
    assert 0 < fjord["dollars"] < fjord["baseline_dollars"]
    assert told["health"] == {"status": "ready", "classifier": "ok"}
    assert told["configured"]["cheapest_model"] == "cheap"

    page, totals = router.metrics(), told["totals"]
    for outcome, count in totals["requests"]["outcome"].items():
        assert count == page.total("llm_router_requests_total", outcome=outcome)
    assert totals["dollars"]["spent"] == pytest.approx(page.total("llm_router_cost_dollars_total"))
    assert sum(totals["histograms"]["overhead"]["counts"]) == page.total("llm_router_overhead_seconds_count")


@pytest.mark.parametrize("path", [*BOTH, *ADMIN_ONLY])
def test_no_page_shows_a_key_or_a_prompt(router: RouterProcess, path: str) -> None:
    for model in ("auto", "nonsense", "refused", f"{CANARY}@x"):
        router.post(chat_body(f"My secret is {CANARY}", model=model), headers={"authorization": f"Bearer {CANARY}"})
    send(admin_port(router), "POST", "/v1/route", {"inputs": [f"My secret is {CANARY}"]})
    body = ask(router, path).body.decode()
    for secret in (CANARY, CHEAP_KEY, EXPENSIVE_KEY, "My secret"):
        assert secret not in body


def test_every_worker_tells_its_own_decisions_and_everybody_s_totals(two_workers: RouterProcess) -> None:
    ids = {f"mine-{number}" for number in range(80)}

    def chat(name: str) -> int:
        return two_workers.post(chat_body(f"Hello {name}?", model="default@1"), headers={"x-request-id": name}).status

    with ThreadPoolExecutor(16) as clients:
        assert set(clients.map(chat, ids)) == {200}
    seen: dict[int, set[str]] = {}

    def all_told() -> bool:
        told = live(two_workers)
        seen[told["worker"]] = {one["request_id"] for one in told["decisions"]}
        # A request is counted just after its answer has left, so the last ones may be a moment late.
        return told["totals"]["requests"]["outcome"].get("ok") == 80 and set().union(*seen.values()) == ids

    wait_until(all_told)
    assert sum(len(names) for names in seen.values()) == 80, "no decision is told by two workers"
    assert ask(two_workers, "/admin/live").header("connection") == "close"


def test_triton_s_own_figures_are_there_when_its_metrics_are(two_workers: RouterProcess, stack: Stack) -> None:
    two_workers.post(chat_body("A question that only this test asks"))
    told = live(two_workers)["triton"]
    assert (told["reachable"], told["served"], told["gpus"]) == (True, True, [])
    name = "nv_inference_count_total"
    assert 0 < told["rows"] <= Page.get(stack.triton.metrics_url).total(name, model="prompt_classifier")


def test_triton_s_metrics_may_be_missing(stack: Stack, tmp_path: Path) -> None:
    config = config_with_triton_metrics(stack)
    config["triton"]["metrics_url"] = f"http://127.0.0.1:{stack.router.port}/nothing/here"
    router = RouterProcess.start(config, tmp_path)
    try:
        told = live(router)
        assert told["triton"]["reachable"] is False
        assert told["health"]["status"] == "ready"
    finally:
        router.stop()


def test_it_can_be_switched_off(stack: Stack, tmp_path: Path) -> None:
    router = RouterProcess.start({**config_with_triton_metrics(stack), "admin": {"enabled": False}}, tmp_path)
    try:
        assert "dashboard" not in router.log()
        assert router.get("/dashboard").status == 404
        assert router.post(chat_body()).status == 200
    finally:
        router.stop()


def refusal(config: Path, *options: str) -> str:
    command = [*serve_command(config), *options]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_port_that_cannot_be_had_stops_the_start(stack: Stack, tmp_path: Path) -> None:
    config = write_config(config_with_triton_metrics(stack), tmp_path)
    with listen(0, "") as taken:
        port = str(taken.getsockname()[1])
        message = refusal(config, "--admin-port", port)
    assert f"127.0.0.1:{port} is taken: choose another with --admin-port, LLM_ROUTER_ADMIN_PORT" in message
    assert "two different ports" in refusal(config, "--port", port, "--admin-port", port)
    assert "--admin-port 65536" in refusal(config, "--admin-port", "65536")
