"""Reading a body under a limit and as strict JSON; writing the one that the upstream gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BodyTimeout, BodyTooLarge, InvalidJSON, InvalidRequest, UnsupportedMediaType
from router.http.asgi import ClientGone, Interruption, Message, Receive, Scope
from router.http.body import MAX_DEPTH, chat_body_for, check_stream_fields, parse_body, read_body
from tests.unit.router.virtual_time import run


def nested(depth: int, opened: str = "[", closed: str = "]") -> bytes:
    """An object whose deepest array or object is at `depth`, the body itself being level 1."""
    return b'{"a":' + (opened * (depth - 1) + "1" + closed * (depth - 1)).encode() + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1',
        b'{"a":1,}',
        b'{"a":1}x',
        b'{"a":1}{"a":1}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1} // comment',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"{\x00}",
        b'{"a":"\x01"}',
        b'{"a":NaN}',
        b'{"a":[Infinity]}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":{"b":-1e999}}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\\ud800\\u0041"}',
        b'{"\\ud800":1}',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"\xff":1}',
        b'{"secret":"\\x"}',
        b'{"a":"secret}',
    ],
)
def test_what_is_not_strict_json_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(InvalidJSON) as refused:
        parse_body(body)
    assert "secret" not in str(refused.value)
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"null", b"true", b"1", b'"secret"', b"[1,2]"])
def test_only_an_object_is_a_body(body: bytes) -> None:
    with pytest.raises(InvalidJSON, match="must be one JSON object"):
        parse_body(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":3}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":1,"a":2}}',
        b'{"x":[[{"y":{"a":1 , "a" : 2}}]]}',
        b'{"":1,"":2}',
        b'{"a":{},"a":[]}',
        b'{"x":[{"a":"\\":\\"","a":"}{"}]}',
    ],
)
def test_the_same_key_twice_is_refused_at_any_depth(body: bytes) -> None:
    with pytest.raises(InvalidJSON, match="same key twice"):
        parse_body(body)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_depth_64_is_read_and_65_is_not(opened: str, closed: str) -> None:
    parse_body(nested(MAX_DEPTH, opened, closed))
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(InvalidJSON, match="64 levels"):
            parse_body(nested(depth, opened, closed))
    with pytest.raises(InvalidJSON):
        parse_body(b'{"a":' + b"[" * 100_000)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(['":"', '\\":', '{"a":1}', "a\\", '"', "::", "\\\\"]),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), below)
    ),
    max_leaves=12,
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["model", "stream", "stream_options", "nim-llm-router", 'a"b:', "\\"]
)
objects = st.dictionaries(keys, json_values, max_size=6)


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, bytes]]]:
    """An object as some client might write it, and its members: key, and the value's own bytes."""
    value = draw(objects)
    space = st.sampled_from(["", " ", "\n", "\t \r\n"])
    members = []
    for key, item in value.items():
        ascii_only, spaced = draw(st.booleans()), draw(st.booleans())
        separators = (" , ", " : ") if spaced else (",", ":")
        text = json.dumps(item, ensure_ascii=ascii_only, separators=separators)
        members.append((key, text.encode()))
    parts = [
        b"".join(
            [
                draw(space).encode(),
                json.dumps(key, ensure_ascii=draw(st.booleans())).encode(),
                draw(space).encode(),
                b":",
                draw(space).encode(),
                raw,
                draw(space).encode(),
            ]
        )
        for key, raw in members
    ]
    return b"{" + b",".join(parts) + b"}", members


@given(written())
def test_any_object_is_read_as_pythons_parser_reads_it(example: tuple[bytes, list[tuple[str, bytes]]]) -> None:
    text, members = example
    body = parse_body(text)
    assert body.fields == json.loads(text)
    assert [(key, bytes(memoryview(value))) for key, value in body.raw.items()] == members


@given(written(), st.sets(keys, max_size=2), st.dictionaries(keys, json_values, max_size=2))
def test_rewriting_keeps_every_other_values_bytes_and_order(
    example: tuple[bytes, list[tuple[str, bytes]]], removed: set[str], replaced: dict[str, Any]
) -> None:
    text, members = example
    new = {key: json.dumps(value).encode() for key, value in replaced.items()}
    rewritten = parse_body(text).rewritten(new, removed)
    expected = {**dict(members), **new}
    kept = [(key, raw) for key, raw in expected.items() if key not in removed]
    assert [(key, bytes(memoryview(value))) for key, value in parse_body(rewritten).raw.items()] == kept


@pytest.mark.parametrize(
    "value",
    [
        b"12345678901234567890123456789012345678901234567890",
        b"1.0",
        b"1.10",
        b"-0",
        b"-0.0",
        b"1E5",
        b"0.1e-7",
        b"3.141592653589793238462643383279",
        b'"\\u00e9\\/\\ud83d\\ude42"',
        b'"\xf0\x9f\x99\x82"',
        b'{ "z" : 1,\n"a":[ ] }',
        b"[1 ,2]",
        b"null",
    ],
)
def test_numbers_escapes_and_spaces_pass_as_they_were_written(value: bytes) -> None:
    body = parse_body(b'{"model":"auto","z":' + value + b',"a":1}')
    assert chat_body_for(body, "gpt", ask_usage=False) == b'{"model":"gpt","z":' + value + b',"a":1}'


