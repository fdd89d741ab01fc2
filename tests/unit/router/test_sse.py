"""Server-sent events: whole, byte for byte, however the network cuts them; and what a chunk says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import UpstreamProtocol
from router.upstream.sse import (
    MAX_EVENT_BYTES,
    Chunk,
    EventSplitter,
    Usage,
    error_event,
    read_chunk,
    read_usage,
)

END_OF_LINE = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINE = st.sampled_from([b"data: a", b"data:b", b": comment", b"id: 7", b"data", "data: 🙂".encode(), b"data: \xff\x00"])


@st.composite
def event(draw: st.DrawFn) -> bytes:
    """Lines, each with an end of its own, and a blank one."""
    lines = draw(st.lists(LINE, min_size=1, max_size=3))
    text = b"".join(line + draw(END_OF_LINE) for line in lines)
    return text + draw(END_OF_LINE.filter(lambda end: not (text.endswith(b"\r") and end == b"\n")))


def split(*parts: bytes) -> list[bytes]:
    splitter = EventSplitter()
    events = [each for part in parts for each in splitter.feed(part)]
    return events + list(splitter.end())


def reference(stream: bytes) -> list[bytes]:
    """Cut by the standard's words: take lines by CRLF, LF or CR, greedily; an empty one ends the event."""
    events, current = [], b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+", stream):
        current += line
        if line in (b"\n", b"\r\n", b"\r"):
            events.append(current)
            current = b""
    return events + ([current] if current else [])


@given(st.lists(event(), max_size=5), st.data())
def test_any_cut_of_a_stream_gives_the_same_events_and_loses_no_byte(events: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(events)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(*parts) == split(stream)
    assert b"".join(split(*parts)) == stream
    assert all(not re.fullmatch(rb"[\r\n]*", each) for each in split(stream)[:-1])


@given(st.lists(event(), max_size=5))
def test_events_are_what_the_standard_calls_events(events: list[bytes]) -> None:
    stream = b"".join(events)
    assert split(stream) == reference(stream)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\r\n", b"\n\r"])
def test_every_offset_of_every_kind_of_ending(end: bytes) -> None:
    stream = b"data: one" + end + b": ping" + end + b"data: two" + end
    expected = [b"data: one" + end, b": ping" + end, b"data: two" + end]
    assert split(stream) == expected
    for offset in range(len(stream) + 1):
        assert split(stream[:offset], stream[offset:]) == expected
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_an_event_is_given_as_soon_as_it_is_whole() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"data: a\n")) == []
    assert list(splitter.feed(b"\ndata: b\r\n\r")) == [b"data: a\n\n"]
    assert list(splitter.feed(b"\nda")) == [b"data: b\r\n\r\n"]
    assert list(splitter.feed(b"ta: c\n\n")) == [b"data: c\n\n"]
    assert list(splitter.end()) == []


@pytest.mark.parametrize("rest", [b"data: {", b"data: {}\n", b"data: {}\r\n", b"data: {}\r", b":", b"y"])
def test_a_stream_that_ends_within_an_event_is_broken(rest: bytes) -> None:
    splitter = EventSplitter()
    list(splitter.feed(b"data: a\n\n" + rest))
    with pytest.raises(UpstreamProtocol, match="within an event"):
        list(splitter.end())


@pytest.mark.parametrize("rest", [b"", b"\n", b"\r\n", b"\r"])
def test_blank_lines_after_the_last_event_are_passed_on(rest: bytes) -> None:
    assert b"".join(split(b"data: [DONE]\n\n" + rest)) == b"data: [DONE]\n\n" + rest


def test_an_event_may_have_the_limit_but_no_more_however_it_is_cut() -> None:
    def stream(size: int) -> Iterator[bytes]:
        yield b"data: first\n\n"
        whole = b"data: " + b"x" * (size - 8) + b"\n\n"
        step = 300_000
        yield from (whole[i : i + step] for i in range(0, size, step))

    assert len(split(*stream(MAX_EVENT_BYTES))[1]) == MAX_EVENT_BYTES
    for parts in (tuple(stream(MAX_EVENT_BYTES + 1)), (b"".join(stream(MAX_EVENT_BYTES + 1)),)):
        splitter = EventSplitter()
        events = (each for part in parts for each in splitter.feed(part))
        assert next(events) == b"data: first\n\n"
        with pytest.raises(UpstreamProtocol, match="1,000,000 bytes"):
            next(events)


