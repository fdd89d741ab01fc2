"""Chat completions through the router, with the real OpenAI client: what arrives, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import openai
import pytest

from loadtest.simulated_llm import SimulatedLLM
from tests.integration.canned_llm import JSON_HEAD, SSE_HEAD, whole
from tests.integration.conftest import CHEAP_KEY, Stack
from tests.integration.router_process import CANARY, CHAT, EXPLANATORY_HEADERS, RouterProcess, chat_body, events

QUESTION = "What is the capital of France?"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ghent"}'}}
USER: Any = {"role": "user", "content": QUESTION}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "roles": {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Very."}, USER]
    },
    "tools": {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    "a chosen tool": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "a tool turn": {
        "tools": [TOOL],
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12 °C, rain"},
        ],
    },
    "images": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is on this picture?"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                ],
            }
        ]
    },
    "a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "strict": True,
                "schema": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    },
    "choices": {"n": 2, "seed": 7, "temperature": 0.25, "logprobs": True, "top_logprobs": 3, "stop": ["\n\n", "END"]},
    "limits": {"max_completion_tokens": 12, "metadata": {"ticket": "a-1"}, "user": "u-1"},
    "unknown fields": {"extra_body": {"a_field_of_2030": {"nested": [1, 2.50, None, "é"]}, "thinking_budget": 1e3}},
}


def ask(client: openai.OpenAI, model: str, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "messages": [USER], **fields})


def direct_client(llm: SimulatedLLM, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=llm.base_url, api_key=key, max_retries=0, timeout=20)


def raw_values(body: bytes) -> dict[str, bytes]:
    """Return each top-level value's bytes as they were sent."""
    return {key: bytes(value) for key, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def without_number(completion: Mapping[str, Any]) -> str:
    """Return an answer as text, without what the simulated LLM numbers and dates."""
    text = json.dumps({key: value for key, value in completion.items() if key != "created"})
    return text.replace(str(completion["id"]), "ID")


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_upstream_gets_what_was_sent_and_the_client_what_was_answered(
    stack: Stack, client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    through = ask(client, "only-cheap", **fields)
    with direct_client(stack.cheap, CHEAP_KEY) as direct_to:
        direct = ask(direct_to, "cheap-sim", **fields)
    assert without_number(through.model_dump()) == without_number(direct.model_dump())
    sent, received = (raw_values(request.body) for request in reversed(stack.cheap.requests()[-2:]))
    assert received == sent  # both name the upstream's model: the policy's own name was replaced


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_stream_is_the_same_stream(stack: Stack, client: openai.OpenAI, fields: dict[str, Any]) -> None:
    wanted = {**fields, "stream": True, "stream_options": {"include_usage": True}}
    through = [chunk.model_dump() for chunk in ask(client, "only-cheap", **wanted)]
    with direct_client(stack.cheap, CHEAP_KEY) as direct_to:
        direct = [chunk.model_dump() for chunk in ask(direct_to, "cheap-sim", **wanted)]
    assert list(map(without_number, through)) == list(map(without_number, direct))
    assert through[-1]["usage"]["completion_tokens"] > 0
    sent, received = (raw_values(request.body) for request in reversed(stack.cheap.requests()[-2:]))
    assert received == sent


def test_values_keep_their_very_bytes(stack: Stack) -> None:
    """No number, escape or space is written anew on the way."""
    values = {
        "messages": '[ {"role":"user","content":"caf\\u00e9 \\/ \U0001f600 \\ud83d\\ude00"}\t]',
        "temperature": "1.50e0",
        "seed": "123456789012345678901234567890",
        "logit_bias": '{ "50256" : -100.0 }',
        "x": "[1E2, 0.1000, -0, null , true]",
    }
    body = "{ " + ", ".join(f'"{key}" : {value}' for key, value in values.items()) + ', "model":"only-cheap" }'
    assert stack.router.post(body.encode()).status == 200
    received = raw_values(stack.cheap.requests()[-1].body)
    assert received.pop("model") == b'"cheap-sim"'
    assert received == {key: value.encode() for key, value in values.items()}


ODD_ANSWER = (
    '{ "id" : "x\\u00e9",\r\n\t"choices":[ '
    '{"index":0,"message":{"role":"assistant","content":"h\\u0069 \u00e9 \U0001f600"},'
    '"finish_reason":"stop", "new": 1.0e0} ] ,"usage":{"prompt_tokens":3,"completion_tokens":4},"usage2":{} }\n\n'
).encode()


@pytest.mark.parametrize(
    "body", [ODD_ANSWER, b"", b"not JSON", b"\xff\xfe\x00", b'{"usage": 7}', b"[1]", b'{"usage": null, "choices": {}}']
)
def test_an_answer_comes_back_byte_for_byte(stack: Stack, body: bytes) -> None:
    head = JSON_HEAD + b"X-Ratelimit-Remaining: 9\r\nX-Request-Id: theirs\r\nSet-Cookie: a=b\r\n"
    stack.canned.say(whole(body, head))
    answer = stack.router.post(chat_body(model="canned"))
    assert (answer.status, answer.body) == (200, body)
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-ratelimit-remaining") == "9"
    assert answer.header("x-upstream-request-id") == "theirs"
    assert answer.header("x-request-id") != "theirs"
    assert answer.header("set-cookie") is None


def test_a_stream_comes_back_byte_for_byte_however_the_network_cuts_it(stack: Stack) -> None:
    stream = (
        b': a comment\n\ndata: {"model":"theirs","choices":[{"index":0,"delta":{"content":"\xc3\xa9"}}]}\n\n'
        b'event: message\r\nid: 7\r\ndata: {"choices":\r\ndata: []}\r\n\r\n'
        b'data:{"choices":[],"usage":null}\n\ndata: [DONE]\n\n'
    )
    cuts = [stream[i : i + 1] for i in range(len(stream))]
    stack.canned.say(SSE_HEAD, *cuts)
    answer = stack.router.post(chat_body(model="canned", stream=True, stream_options={"include_usage": True}))
    assert answer.body == stream
    assert answer.header("content-type") == "text/event-stream"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["auto", "task", "value", "only-cheap", "cheap"])
def test_every_answer_explains_itself(client: openai.OpenAI, model: str, stream: bool) -> None:
    with client.chat.completions.with_streaming_response.create(model=model, messages=[USER], stream=stream) as answer:
        headers = {name: answer.headers.get(name) for name in EXPLANATORY_HEADERS}
        answer.read()
    assert None not in headers.values()
    scored = model in ("auto", "task", "value")
    assert headers["x-router-classifier-version"] == ("1" if scored else "none")
    assert (headers["x-router-score"] != "none") == scored
    assert headers["x-router-decision"] in (("classifier", "cache") if scored else ("none",))
    assert 0 < float(headers["x-router-overhead-ms"] or 0) < 5000


def test_a_streamed_chunk_names_the_upstreams_model(client: openai.OpenAI) -> None:
    assert {chunk.model for chunk in ask(client, "default@-1", stream=True)} == {"expensive-sim"}


@pytest.mark.parametrize(
    ("sent", "kept"), [("my-id_1.2:3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("é", False)]
)
def test_request_ids(router: RouterProcess, sent: str, kept: bool) -> None:
    answers = [
        router.post(chat_body(model="cheap"), headers={"x-request-id": sent}),
        router.post(b"{", headers={"x-request-id": sent}),
        router.get("/nowhere", headers={"x-request-id": sent}),
    ]
    ids = [answer.header("x-request-id") for answer in answers]
    assert None not in ids
    assert [id_ == sent for id_ in ids] == [kept] * 3
    assert kept or len(set(ids)) == 3


def test_the_upstream_sees_the_routers_key_and_nothing_of_the_client(stack: Stack, client: openai.OpenAI) -> None:
    headers = {
        "x-api-key": "sk-other",
        "cookie": "session=1",
        "x-forwarded-for": "1.2.3.4",
        "x-router-policy": "only-cheap",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    ask(client, "auto", extra_headers=headers, extra_body={"nim-llm-router": {"policy": "only-cheap"}})
    seen = stack.cheap.requests()[-1]
    assert seen.headers["authorization"] == f"Bearer {CHEAP_KEY}"
    assert seen.headers["traceparent"] == headers["traceparent"]
    assert not {"x-api-key", "cookie", "x-forwarded-for", "x-router-policy"} & set(seen.headers)
    assert f"sk-client-{CANARY}" not in str(seen)
    assert "nim-llm-router" not in seen.json()
    assert seen.path == CHAT


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_usage_is_counted_though_the_client_did_not_ask(stack: Stack, options: dict[str, Any] | None) -> None:
    def counts() -> list[float]:
        page = stack.router.metrics()
        return [
            page.total("llm_router_tokens_total", model="cheap", kind="prompt"),
            page.total("llm_router_tokens_total", model="cheap", kind="completion"),
            page.total("llm_router_cost_dollars_total", policy="default", model="cheap"),
            page.total("llm_router_baseline_dollars_total", policy="default"),
        ]

    before = counts()
    fields = {} if options is None else {"stream_options": options}
    answer = stack.router.post(chat_body(QUESTION, model="default@1", stream=True, **fields))
    *chunks, done = events(answer.body)
    assert done == b"[DONE]"
    assert all(json.loads(chunk)["choices"] and not json.loads(chunk).get("usage") for chunk in chunks)
    asked = stack.cheap.requests()[-1].json()
    assert asked["stream_options"] == {"include_usage": True}
    tokens = len([c for c in chunks if json.loads(c)["choices"][0]["delta"].get("content")])
    prompt, completion, cost, baseline = (now - then for now, then in zip(counts(), before, strict=True))
    assert completion == tokens > 0
    assert prompt > 0
    assert cost == pytest.approx((prompt * 0.15 + completion * 0.60) / 1e6)
    assert baseline == pytest.approx((prompt * 2.5 + completion * 10.0) / 1e6)


def test_an_unknown_price_is_counted_as_unknown(stack: Stack) -> None:
    before = stack.router.metrics().total("llm_router_unpriced_requests_total", model="unpriced")
    assert stack.router.post(chat_body(model="unpriced")).status == 200
    page = stack.router.metrics()
    assert page.total("llm_router_unpriced_requests_total", model="unpriced") == before + 1
    assert page.total("llm_router_cost_dollars_total", model="unpriced") == 0


def test_nvidias_path(stack: Stack) -> None:
    answer = stack.router.post(chat_body(model="only-cheap"), "/completions")
    assert (answer.status, answer.header("x-router-model")) == (200, "cheap")
    assert stack.cheap.requests()[-1].path == CHAT


def test_text_is_found_wherever_a_message_keeps_it(router: RouterProcess) -> None:
    """The same question scores the same as text, as parts, after tool turns, and beside an image."""
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    tool_turns = [
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Prove Fermat's last theorem rigorously."},
    ]
    conversations = [
        [USER],
        [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        [{"role": "user", "content": [image, {"type": "text", "text": QUESTION}]}],
        [{"role": "system", "content": "Answer like a pirate."}, USER],
        [USER, *tool_turns],
        [{"role": "developer", "content": QUESTION}],
    ]
    scores = {router.post(chat_body(messages=messages)).header("x-router-score") for messages in conversations}
    assert len(scores) == 1
    assert "none" not in scores


async def test_many_at_once_get_their_own_answers(stack: Stack, client: openai.OpenAI) -> None:
    """Callers share batches and connections; each gets the answer to its own prompt."""
    prompts = [f"Question {i}: how many legs has a spider?" for i in range(40)]

    async def answer(client: openai.AsyncOpenAI, model: str, prompt: str, stream: bool) -> str:
        messages: Any = [{"role": "user", "content": prompt}]
        result: Any = await client.chat.completions.create(model=model, messages=messages, stream=stream)
        if not stream:
            return str(result.choices[0].message.content)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in result])

    options: dict[str, Any] = {"max_retries": 0, "timeout": 20}
    async with (
        openai.AsyncOpenAI(base_url=stack.router.base_url, api_key="client", **options) as routed,
        openai.AsyncOpenAI(base_url=stack.cheap.base_url, api_key=CHEAP_KEY, **options) as direct,
    ):
        through = await asyncio.gather(
            *(answer(routed, "default@1", prompt, stream=i % 2 == 0) for i, prompt in enumerate(prompts))
        )
        expected = await asyncio.gather(*(answer(direct, "cheap-sim", prompt, stream=False) for prompt in prompts))
    assert through == expected
    assert len(set(through)) > 30


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
def test_json_by_any_of_its_names(router: RouterProcess, content_type: str) -> None:
    body = json.dumps(chat_body(model="cheap")).encode()
    assert router.post(body, headers={"content-type": content_type}).status == 200
