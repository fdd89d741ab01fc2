"""The configuration: what is read, what is refused, and how that is told."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest

from router.settings import (
    SCORE_NAMES,
    TASK_TYPES,
    AdminSettings,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    Price,
    Replica,
    Secret,
    ServerSettings,
    Settings,
    TaskMapPolicy,
    ThresholdPolicy,
    Tier,
    Timeouts,
    TritonSettings,
    UpstreamSettings,
    load_settings,
    redacted,
)
from tests.unit.router.configuration import DATA, ENVIRON, GOOD, KEY, changed, problems_of, write

_, *REFUSED = (block.splitlines() for block in (DATA / "refused.txt").read_text().split("\n\n"))


def test_reads_every_section(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD), ENVIRON)
    assert loaded == Settings(
        server=ServerSettings(port=8084),
        admin=AdminSettings(),
        triton=TritonSettings(deadline_ms=250.0),
        models={
            "cheap": ModelSettings(
                name="cheap",
                replicas=(Replica("http://127.0.0.1:9101/v1", Secret(KEY)),),
                model="cheap",
                price=Price(0.15, 0.6, "configuration"),
                context_limit=None,
                timeouts=Timeouts(),
            ),
            "expensive": ModelSettings(
                name="expensive",
                replicas=(Replica("http://127.0.0.1:9102/v1"),),
                model="big-7b",
                price=Price(2.5, 10.0, "configuration"),
                context_limit=128000,
                timeouts=Timeouts(connect_s=2.0, first_byte_s=30.0, idle_s=30.0, total_s=30.0),
                stream_usage=False,
                expected_output_tokens=512,
            ),
        },
        policies={
            "default": ThresholdPolicy(
                "default",
                (("need_strong", 1.0),),
                (Tier("cheap", -math.inf), Tier("expensive", 0.42)),
                "expensive",
                "hardest",
            ),
            "mixed": ThresholdPolicy(
                "mixed",
                (("need_strong", 0.7), ("reasoning", 0.3)),
                (Tier("cheap"), Tier("expensive", 0.5)),
                "cheap",
                "joined",
            ),
            "value": ExpectedValuePolicy("value", "cheap", "expensive", 0.02, "expensive", "hardest"),
            "task": TaskMapPolicy("task", (("Code Generation", "expensive"),), "cheap", "last", 0.3),
            "only": FixedPolicy("only", "cheap"),
            "nvidia": LabelPolicy("nvidia", "ensemble", (("Other", "cheap"), ("Hard", "expensive")), "cheap", "Other"),
        },
        default_policy="default",
        source="router.yaml",
    )


def test_replicas_fallbacks_and_what_a_model_supports(tmp_path: Path) -> None:
    one = 'cheap: {api_base: "http://127.0.0.1:9101/v1/", api_key: "${KEY}"'
    several = 'cheap: {api_key: "${KEY}", replicas: [{api_base: "http://a/v1/"}, {api_base: "http://b/v1", api_key: k}]'
    text = changed(one, several + ", fallbacks: [expensive], supports: [tools]")
    text = text.replace("type: fixed, model: cheap", "type: fixed, model: cheap, fallbacks: []")
    loaded = load_settings(write(tmp_path, text + "upstreams: {retry_budget: 0, max_cooldown_s: 5}"), ENVIRON)
    cheap, expensive = loaded.models["cheap"], loaded.models["expensive"]
    assert cheap.replicas == (Replica("http://a/v1", Secret(KEY)), Replica("http://b/v1", Secret("k")))
    assert (cheap.fallbacks, cheap.supports) == (("expensive",), ("tools",))
    assert (expensive.fallbacks, expensive.supports) == ((), None)
    assert (loaded.policies["only"].fallbacks, loaded.policies["value"].fallbacks) == ((), None)
    assert loaded.upstreams == UpstreamSettings(retry_budget=0.0, max_cooldown_s=5.0)


def test_settings_can_go_to_a_worker_process(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD), ENVIRON)
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_contract_constants() -> None:
    assert len(TASK_TYPES) == 12
    assert list(TASK_TYPES) == sorted(TASK_TYPES)
    assert len(set(SCORE_NAMES)) == len(SCORE_NAMES) == 12


@pytest.mark.parametrize(("old", "new", "problem"), REFUSED, ids=[problem for _, _, problem in REFUSED])
def test_one_mistake_is_one_problem(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert problems_of(write(tmp_path, changed(old, new))) == [f"router.yaml:{problem}"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "default_policy: mixd",
            'default_policy: "mixd" is not a configured policy; '
            'allowed: default, mixed, value, task, only, nvidia (did you mean "mixed"?)',
        ),
        (
            "polices: {}",
            "polices: unknown key; allowed: server, admin, triton, tracing, upstreams, decision_log, models, "
            'policies, default_policy, clients (did you mean "policies"?)',
        ),
    ],
)
def test_mistakes_at_the_top_level(tmp_path: Path, line: str, problem: str) -> None:
    number = GOOD.count("\n") + 1
    assert problems_of(write(tmp_path, GOOD + line)) == [f"router.yaml:{number}: {problem}"]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("0.42", "4.2").replace("${KEY}", "${NOPE}").replace("8084", "x").replace("weak", "waek")
    found = problems_of(write(tmp_path, text))
    assert [problem.split(":")[1] for problem in found] == ["1", "4", "17", "24", "24"]


@pytest.mark.parametrize("section", ["models", "policies"])
@pytest.mark.parametrize("content", ["", " {}", " 3"])
def test_models_and_policies_are_required(tmp_path: Path, section: str, content: str) -> None:
    lines = {
        "models": "{m: {api_base: 'http://x/v1', price: {input: 0, output: 0}}}",
        "policies": "{p: {type: fixed, model: m}}",
    }
    lines[section] = content
    found = problems_of(write(tmp_path, "\n".join(f"{key}: {value}" for key, value in lines.items())))
    expected = {"": "missing", " {}": "is empty", " 3": "must be a mapping"}[content]
    assert any(f"{section}: {expected}" in problem for problem in found)


def test_default_policy_may_be_left_out_when_it_is_clear(tmp_path: Path) -> None:
    one = GOOD[: GOOD.index("  mixed:")].replace("  default:", "  mine:")
    assert load_settings(write(tmp_path, one), ENVIRON).default_policy == "mine"
    several = GOOD.replace("  default:", "  mine:")
    assert problems_of(write(tmp_path, several)) == [
        'router.yaml:1: default_policy: missing, and no policy is called "default"; '
        "allowed: mine, mixed, value, task, only, nvidia"
    ]


def test_expected_value_needs_prices(tmp_path: Path) -> None:
    assert problems_of(write(tmp_path, changed("    price: {input: 2.5, output: 10}\n", ""))) == [
        'router.yaml:23: policies.value.strong: the price of "expensive" is unknown; '
        "set models.expensive.price, which this policy compares"
    ]


def test_overrides_win_over_the_file_and_are_checked(tmp_path: Path) -> None:
    environ = ENVIRON | {
        "LLM_ROUTER_HOST": "0.0.0.0",
        "LLM_ROUTER_PORT": "0",
        "LLM_ROUTER_ADMIN_HOST": "0.0.0.0",
        "LLM_ROUTER_ADMIN_PORT": "0",
        "LLM_ROUTER_TRITON_URL": "[::1]:8001",
    }
    loaded = load_settings(write(tmp_path, GOOD[GOOD.index("triton:") :]), environ)
    assert (loaded.server.host, loaded.server.port, loaded.triton.url) == ("0.0.0.0", 0, "[::1]:8001")
    assert (loaded.admin.host, loaded.admin.port) == ("0.0.0.0", 0)
    assert loaded.triton.deadline_ms == 250
    assert loaded.triton.metrics_url == "http://[::1]:8002/metrics"
    assert problems_of(write(tmp_path, GOOD), ENVIRON | {"LLM_ROUTER_PORT": "80x4"}) == [
        'environment: LLM_ROUTER_PORT: "80x4" must be a whole number from 0 to 65535'
    ]


@pytest.mark.parametrize(
    ("admin", "problem"),
    [
        ("{port: 8084}", "admin.port: 8084 is server.port too"),
        ("{host: 0.0.0.0, port: 8084}", "admin.port: 8084 is server.port too"),
        ("{enabled: maybe}", 'admin.enabled: "maybe" must be true or false'),
        ("{prot: 1}", "admin.prot: unknown key; allowed: enabled, host, port"),
    ],
)
def test_the_admin_listener_has_a_port_of_its_own(tmp_path: Path, admin: str, problem: str) -> None:
    (found,) = problems_of(write(tmp_path, f"{GOOD}admin: {admin}\n"))
    assert problem in found


def test_the_server_s_port_may_not_become_the_admin_listener_s(tmp_path: Path) -> None:
    (found,) = problems_of(write(tmp_path, GOOD), ENVIRON | {"LLM_ROUTER_ADMIN_PORT": "8084"})
    assert found.startswith("environment: LLM_ROUTER_ADMIN_PORT: 8084 is server.port too; choose another")
    (found,) = problems_of(write(tmp_path, GOOD), ENVIRON | {"LLM_ROUTER_PORT": "8085"})
    assert "admin.port: 8085 is server.port too" in found
    loaded = load_settings(write(tmp_path, GOOD + "admin: {enabled: false, port: 8084}\n"), ENVIRON)
    assert loaded.admin == AdminSettings(enabled=False, port=8084)


# --- secrets -----------------------------------------------------------------------------------------------------


def test_a_secret_is_shown_by_reveal_only() -> None:
    secret = Secret(KEY)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>20}", "%s %r" % (secret, secret)]  # noqa: UP031 - logging formats so
    assert all(KEY not in text and "[REDACTED]" in text for text in shown)
    assert secret.reveal() == KEY
    assert secret == Secret(KEY) != Secret("other")
    assert hash(secret) == hash(Secret(KEY))
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_redacted_is_json_without_keys(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD), ENVIRON)
    text = json.dumps(redacted(loaded), allow_nan=False)
    assert KEY not in text
    assert KEY not in repr(loaded)
    data = json.loads(text)
    assert data["models"]["cheap"]["replicas"][0]["api_key"] == "[REDACTED]"
    assert data["models"]["expensive"]["replicas"][0]["api_key"] is None
    assert data["policies"]["default"]["type"] == "threshold"
    assert data["policies"]["default"]["tiers"] == [
        {"model": "cheap", "at": None},
        {"model": "expensive", "at": 0.42},
    ]


def test_redacted_shows_an_unknown_price_as_null(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("  value:")].replace("    price: {input: 2.5, output: 10}\n", "")
    data = json.loads(json.dumps(redacted(load_settings(write(tmp_path, text), ENVIRON))))
    assert data["models"]["expensive"]["price"] is None


@pytest.mark.parametrize("key", ["two words", "line\\nbreak", "kéy"])
def test_an_unusable_key_is_refused_without_being_shown(tmp_path: Path, key: str) -> None:
    (problem,) = problems_of(write(tmp_path, changed('"${KEY}"', f'"{key}"')))
    assert problem.startswith("router.yaml:4: models.cheap.api_key: must be ASCII without spaces")
    assert key not in problem
