"""Clients with keys, as the real OpenAI client meets them: who is let in, and to what."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from loadtest.simulated_llm import SimulatedLLM
from router.clients.keys import digest_of
from tests.faults.clients import (
    NEW,
    OLD,
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
from tests.integration.router_process import (
    CANARY,
    CHAT,
    RouterProcess,
    chat_body,
    refuses_to_start,
    send,
    wait_until,
    write_config,
)


@pytest.fixture(scope="module")
def gated(llm: SimulatedLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """A router at which `team` may use one policy and name no model."""
    router = RouterProcess.start(settings_of(llm, policies=["thrifty"]), tmp_path_factory.mktemp("gated"))
    router.key = OPS
    yield router
    router.stop()


@pytest.fixture
def start(start_router: StartRouter) -> StartRouter:
    def started(settings: dict[str, Any], *options: str) -> RouterProcess:
        router = start_router(settings, *options)
        router.key = OPS
        return router

    return started


# --- who ---------------------------------------------------------------------------------------------------------

WRONG = {
    "none": {},
    "empty": {"authorization": "Bearer "},
    "no bearer": {"authorization": TEAM},
    "basic": {"authorization": f"Basic {TEAM}"},
    "other header": {"x-api-key": TEAM},
    "shorter": {"authorization": f"Bearer {TEAM[:-1]}"},
    "longer": {"authorization": f"Bearer {TEAM}x"},
    "the digest": {"authorization": f"Bearer {digest_of(TEAM)}"},
    "no ASCII": {"authorization": "Bearer \xff\xfe"},
}


@pytest.mark.fault(
    "no key, a wrong one, the stored digest in place of the key", "401 `invalid_api_key`; no model is called"
)
@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_a_key_that_is_none(gated: RouterProcess, llm: SimulatedLLM, headers: dict[str, str]) -> None:
    called = llm.stats()["requests"]
    before = gated.metrics().total(REFUSALS, client="unknown", reason="invalid_api_key")
    with counted(gated, "client_error"):
        answer = send(gated.port, "POST", CHAT, chat_body(f"My secret is {CANARY}"), headers)
    assert (answer.status, answer.error()["code"]) == (401, "invalid_api_key")
    assert answer.header("www-authenticate") == "Bearer"
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/route"), ("GET", "/nothing")):
        assert send(gated.port, method, path, headers=headers).status == 401
    assert gated.metrics().total(REFUSALS, client="unknown", reason="invalid_api_key") == before + 4
    assert llm.stats()["requests"] == called


@pytest.mark.fault("OpenAI's client with a wrong key", "it raises AuthenticationError and does not try again")
def test_openai_s_client_understands_a_401(gated: RouterProcess) -> None:
    with counted(gated, "client_error"), pytest.raises(openai.AuthenticationError) as caught:
        ask(gated, "sk-wrong", max_retries=2)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")


@pytest.mark.fault("a thousand made-up keys", "401 each; not one metric series more")
def test_a_flood_of_keys(gated: RouterProcess) -> None:
    assert status_of(gated, "sk-wrong") == 401
    series = len(gated.metrics_text().splitlines())
    with counted(gated, "client_error", 1000), closing(HTTPConnection("127.0.0.1", gated.port, timeout=20)) as peer:
        for i in range(1000):
            headers = {"content-type": "application/json", "authorization": f"Bearer sk-{i}"}
            peer.request("POST", CHAT, b'{"model": "auto"}', headers)
            answer = peer.getresponse()
            answer.read()
            assert answer.status == 401
    assert len(gated.metrics_text().splitlines()) == series


@pytest.mark.fault("a large body with a wrong key", "401 before it has been read")
def test_a_body_of_a_stranger_is_not_read(gated: RouterProcess) -> None:
    with closing(HTTPConnection("127.0.0.1", gated.port, timeout=20)) as peer:
        peer.putrequest("POST", CHAT)
        peer.putheader("content-type", "application/json")
        peer.putheader("content-length", "4000000")
        peer.endheaders()  # and not a byte of the body
        assert peer.getresponse().status == 401


@pytest.mark.fault(
    "`/metrics` and `/config` are asked for by clients", "403, with a key too; operators have them elsewhere"
)
def test_pages_that_tell_of_all_clients(gated: RouterProcess) -> None:
    for path in ("/metrics", "/config"):
        for key in (OPS, "sk-wrong"):
            answer = send(gated.port, "GET", path, headers={"authorization": f"Bearer {key}"})
            assert (answer.status, answer.error()["code"]) == (403, "operators_only")
        assert send(gated.operators_port, "GET", path).status == 200
    for path in ("/health", "/health/live", "/health/ready", "/docs", "/openapi.json"):
        assert send(gated.port, "GET", path).status == 200


# --- what --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("a policy that the key may not use", "403 `policy_not_allowed` names those that it may")
@pytest.mark.parametrize("model", ["auto", "default"])
def test_a_policy_that_is_not_allowed(gated: RouterProcess, llm: SimulatedLLM, model: str) -> None:
    called = llm.stats()["requests"]
    with (
        counted(gated, "client_error"),
        pytest.raises(openai.PermissionDeniedError, match="may use: thrifty") as caught,
    ):
        ask(gated, model=model, max_retries=2)
    assert caught.value.code == "policy_not_allowed"
    assert llm.stats()["requests"] == called
    assert gated.metrics().total(REFUSALS, client="team", reason="policy_not_allowed") > 0
    assert ask(gated, model="thrifty").choices


NIM = {"policy": "thrifty", "routing_strategy": "manual", "model": "cheap"}


@pytest.mark.fault(
    "a model named by a key that is held to policies", "403 `model_not_allowed`, NVIDIA's way of naming too"
)
@pytest.mark.parametrize(
    "fields", [{"model": "expensive"}, {"extra_body": {"nim-llm-router": NIM}}], ids=["openai", "nim"]
)
def test_a_model_that_may_not_be_named(gated: RouterProcess, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="may use: none") as caught:
        ask(gated, **fields)
    assert caught.value.code == "model_not_allowed"
    body = chat_body("Hello?") | fields.get("extra_body", fields)
    routed = send(gated.port, "POST", "/v1/route", body, {"authorization": f"Bearer {TEAM}"})
    assert (routed.status, routed.error()["code"]) == (403, "model_not_allowed")


@pytest.mark.fault("a name that nothing has, by a key that may use little", "404 that names what the key may use alone")
@pytest.mark.parametrize(
    "fields", [{"model": "nobody"}, {"nim-llm-router": {"policy": "nobody"}}], ids=["openai", "nim"]
)
def test_an_unknown_name_does_not_tell_the_others(gated: RouterProcess, fields: dict[str, Any]) -> None:
    key = {"authorization": f"Bearer {TEAM}"}
    for path in (CHAT, "/v1/route"):
        message = send(gated.port, "POST", path, chat_body("Hello?") | fields, key).error()["message"]
        assert "Policies: thrifty." in message
        assert "default" not in message
        assert "cheap" not in message
    message = send(gated.port, "GET", "/v1/models/nobody", headers=key).error()["message"]
    assert message == "'nobody' is not among: thrifty."


@pytest.mark.fault("a key lists what there is", "`/v1/models` shows what it may use, and nothing else")
def test_what_a_key_sees(gated: RouterProcess) -> None:
    with asking(gated) as client:
        assert [model.id for model in client.models.list()] == ["thrifty"]
        with pytest.raises(openai.NotFoundError, match="not among: thrifty"):
            client.models.retrieve("expensive")
    with asking(gated, OPS) as client:
        assert {model.id for model in client.models.list()} == {"auto", "default", "thrifty", "cheap", "expensive"}


# --- over time ---------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "a key is replaced by reloads", "both are good in between; then the old one is 401, also where a connection is open"
)
def test_a_rotation(start: StartRouter, llm: SimulatedLLM) -> None:
    settings = settings_of(llm)
    team = settings["clients"]["team"]
    router = start(settings | {"clients": settings["clients"] | {"team": team | {"key_sha256": digest_of(OLD)}}})
    with asking(router, OLD) as kept:
        messages: Any = [{"role": "user", "content": "Hello?"}]
        assert kept.chat.completions.create(model="cheap", messages=messages).choices
        assert status_of(router, NEW) == 401
        for digests, old, new in (([digest_of(OLD), digest_of(NEW)], 200, 200), ([digest_of(NEW)], 401, 200)):
            clients = settings["clients"] | {"team": team | {"key_sha256": digests}}
            reload(router, settings | {"clients": clients})
            assert (status_of(router, OLD), status_of(router, NEW)) == (old, new)
        with pytest.raises(openai.AuthenticationError):
            kept.chat.completions.create(model="cheap", messages=messages)


@pytest.mark.fault(
    "clients are taken out of the file's every line but their heading", "the reload is refused; nobody gets in"
)
def test_no_clients_by_mistake(start: StartRouter, llm: SimulatedLLM) -> None:
    settings = settings_of(llm)
    router = start(settings)
    write_config(settings | {"clients": None}, router.child.log_path.parent)
    answer = send(router.operators_port, "POST", "/admin/reload")
    assert answer.status == 400
    assert "would let everybody in" in str(answer.error()["message"])
    assert status_of(router, "sk-wrong") == 401


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("the key itself stands where its SHA-256 belongs", "no start; the message does not show it")
def test_a_key_in_place_of_its_digest(llm: SimulatedLLM, tmp_path: Path) -> None:
    settings = settings_of(llm)
    settings["clients"]["team"]["key_sha256"] = TEAM
    said = refuses_to_start(settings, tmp_path)
    assert "clients.team.key_sha256: must be the SHA-256 of a key" in said


@pytest.mark.fault(
    "a good key at `log_level: debug`, with errors all around",
    "it is in no log, answer, page or file, and no model sees it",
)
def test_a_good_key_shows_up_nowhere(start: StartRouter, llm: SimulatedLLM, tmp_path: Path) -> None:
    settings = with_budget(llm, tmp_path / "state", 100_000.0)
    settings["server"]["log_level"] = "debug"
    router = start(settings)
    answers = [
        router.post(body, headers={"authorization": f"Bearer {TEAM}"})
        for body in (chat_body(model="cheap"), chat_body(model="cheap", stream=True), chat_body(model=TEAM), b"{")
    ]
    assert [answer.status for answer in answers] == [200, 200, 404, 400]
    assert all(TEAM not in str(answer.headers) for answer in answers)
    assert all(TEAM.encode() not in answer.body for answer in answers if answer.status != 404)  # that one named it
    assert all(TEAM not in str(request.headers) for request in llm.requests())
    psutil.Process(router.child.pid).send_signal(signal.SIGHUP)
    wait_until(lambda: router.metrics().total("llm_router_config_reloads_total") > 0)
    for path in ("/metrics", "/config", "/admin/live"):
        page = send(router.operators_port, "GET", path).body.decode()
        assert not any(secret in page for secret in (TEAM, OPS, digest_of(TEAM), digest_of(OPS)))
    wait_until(lambda: in_file(tmp_path / "state") > 0)
    written = b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir())
    assert TEAM.encode() not in written + router.log().encode()
    assert digest_of(TEAM) not in router.log()