def test_an_upstream_gets_its_own_model_and_nothing_of_ours() -> None:
    body = parse_body(b'{"nim-llm-router":{"policy":"p"},"messages":[ {"role":"user"} ],"model":"auto","n":1.0}')
    expected = b'{"messages":[ {"role":"user"} ],"model":"vendor/\\"x\\"","n":1.0}'
    assert chat_body_for(body, 'vendor/"x"', ask_usage=False) == expected
    without = parse_body(b'{"nim-llm-router":{},"messages":[]}')
    assert json.loads(chat_body_for(without, "m", ask_usage=False)) == {"messages": [], "model": "m"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"include_usage": True}),
        (',"stream_options":null', {"include_usage": True}),
        (',"stream_options":{"include_usage":false}', {"include_usage": True}),
        (',"stream_options":{"include_obfuscation":false}', {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_usage_is_asked_for_beside_the_clients_other_stream_options(options: str, expected: dict[str, bool]) -> None:
    body = parse_body(b'{"model":"auto","stream":true' + options.encode() + b"}")
    assert json.loads(chat_body_for(body, "m", ask_usage=True))["stream_options"] == expected
    untouched = json.loads(chat_body_for(body, "m", ask_usage=False))
    assert untouched == {**body.fields, "model": "m"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (False, False)),
        ({"stream": None, "stream_options": None}, (False, False)),
        ({"stream": True}, (True, False)),
        ({"stream": True, "stream_options": {"include_usage": True}}, (True, True)),
        ({"stream": False, "stream_options": {"include_usage": None}}, (False, False)),
    ],
)
def test_stream_fields_are_read(fields: dict[str, Any], expected: tuple[bool, bool]) -> None:
    assert check_stream_fields(fields) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"stream_options": {"include_usage": 0}}, "stream_options.include_usage"),
    ],
)
def test_a_stream_field_of_a_wrong_type_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_stream_fields(fields)
    assert refused.value.param == param


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """A hand-made `receive`: gives its messages, then waits for ever. `given` counts them."""

    def __init__(self, *messages: Message, pause_s: float = 0.0) -> None:
        self._messages: Iterator[Message] = iter(messages)
        self._pause_s = pause_s
        self.given = 0

    async def __call__(self) -> Message:
        await asyncio.sleep(self._pause_s)
        for message in self._messages:
            self.given += 1
            return message
        await asyncio.sleep(1_000_000)
        raise AssertionError("nobody should wait for this long")


def read(receive: Receive, headers: dict[str, str] | None = None, *, limit: int = 10, timeout_s: float = 5.0) -> bytes:
    sent = {"content-type": "application/json", **(headers or {})}
    scope: Scope = {"headers": [(name.encode(), value.encode()) for name, value in sent.items() if value]}

    async def reading() -> bytes:
        with Interruption(scope) as interruption:
            interruption.limit(timeout_s, partial(BodyTimeout.after, timeout_s))
            return await read_body(scope, receive, limit)

    return run(reading())


def test_a_body_is_read_whole_from_its_pieces() -> None:
    assert read(Client(part(b"{}", more=False))) == b"{}"
    assert read(Client(part(b'{"a"'), part(b""), part(b":1"), part(b"}", more=False))) == b'{"a":1}'
    assert read(Client({"type": "http.request"})) == b""


def test_the_limit_is_exact_and_the_excess_is_not_read() -> None:
    assert read(Client(part(b"12345"), part(b"67890", more=False))) == b"1234567890"
    client = Client(part(b"12345"), part(b"678901"), part(b"never read"))
    with pytest.raises(BodyTooLarge, match="limit of 10 bytes"):
        read(client)
    assert client.given == 2


def test_an_announced_size_over_the_limit_is_refused_before_anything_is_read() -> None:
    client = Client(part(b"{}", more=False))
    with pytest.raises(BodyTooLarge):
        read(client, {"content-length": "11"})
    assert client.given == 0
    assert read(client, {"content-length": "10"}) == b"{}"


@pytest.mark.parametrize("pause_s", [0.0, 2.0], ids=["silent", "dribbling"])
def test_a_slow_body_times_out(pause_s: float) -> None:
    with pytest.raises(BodyTimeout, match="5 s"):
        read(Client(part(b"{"), part(b"1"), part(b"2"), pause_s=pause_s))


def test_a_client_that_leaves_within_its_body_is_no_error_of_ours() -> None:
    with pytest.raises(ClientGone):
        read(Client(part(b"{"), {"type": "http.disconnect"}))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "Application/JSON; charset=UTF-8"},
        {"content-type": 'application/json;charset="utf-8"'},
        {"content-type": "application/json; charset=utf-8; profile=x"},
        {"content-type": "application/json; profile=x"},
        {"content-encoding": "identity"},
    ],
)
def test_json_in_utf_8_is_accepted(headers: dict[str, str]) -> None:
    assert read(Client(part(b"{}", more=False)), headers) == b"{}"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=application/json"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-encoding": "gzip"},
        {"content-encoding": "identity, br"},
    ],
)
def test_anything_else_is_an_unsupported_media_type(headers: dict[str, str]) -> None:
    client = Client(part(b"{}", more=False))
    with pytest.raises(UnsupportedMediaType):
        read(client, headers)
    assert client.given == 0


def test_a_body_of_very_many_values_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidJSON, match="250,000 values"):
        parse_body(b'{"a": [' + b"[]," * 130_000 + b"[]]}")
    text = b"[1, 2, {}]," * 100_000
    assert parse_body(b'{"a": "' + text + b'"}').fields["a"] == text.decode()


@given(st.dictionaries(st.text(), st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner))))
def test_what_stands_in_strings_is_never_taken_for_structure(value: dict[str, object]) -> None:
    assert parse_body(json.dumps(value).encode()).fields == value
    assert parse_body(msgspec.json.encode(value)).fields == value