def test_an_endless_event_is_refused_before_it_fills_the_memory() -> None:
    splitter = EventSplitter()
    for _ in range(MAX_EVENT_BYTES // 50_000):
        assert list(splitter.feed(b"x" * 50_000)) == []
    with pytest.raises(UpstreamProtocol):
        list(splitter.feed(b"x"))


def of(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}}


@pytest.mark.parametrize(
    ("event", "chunk"),
    [
        (of({"choices": [{"delta": {"content": "hi"}}], "usage": None}), Chunk()),
        (of({"choices": [{"delta": {}}]}), Chunk()),
        (of({"choices": [], "usage": USAGE}), Chunk(usage=Usage(3, 5), usage_only=True)),
        (of({"usage": USAGE}), Chunk(usage=Usage(3, 5), usage_only=True)),
        (of({"choices": [{"delta": {}}], "usage": USAGE}), Chunk(usage=Usage(3, 5))),
        (of({"choices": [], "usage": {"prompt_tokens": 4}}), Chunk(usage=Usage(4, 0), usage_only=True)),
        (of({"error": {"message": "overloaded"}}), Chunk(is_error=True)),
        (of({"error": "overloaded"}), Chunk(is_error=True)),
        (of({"error": None, "choices": [{"delta": {}}]}), Chunk()),
        (of({"error": None, "choices": [], "usage": USAGE}), Chunk(usage=Usage(3, 5), usage_only=True)),
        (b"data: [DONE]\n\n", Chunk(is_done=True)),
        (b"data:[DONE]\r\n\r\n", Chunk(is_done=True)),
        (b": keep-alive\n\n", Chunk()),
        (b"event: ping\nid: 3\n\n", Chunk()),
        (b"data\n\n", Chunk()),
        (b"data:\n\n", Chunk()),
        (b"\n\n", Chunk()),
        (of([1, 2]), Chunk()),
        (of("text"), Chunk()),
        (of({"choices": "of another shape"}), Chunk()),
    ],
)
def test_a_chunk_s_usage_error_and_nothing_else_is_read(event: bytes, chunk: Chunk) -> None:
    assert read_chunk(event) == chunk


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_data_may_be_spread_over_lines_and_mixed_with_other_fields(end: bytes) -> None:
    event = end.join(
        [b"id: 1", b'data: {"choices": [],', b": comment", b'data:"usage": {"prompt_tokens": 2}}', b"", b""]
    )
    assert read_chunk(event) == Chunk(usage=Usage(2, 0), usage_only=True)
    spread = end.join([b'data: {"usage":', b'data: {"prompt_tokens": 2}}']) + b"\n\n"
    assert read_chunk(spread) == Chunk(usage=Usage(2, 0), usage_only=True)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b'data: {"choices": [}\n\n',
        b"data: <html>\n\n",
        b"data: \xff\xfe\n\n",
        b"data: {} {}\n\n",
        b"data: {}\r\ndata: {}\r\n\r\n",
    ],
)
def test_malformed_data_is_a_protocol_error_that_does_not_quote_it(event: bytes) -> None:
    with pytest.raises(UpstreamProtocol) as refused:
        read_chunk(event)
    assert "html" not in str(refused.value)


@pytest.mark.parametrize("tokens", [-1, 1.5, "3", None, 10**400, True])
def test_a_count_that_no_counter_can_take_is_no_usage(tokens: object) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 5}
    assert read_chunk(of({"choices": [], "usage": usage})) == Chunk()
    assert read_usage(json.dumps({"choices": [], "usage": usage}).encode()) is None


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (json.dumps({"choices": [{}], "usage": USAGE}).encode(), Usage(3, 5)),
        (b'{"choices":[],"usage":null}', None),
        (b"{}", None),
        (b"", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"[]", None),
        (b'{"usage":[]}', None),
        (b'{"usage":' + b"[" * 100_000, None),
    ],
)
def test_the_usage_of_a_whole_answer(body: bytes, usage: Usage | None) -> None:
    assert read_usage(body) == usage


def test_an_error_becomes_one_event() -> None:
    event = error_event(b'{"error": {"message": "gone"}}')
    assert split(event) == [event]
    assert read_chunk(event).is_error
