"""Tokens and their times out of a byte stream, however the network cut it."""

import json

import pytest

from loadtest.load.sse_client import StreamError, events, read_stream, read_whole


def data(chunk):
    return f"data: {json.dumps(chunk)}\n\n".encode()


def token(text="word ", **more):
    return data({"choices": [{"index": 0, "delta": {"content": text, **more}, "finish_reason": None}]})


ROLE = data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
LAST = data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = data({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"


class Wire:
    """A body that arrives in pieces; every piece costs one second of the clock."""

    def __init__(self, *pieces):
        self._pieces, self._buffer, self.now = list(pieces), b"", 0.0

    def readline(self):
        while b"\n" not in self._buffer:
            if not self._pieces:
                return b""
            self._buffer += self._pieces.pop(0)
            self.now += 1.0
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def read(self):
        return read_stream(self.readline, lambda: self.now)


def test_the_first_token_is_the_first_that_carries_text():
    stream = Wire(ROLE, token("one"), token("two"), token("three"), LAST, USAGE, DONE).read()
    assert stream.token_times == (2.0, 3.0, 4.0)
    assert stream.gaps_s == (1.0, 1.0)
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (7, 3)
    assert stream.finish_reason == "stop"


def test_an_event_counts_when_its_last_byte_is_there():
    first = token("one")
    stream = Wire(first[:10], first[10:-1], first[-1:] + token("two"), LAST + DONE).read()
    assert stream.token_times == (3.0, 3.0)


@pytest.mark.parametrize("cut", range(1, 40))
def test_where_the_network_cuts_does_not_change_what_is_read(cut):
    body = ROLE + token("\u00e9\u4e2d") + token("b") + LAST + USAGE + DONE
    stream = Wire(*(body[start : start + cut] for start in range(0, len(body), cut))).read()
    assert (len(stream.token_times), stream.usage.completion_tokens, stream.finish_reason) == (2, 3, "stop")


def test_carriage_returns_comments_and_other_fields_are_understood():
    body = b": ping\r\n\r\nevent: x\r\nid: 1\r\n" + token("a").replace(b"\n", b"\r\n") + DONE.replace(b"\n", b"\r\n")
    assert len(Wire(body).read().token_times) == 1


def test_data_over_several_lines_is_one_event():
    assert list(events(Wire(b"data: a\ndata:b\n\ndata: c\n\n").readline)) == [b"a\nb", b"c"]


@pytest.mark.parametrize(
    "delta",
    [{"tool_calls": [{"index": 0}]}, {"reasoning_content": "hm"}, {"refusal": "no"}],
    ids=lambda d: next(iter(d)),
)
def test_more_than_text_is_a_token(delta):
    body = data({"choices": [{"index": 0, "delta": delta}]})
    assert len(Wire(body, DONE).read().token_times) == 1


def test_unknown_fields_and_nulls_do_no_harm():
    body = data({"id": 1, "choices": [{"delta": {"content": "a", "x": []}, "logprobs": None}], "usage": None, "z": {}})
    assert Wire(body, DONE).read().usage is None


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((ROLE, token()), "stream_cut"),
        ((token(), LAST[: len(LAST) // 2]), "stream_cut"),
        ((ROLE, DONE), "no_token"),
        ((token(), b"data: {broken\n\n", DONE), "bad_event"),
        ((data({"error": {"message": "overloaded"}}),), "error_event"),
        ((), "stream_cut"),
    ],
)
def test_what_is_not_a_complete_answer_says_why(pieces, kind):
    with pytest.raises(StreamError) as caught:
        Wire(*pieces).read()
    assert caught.value.kind == kind


def test_a_whole_answer_tells_its_usage():
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 5}}).encode()
    usage = read_whole(body)
    assert usage is not None
    assert usage.completion_tokens == 5
    assert read_whole(b"{}") is None
    with pytest.raises(StreamError) as caught:
        read_whole(b"<html>")
    assert caught.value.kind == "bad_body"
