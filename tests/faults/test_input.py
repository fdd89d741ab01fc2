"""What a client can get wrong: each is a 4xx in OpenAI's shape that names the field, counted, and not logged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.invariants import counted
from tests.integration.conftest import Stack
from tests.integration.router_process import CANARY, CHAT, RouterProcess, chat_body, send

SECRET = f"my secret is {CANARY}"
VALID = json.dumps(chat_body(SECRET, model="only-cheap")).encode()
DEEP = b'{"model":"auto","messages":' + b"[" * 70 + b"]" * 70 + b"}"


def refused(router: RouterProcess, body: bytes | dict[str, Any], **headers: str) -> dict[str, Any]:
    """Post a body that must be refused: return the error, having checked its shape and that it was counted."""
    with counted(router, "client_error"):
        answer = router.post(body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    error = answer.error()
    assert 400 <= answer.status < 500
    return error


@pytest.mark.fault("syntax, UTF-8, NaN, 1e999, surrogates, equal keys, depth", "400 `invalid_json`")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        VALID[:-1],
        VALID + b"x",
        VALID + VALID,
        b"[]",
        b'"text"',
        b"null",
        VALID[:-1] + b',"temperature":NaN}',
        VALID[:-1] + b',"temperature":-Infinity}',
        VALID[:-1] + b',"temperature":1e999}',
        VALID[:-1] + b',"user":"\\ud800"}',
        VALID[:-1] + b',"user":"\\udc00\\ud800"}',
        VALID[:-1] + b',"user":"\xff\xfe"}',
        VALID[:-1] + b',"user":"\xed\xa0\x80"}',
        VALID[:-1] + b',"user":"a\nb"}',
        VALID[:-1] + b',"model":"auto"}',
        VALID[:-1] + b',"mod\\u0065l":"auto"}',
        VALID[:-1] + b',"metadata":{"a":1,"a":2}}',
        VALID[:-1] + b',"x":[{"b":[{"a":1,"a":2}]}]}',
        VALID[:-1] + b",}",
        VALID[:-1] + b',"n":01}',
        VALID[:-1] + b',"n":1,/* comment */"m":2}',
        b"\xef\xbb\xbf" + VALID,
        DEEP,
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=range(27),
)
def test_what_is_not_one_strict_json_object(router: RouterProcess, body: bytes) -> None:
    error = refused(router, body)
    assert (error["status"], error["code"]) == (400, "invalid_json")


@pytest.mark.fault(
    "a field is missing, empty or of a wrong type",
    "400 `invalid_request`; `param` and the message name it",
)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": SECRET}, "messages"),
        ({"messages": {"role": "user", "content": SECRET}}, "messages"),
        ({"messages": [SECRET]}, "messages[0]"),
        ({"messages": [{"content": SECRET}]}, "messages[0].role"),
        ({"messages": [{"role": 7, "content": SECRET}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"text": SECRET}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [SECRET]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": SECRET}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages[0].content[0].text"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": [SECRET]}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": [SECRET]}, "model"),
        ({"nim-llm-router": SECRET}, "nim-llm-router"),
        ({"nim-llm-router": {}}, "nim-llm-router.policy"),
        ({"nim-llm-router": {"policy": [SECRET]}}, "nim-llm-router.policy"),
        ({"nim-llm-router": {"policy": "default", "threshold": True}}, "nim-llm-router.threshold"),
        ({"nim-llm-router": {"policy": "default", "threshold": [0.5]}}, "nim-llm-router.threshold"),
        ({"nim-llm-router": {"policy": "default", "routing_strategy": "random"}}, "nim-llm-router.routing_strategy"),
        ({"nim-llm-router": {"policy": "default", "routing_strategy": "manual"}}, "nim-llm-router.model"),
    ],
)
def test_a_wrong_field_is_named(router: RouterProcess, fields: dict[str, Any], param: str) -> None:
    error = refused(router, chat_body(SECRET) | fields)
    assert (error["status"], error["code"], error["param"]) == (400, "invalid_request", param)
    assert f"'{param}'" in error["message"]


@pytest.mark.fault("a hundred made-up model and policy names", "404; the metrics gain no series")
def test_unknown_names_do_not_become_metric_labels(router: RouterProcess) -> None:
    series = len(router.get("/metrics").body.splitlines())
    for i in range(50):
        refused(router, chat_body(SECRET, model=f"nonsense-{i}"))
        refused(router, chat_body(SECRET), x_router_policy=f"nonsense-{i}")
    assert len(router.get("/metrics").body.splitlines()) <= series + 2


@pytest.mark.fault("another content type, charset or encoding", "415 `unsupported_media_type`")
@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json; charset=utf-16"},
        {"content_type": ""},
        {"content_encoding": "gzip"},
        {"content_encoding": "br"},
    ],
)
def test_another_media_type_or_encoding(router: RouterProcess, headers: dict[str, str]) -> None:
    error = refused(router, VALID, **headers)
    assert (error["status"], error["code"]) == (415, "unsupported_media_type")


@pytest.mark.fault("another method", "405 with `allow`")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", [CHAT, "/completions"])
def test_another_method(router: RouterProcess, method: str, path: str) -> None:
    answer = send(router.port, method, path)
    assert (answer.status, answer.header("allow")) == (405, "POST")
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert answer.error()["code"] == "method_not_allowed"


@pytest.mark.fault("another path", "404 `not_found`")
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", "/v1/chat/completions/", "/v1/embeddings", "/v1//models"])
def test_another_path(router: RouterProcess, path: str) -> None:
    answer = router.post(VALID, path)
    assert (answer.status, answer.error()["code"]) == (404, "not_found")


@pytest.mark.fault(
    "a prompt of a million tokens",
    "scored by its beginning and end, counted as truncated; the model gets all of it",
)
def test_a_million_token_prompt_is_truncated_for_the_classifier_only(stack: Stack) -> None:
    prompt = "a " * 1_000_000
    before = stack.router.metrics().total("llm_router_truncated_prompts_total")
    answer = stack.router.post(chat_body(prompt, model="default@1"))
    assert (answer.status, answer.header("x-router-decision")) == (200, "classifier")
    assert stack.router.metrics().total("llm_router_truncated_prompts_total") == before + 1
    assert stack.cheap.requests()[-1].json()["messages"][0]["content"] == prompt


@pytest.mark.fault(
    "a prompt without text: images, blanks, nothing",
    "the policy's default model, reason `no_text`; the body is unchanged and no URL is fetched",
)
@pytest.mark.parametrize(
    "content", [[{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}], [], "", " \n", None]
)
def test_a_prompt_without_text_goes_to_the_default_model(stack: Stack, content: Any) -> None:
    answer = stack.router.post(chat_body(content))
    assert answer.status == 200
    assert (answer.header("x-router-reason"), answer.header("x-router-model")) == ("no_text", "expensive")
    assert stack.expensive.requests()[-1].json()["messages"][0]["content"] == content


@pytest.mark.fault("control characters, emoji, other scripts, special tokens", "scored like any text")
@pytest.mark.parametrize(
    "content",
    [
        "\x00",
        "\u202e\u0000",
        "日本語" * 5000,
        "🎉" * 20000,
        "e\u0301" * 100,
        "[MASK] [SEP] [CLS]",
        "\ufeff",
        "a" * 100_000,
    ],
    ids=range(8),
)
def test_strange_text_is_scored_or_at_least_answered(router: RouterProcess, content: str) -> None:
    answer = router.post(chat_body(content))
    assert answer.status == 200
    assert answer.header("x-router-decision") in ("classifier", "cache")


@pytest.mark.fault("a body of exactly `max_body_bytes`, and of one byte more", "200, and 413")
def test_the_largest_body_that_is_allowed(router: RouterProcess) -> None:
    empty = len(json.dumps(chat_body("", model="only-cheap")))
    body = json.dumps(chat_body("x" * (4_194_304 - empty), model="only-cheap")).encode()
    assert len(body) == 4_194_304
    assert router.post(body).status == 200
    assert refused(router, body + b" ")["code"] == "body_too_large"
