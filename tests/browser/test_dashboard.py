"""The dashboard in a real browser, beside a running stack: what it shows, how it is used, what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from loadtest.processes import free_port
from loadtest.scrape import Page
from loadtest.stack import CHEAP, Ports, Stack, running_stack
from tests.browser.conftest import Browser, eventually
from tests.fake_gpu_metrics import GPU_PAGE, PAGE, fake_metrics
from tests.integration.router_process import RouterProcess, chat_body, send, tiers

NONE = "\N{EN DASH}"
CHEAPLY, DEARLY = "default@1", "default@-1"  # thresholds that leave no doubt which model answers
FAINT_TEXTS, STUMBLING_BLOCKS = (
    Path(__file__).with_name(name).read_text() for name in ("faint_texts.js", "stumbling_blocks.js")
)
SCREENS = [(width, scheme) for width in (390, 1366, 1920) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), Ports.any_free(), print) as running:
        for number in range(6):
            chat(running, f"Question {number}: what is a fjord?", CHEAPLY, f"cheap-{number}")
        chat(running, "Prove that the square root of 2 is irrational.", DEARLY, "dear-0")
        chat(running, "Hello?", "nonsense", "refused-0")
        yield running


@pytest.fixture
def dashboard(browser: Browser, stack: Stack) -> Iterator[Browser]:
    """The page with its first figures; afterwards nothing may have gone wrong in it or left its origin."""
    browser.open(f"{stack.admin_url}/dashboard")
    eventually(lambda: browser.text("state") == "ready", "the page never said 'ready'")
    yield browser
    assert browser.console() == []
    requested = browser.requested()
    assert f"{stack.admin_url}/admin/live" in requested
    assert [url for url in requested if not url.startswith((f"{stack.admin_url}/", "data:"))] == []


def chat(stack: Stack, prompt: str, model: str, request_id: str) -> None:
    port = int(stack.router_url.rpartition(":")[2])
    send(port, "POST", "/v1/chat/completions", chat_body(prompt, model=model), {"x-request-id": request_id})


def rows(browser: Browser) -> list[list[str]]:
    script = "return [...document.querySelectorAll('#decisions tr')].map(r => [...r.cells].map(c => c.textContent))"
    return list(browser.run(script))


def shows(browser: Browser, request_id: str) -> bool:
    return any(row[-1] == request_id for row in rows(browser))


def test_live_traffic_shows_up(dashboard: Browser, stack: Stack) -> None:
    chat(stack, "Where is the longest fjord?", CHEAPLY, "live-1")
    eventually(lambda: shows(dashboard, "live-1"), "the decision was not shown")
    [row] = [row for row in rows(dashboard) if row[-1] == "live-1"]
    assert row[1:6] == [CHEAP, "default", "threshold", "ok", "classifier"]
    assert rows(dashboard)[0][-1] == "live-1"
    assert any(row[-1] == "refused-0" and row[4] == "client_error" for row in rows(dashboard))
    eventually(lambda: dashboard.text("rate") not in ("0.0", NONE), "the rate did not rise")
    assert "wait for a batch" in dashboard.text("stages")
    assert CHEAP in dashboard.text("models")
    assert "no GPU: Triton reports none" in dashboard.text("triton")


def test_the_key_figures_are_those_of_the_metrics(dashboard: Browser, stack: Stack) -> None:
    page = Page.get(f"{stack.router_url}/metrics")
    requests, refused = (page.total("llm_router_requests_total", **labels) for labels in ({}, {"model": "none"}))
    cheap = page.total("llm_router_requests_total", model=CHEAP)
    spent, baseline = (page.total(f"llm_router_{name}_dollars_total") for name in ("cost", "baseline"))
    p95 = page.quantile("llm_router_overhead_seconds", 0.95)
    rows_, calls = (page.total(f"llm_router_batch_rows_{part}") for part in ("sum", "count"))
    assert p95 is not None
    eventually(lambda: dashboard.text("rate-note").startswith(f"{requests:.0f} requests "), "not all requests counted")
    assert dashboard.text("share-name") == f"Share to {CHEAP}"
    assert dashboard.text("share") == f"{cheap / (requests - refused):.0%}".replace("%", " %")
    assert float(dashboard.text("saved").removeprefix("$")) == pytest.approx(baseline - spent, rel=0.01)
    assert f"{1 - spent / baseline:.0%}".replace("%", " %") in dashboard.text("saved-note")
    if "since the start" in dashboard.text("overhead-note"):
        assert float(dashboard.text("overhead").removesuffix(" ms")) == pytest.approx(p95 * 1000, rel=0.05)
    if "since the start" in dashboard.text("batch-note"):
        assert float(dashboard.text("batch")) == pytest.approx(rows_ / calls, abs=0.06)


def focused(browser: Browser) -> str:
    return str(browser.run("return document.activeElement.id"))


def press(browser: Browser, *keys: str) -> None:
    browser.driver.switch_to.active_element.send_keys(*keys)


def test_a_prompt_is_tried_by_keyboard_alone(dashboard: Browser) -> None:
    for _ in range(10):
        if focused(dashboard) == "prompt":
            break
        press(dashboard, Keys.TAB)
    assert focused(dashboard) == "prompt"
    press(dashboard, Keys.CONTROL, "a")
    press(dashboard, "Write a function that reverses a list.")
    order = []
    for _ in range(3):
        outline = dashboard.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"the focus on {focused(dashboard)} cannot be seen"
        press(dashboard, Keys.TAB)
        order.append(focused(dashboard))
        if focused(dashboard) == "threshold":
            press(dashboard, "-1")
    assert order == ["policy", "threshold", "decide"]
    press(dashboard, Keys.ENTER)
    eventually(lambda: dashboard.text("verdict").startswith("expensive-sim: threshold"), "no decision was shown")
    shown = dashboard.text("answers")
    for words in ("neither suffices", "need of the strong", "Code Generation", "Expected cost", CHEAP, "expensive-sim"):
        assert words in shown
    assert dashboard.run("return document.getElementById('verdict').getAttribute('aria-live')") == "polite"

    press(dashboard, Keys.SHIFT, Keys.TAB)
    press(dashboard, Keys.CONTROL, "a")
    press(dashboard, "1")
    for _ in range(2):
        press(dashboard, Keys.SHIFT, Keys.TAB)
    assert focused(dashboard) == "prompt"
    press(dashboard, Keys.CONTROL, Keys.ENTER)
    eventually(lambda: dashboard.text("verdict").startswith(f"{CHEAP}: threshold"), "Ctrl+Enter decided nothing")


def test_only_policies_that_take_a_threshold_offer_one(dashboard: Browser) -> None:
    choose = (
        "const p = document.getElementById('policy'); p.value = arguments[0]; p.dispatchEvent(new Event('change'));"
    )
    for policy, disabled in (("auto", False), ("value", True), ("task", False), ("cheap-only", True)):
        dashboard.run(choose, policy)
        assert dashboard.run("return document.getElementById('threshold').disabled") is disabled


def test_the_decisions_can_be_paused(dashboard: Browser, stack: Stack) -> None:
    eventually(lambda: bool(rows(dashboard)), "no decisions")
    dashboard.run("document.getElementById('pause').click()")
    before = rows(dashboard)
    chat(stack, "Is this shown?", CHEAPLY, "paused-1")
    name = "llm_router_requests_total"
    total = f"{Page.get(f'{stack.router_url}/metrics').total(name):.0f} requests "
    eventually(lambda: dashboard.text("rate-note").startswith(total), "the figures must go on")
    assert rows(dashboard) == before
    dashboard.run("document.getElementById('pause').click()")
    assert shows(dashboard, "paused-1")


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_it_fits_the_screen_and_can_be_read(dashboard: Browser, width: int, scheme: str) -> None:
    dashboard.looks(width, scheme)
    eventually(lambda: bool(rows(dashboard)), "no decisions")
    press(dashboard, Keys.TAB)
    dashboard.run("document.getElementById('form').requestSubmit()")
    eventually(lambda: "Expected cost" in dashboard.text("answers"), "no decision was shown")
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert dashboard.run(overflow) == 0
    dark = dashboard.run("return getComputedStyle(document.body).backgroundColor").startswith("rgb(16")
    assert dark == (scheme == "dark")
    assert dashboard.run(FAINT_TEXTS) == []


def test_a_screen_reader_finds_its_way(dashboard: Browser) -> None:
    dashboard.run("document.getElementById('form').requestSubmit()")
    eventually(lambda: "Expected cost" in dashboard.text("answers"), "no decision was shown")
    assert dashboard.run(STUMBLING_BLOCKS) == []
    for chart, words in (
        ("overhead-chart", "100 ms"),
        ("rate-chart", "Requests a second"),
        ("money-chart", "baseline $"),
    ):
        assert words in dashboard.run("return document.getElementById(arguments[0]).getAttribute('aria-label')", chart)


def test_what_is_wrong_would_be_found(dashboard: Browser) -> None:
    dashboard.run("""
        const faint = document.createElement("p"), unlabelled = document.createElement("input");
        faint.textContent = "faint";
        faint.style.color = "rgb(150, 150, 150)";
        unlabelled.id = "prompt";
        document.querySelector("main").append(faint, unlabelled);
    """)
    assert dashboard.run(FAINT_TEXTS) == ["P  faint"]
    assert dashboard.run(STUMBLING_BLOCKS) == ["no label: INPUT prompt ", "an id that is there twice: INPUT prompt "]


def test_nothing_moves_for_whom_motion_disturbs(dashboard: Browser) -> None:
    row = "document.querySelector('#decisions tr')"
    name = f"{row}.className = 'new'; return getComputedStyle({row}).animationName"
    eventually(lambda: bool(rows(dashboard)), "no decisions")
    assert dashboard.run(name) == "arrive"
    dashboard.looks(1366, "light", motion="reduce")
    assert dashboard.run(name) == "none"


@pytest.fixture
def gpu_metrics() -> Iterator[str]:
    with fake_metrics(200, (PAGE + GPU_PAGE).encode()) as (url, _):
        yield url


def odd_names(stack: Stack, metrics_url: str) -> dict[str, Any]:
    """A configuration whose names are markup."""
    priced: dict[str, Any] = {"api_base": stack.cheap.base_url, "model": CHEAP, "price": {"input": 1, "output": 1}}
    return {
        "triton": {"url": stack.triton.grpc_url, "deadline_ms": 5000, "metrics_url": metrics_url},
        "models": {"<img/src=x>": priced, "other": priced},
        "policies": {"<b>bold</b>": tiers("<img/src=x>", "other", start=0.9)},
    }


def test_names_stay_text_and_a_gpu_is_shown(browser: Browser, stack: Stack, tmp_path: Path, gpu_metrics: str) -> None:
    router = RouterProcess.start(odd_names(stack, gpu_metrics), tmp_path, "--admin-port", str(port := free_port()))
    try:
        browser.open(f"http://127.0.0.1:{port}/dashboard")
        eventually(lambda: browser.text("state") == "ready", "the page never said 'ready'")
        router.post(chat_body("Hello?"))
        names = ["<img/src=x>", "<b>bold</b>"]
        eventually(lambda: any(row[1:3] == names for row in rows(browser)), "the names were not shown")
        browser.run("document.getElementById('form').requestSubmit()")
        eventually(lambda: browser.text("verdict").startswith("<img/src=x>: threshold"), "no decision was shown")
        assert browser.run("return document.querySelectorAll('img, b').length") == 0
        assert browser.text("share-name") == "Share to <img/src=x>"
        shown = browser.text("triton").splitlines()
        for name, value in (("utilisation", "50 %"), ("memory", "20.0 of 80.0 GiB"), ("power", f"300 of {NONE} W")):
            assert shown[shown.index(f"GPU {name}") + 1] == value
        assert browser.console() == []
    finally:
        router.stop()


def test_fallbacks_and_refusals_are_shown_by_reason(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    config = odd_names(stack, stack.triton.metrics_url)
    config["models"]["down"] = {"api_base": f"http://127.0.0.1:{free_port()}/v1", "fallbacks": ["other"]}
    router = RouterProcess.start(config, tmp_path, "--admin-port", str(port := free_port()))
    try:
        assert router.post(chat_body("Hello?", model="down")).header("x-router-model") == "other"
        browser.open(f"http://127.0.0.1:{port}/dashboard")
        eventually(lambda: browser.text("trouble") != "", "fallbacks and refusals were not shown")
        shown = browser.text("trouble").splitlines()
        told = dict(zip(shown[::2], shown[1::2], strict=True))
        assert told["answered by another model"] == "upstream_connect 1"
        assert told["refused, the router is at its limit"] == "none"
    finally:
        router.stop()


def test_a_router_that_restarts_is_found_again(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    port = free_port()
    config = odd_names(stack, f"http://127.0.0.1:{port}/none")
    router = RouterProcess.start(config, tmp_path, "--admin-port", str(port))
    try:
        browser.open(f"http://127.0.0.1:{port}/dashboard")
        eventually(lambda: browser.text("state") == "ready", "the page never said 'ready'")
        assert "not reachable: what answers there is not Triton's metrics" in browser.text("triton")
        router.post(chat_body("Hello?"))
        eventually(lambda: browser.text("rate-note").startswith("1 request "), "the request was not counted")
    finally:
        router.stop()
    eventually(lambda: browser.text("state") == "connection lost, retrying", "the loss was not said")
    router = RouterProcess.start(config, tmp_path, "--admin-port", str(port))
    try:
        eventually(lambda: browser.text("state") == "ready", "the router was not found again")
        eventually(lambda: browser.text("rate-note").startswith("0 requests"), "the old figures stayed")
        assert browser.run("return new Set(looks.map((look) => look.totals.started)).size") == 1
    finally:
        router.stop()
