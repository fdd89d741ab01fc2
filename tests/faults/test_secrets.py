"""What must never get out, and where a prompt must never go."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.simulated_llm import SimulatedLLM
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.faults.invariants import counted
from tests.integration.canned_llm import JSON_HEAD, CannedLLM, canned_llm, whole
from tests.integration.conftest import CHEAP_KEY, Stack, closed_port
from tests.integration.router_process import CANARY, REPOSITORY, RouterProcess, chat_body

PROMPT = f"My secret is {CANARY}"


@pytest.fixture
def stranger() -> Iterator[CannedLLM]:
    """A server that nobody has configured."""
    with canned_llm() as server:
        yield server


@pytest.mark.fault(
    "everything fails at `log_level: debug`: models, classifier, bodies, names",
    "no key, prompt or traceback in the log, in an error or on any page",
)
def test_canary_keys_show_up_nowhere(start_router: StartRouter, llm: SimulatedLLM) -> None:
    settings = config(llm, closed_port())
    settings["server"] = {"log_level": "debug"}
    settings["models"]["expensive"] = {"api_base": f"http://127.0.0.1:{closed_port()}/v1", "api_key": f"sk-{CANARY}"}
    router = start_router(settings)
    key = {"authorization": f"Bearer sk-client-{CANARY}", "x-api-key": CANARY}
    for body, status in (
        (chat_body(PROMPT), 502),
        (chat_body(PROMPT, stream=True), 502),
        (chat_body(PROMPT, model="cheap", stream="yes"), 400),
        ({"model": "auto", "messages": PROMPT}, 400),
        (f'{{"model": "{CANARY}'.encode(), 400),
    ):
        answer = router.post(body, headers=key)
        assert (answer.status, answer.error()["status"]) == (status, status)
    for path in ("/metrics", "/config", "/openapi.json", "/health/ready", "/v1/models", f"/v1/{CANARY}"):
        answer = router.get(path, headers={**key, "x-request-id": CANARY + "\t" + CANARY})
        assert CANARY.encode() not in answer.body or path.endswith(CANARY)
        assert CANARY not in str(answer.headers)
    assert CANARY not in router.log()


@pytest.mark.fault("the model's error repeats the key it was called with", "the client sees `[REDACTED]` in its place")
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_a_model_repeats(stack: Stack, llm: SimulatedLLM, start_router: StartRouter, stream: bool) -> None:
    settings = config(llm, closed_port())
    settings["models"]["echo"] = {"api_base": stack.canned.base_url, "api_key": f"sk-{CANARY}"}
    head = JSON_HEAD.replace(b"200 OK", b"401 Unauthorized")
    stack.canned.say(whole(b'{"error":{"message":"Incorrect API key: sk-%s"}}' % CANARY.encode(), head))
    answer = start_router(settings).post(chat_body(PROMPT, model="echo", stream=stream))
    assert answer.status == 401
    assert answer.json() == {"error": {"message": "Incorrect API key: [REDACTED]"}}


@pytest.mark.fault(
    "a client sends its key, cookies and headers of a proxy",
    "the model gets its own key and the few headers that are meant for it",
)
def test_only_what_is_meant_for_a_model_reaches_it(stack: Stack) -> None:
    sent = {
        "authorization": f"Bearer sk-client-{CANARY}",
        "cookie": "session=1",
        "x-forwarded-for": "10.0.0.1",
        "openai-organization": "org-of-the-client",
        "x-api-key": "client",
        "proxy-authorization": "Basic eA==",
        "te": "trailers",
        "x-router-policy": "only-cheap",
        "user-agent": "agent/1",
        "idempotency-key": "42",
    }
    assert stack.router.post(chat_body("Hello?", model="auto"), headers=sent).status == 200
    got = stack.cheap.requests()[-1].headers
    assert got["authorization"] == f"Bearer {CHEAP_KEY}"
    assert (got["user-agent"], got["idempotency-key"]) == ("agent/1", "42")
    assert got["host"] == f"127.0.0.1:{stack.cheap.port}"
    assert set(got) <= {
        *("authorization", "user-agent", "idempotency-key", "host", "content-type", "content-length", "accept"),
        "accept-encoding",
    }


@pytest.mark.fault("a request says where the model is: `api_base`, `base_url`", "400 with `param`; nobody is called")
@pytest.mark.parametrize("field", ["api_base", "base_url"])
def test_a_request_cannot_choose_an_address(router: RouterProcess, stranger: CannedLLM, field: str) -> None:
    with counted(router, "client_error"):
        answer = router.post(chat_body(PROMPT, model="cheap", **{field: stranger.base_url}))
    assert (answer.status, answer.error()["param"]) == (400, field)
    assert stranger.heard == []


@pytest.mark.fault("a prompt holds addresses: image, audio, file", "it passes unchanged; nobody is called")
def test_no_address_within_a_prompt_is_called(stack: Stack, stranger: CannedLLM) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"{stranger.base_url}/x.png"}},
        {"type": "file", "file": {"file_url": f"{stranger.base_url}/x.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav", "url": f"{stranger.base_url}/x.wav"}},
    ]
    assert stack.router.post(chat_body(content, model="only-cheap")).status == 200
    assert stack.cheap.requests()[-1].json()["messages"][0]["content"] == content
    assert stranger.heard == []


@pytest.mark.fault("the environment names a proxy", "models are called directly, with nobody in between")
def test_no_proxy_of_the_environment(start_router: StartRouter, llm: SimulatedLLM, stranger: CannedLLM) -> None:
    proxy = f"http://127.0.0.1:{stranger.port}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "grpc_proxy")
    router = start_router(config(llm, closed_port()), env={**dict.fromkeys(names, proxy), "no_proxy": ""})
    assert router.post(chat_body("Hello?")).header("x-router-decision") == "fallback;reason=unavailable"
    assert router.post(chat_body("Hello?", model="cheap")).status == 200
    assert stranger.heard == []


@pytest.mark.fault(
    "a client's `x-request-id` is no id: line breaks, 129 characters, quotes", "the router gives one of its own"
)
@pytest.mark.parametrize("given", ["a b", "x" * 129, '"x"', "é", "a\tb", "", "${jndi:x}"], ids=range(7))
def test_a_request_id_that_is_none(router: RouterProcess, given: str) -> None:
    answer = router.post(chat_body("Hello?", model="cheap"), headers={"x-request-id": given})
    assert answer.status == 200
    assert answer.header("x-request-id") not in (given, "", None)


@pytest.mark.fault("an odd `Host`", "it changes nothing: no redirect, no link, no address is made from it")
@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1:1@attacker.example", "", "*"])
def test_an_odd_host(router: RouterProcess, host: str) -> None:
    for path in ("/v1/models", "/openapi.json", "/docs"):
        answer = router.get(path, headers={"host": host})
        assert answer.status == 200
        assert answer.header("location") is None
        assert not host or b"attacker" not in answer.body
    assert router.post(chat_body("Hello?", model="cheap"), headers={"host": host}).status == 200


@pytest.mark.fault("a path that climbs out", "404; no file is read")
@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/v1/models/../../../etc/passwd", "/docs/%2e%2e/%2e%2e/etc/passwd"]
)
def test_a_path_that_climbs(router: RouterProcess, path: str) -> None:
    answer = router.get(path)
    assert answer.status == 404
    assert b"root:" not in answer.body


@pytest.mark.fault("ten thousand made-up names in `model` and headers", "404 each; not one metric series more")
def test_a_flood_of_names(router: RouterProcess) -> None:
    router.post(chat_body(PROMPT, model="nobody"))
    series = len(router.get("/metrics").body.splitlines())
    with counted(router, "client_error", 10_000):
        flood(router, 10_000)
    assert len(router.get("/metrics").body.splitlines()) == series


def flood(router: RouterProcess, number: int) -> None:
    """Ask for that many names that nobody has, on one connection."""
    with closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)) as connection:
        for i in range(number):
            headers = {"content-type": "application/json", **({"x-router-policy": f"p-{i}"} if i % 2 else {})}
            body = json.dumps(chat_body("Hello?", model="auto" if i % 2 else f"m-{i}"))
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404


@pytest.mark.fault("weights whose reading runs code (pickle)", "there are none: ONNX, safetensors, JSON and text only")
def test_weights_are_data() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = [Path(name) for name in listed.stdout.split("\0") if name]
    assert any(path.suffix == ".onnx" for path in files)
    assert [
        path for path in files if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy")
    ] == []
    loading = ("pickle", "torch.load", "allow_pickle=True", "joblib.load")
    sources = [
        path for path in files if path.suffix == ".py" and path.parts[0] in ("router", "triton_models", "classifier")
    ]
    found = [(path, word) for path in sources for word in loading if word in (REPOSITORY / path).read_text()]
    assert found == []
