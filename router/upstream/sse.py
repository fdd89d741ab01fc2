"""Server-sent events: cut a byte stream into whole events, and read what a chat chunk says about usage. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from router.errors import UpstreamProtocol

MAX_EVENT_BYTES = 1_000_000

# An event ends at a blank line; lines end with LF, CRLF or CR. A CR that comes last may yet turn out a CRLF.
# Each alternative begins with a literal: so `re` skips to the next one instead of trying at every byte.
_LINE_END = rb"(?:\r\n|\n|\r(?!\n|\Z))"
_END_OF_EVENT = re.compile(rb"\r\n%b|\n%b|\r(?!\n|\Z)%b" % (_LINE_END, _LINE_END, _LINE_END))
_BLANK_LINE = re.compile(rb"\n\n")
_LONGEST_END = 4


class EventSplitter:
    """Feed it bytes as they arrive; it gives back whole events, each with its blank line, byte for byte.

    Raises UpstreamProtocol when an event outgrows `MAX_EVENT_BYTES`.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the events that `data` completes, in order; consume them all."""
        searched = max(0, len(self._rest) - _LONGEST_END + 1)
        buffer = self._rest + data if self._rest else data
        events, start = [], 0
        ends = _END_OF_EVENT if b"\r" in buffer else _BLANK_LINE
        for match in ends.finditer(buffer, searched):
            events.append(buffer[start : match.end()])
            start = match.end()
        self._rest = buffer[start:]
        for event in events:
            yield _within_limit(event)
        _within_limit(self._rest)

    def end(self) -> Iterator[bytes]:
        """Yield what the stream's end completes. Raises UpstreamProtocol when it ended within an event."""
        rest, self._rest = self._rest, b""
        if rest.strip() and not _END_OF_EVENT.search(rest + b"."):  # a CR that came last is one now
            raise UpstreamProtocol("The upstream ended its stream within an event.")
        if rest:
            yield rest


def _within_limit(event: bytes) -> bytes:
    if len(event) > MAX_EVENT_BYTES:
        raise UpstreamProtocol(f"The upstream sent an event of more than {MAX_EVENT_BYTES:,} bytes.")
    return event


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the upstream counted them."""

    prompt_tokens: int
    completion_tokens: int


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # what a counter of floats can add


class _UsageJSON(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class _ChoiceJSON(msgspec.Struct):
    finish_reason: Any = None


class _ChunkJSON(msgspec.Struct):
    choices: list[_ChoiceJSON] | None = None
    usage: _UsageJSON | None = None
    error: Any = None


class Chunk(msgspec.Struct, frozen=True):
    """What matters of one event: its usage, whether it is nothing but usage, an error, a choice's end, or the end."""

    usage: Usage | None = None
    usage_only: bool = False
    is_error: bool = False
    finishes: bool = False
    is_done: bool = False


_NOTHING = Chunk()
_FINISHES = Chunk(finishes=True)
_DONE = Chunk(is_done=True)
_decode_chunk = msgspec.json.Decoder(_ChunkJSON).decode


def read_chunk(event: bytes) -> Chunk:
    """Read one whole event of a chat completion stream. Raises UpstreamProtocol when its data is not JSON."""
    data = _data_of(event)
    if not data:
        return _NOTHING
    if data == b"[DONE]":
        return _DONE
    try:
        chunk = _decode_chunk(data)
    except msgspec.ValidationError:  # JSON of another shape than ours: the client's to understand
        return _NOTHING
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamProtocol("The upstream sent an event that is not a chat completion chunk.") from None
    if chunk.error is not None:
        return Chunk(is_error=True)
    finishes = False
    for choice in chunk.choices or ():
        finishes = finishes or bool(choice.finish_reason)
    if chunk.usage is None:
        return _FINISHES if finishes else _NOTHING
    usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
    return Chunk(usage=usage, usage_only=not chunk.choices, finishes=finishes)


def _data_of(event: bytes) -> bytes:
    """Join an event's `data:` lines; comments and other fields carry nothing for us."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 and b"\r" not in event:
        return event[6:-2]  # the shape of nearly every chunk
    lines = re.split(rb"\r\n|\n|\r", event)
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")).strip()


def read_usage(body: bytes) -> Usage | None:
    """Return the usage of a whole chat completion, None when it has none that can be read."""
    try:
        usage = _decode_chunk(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Usage(usage.prompt_tokens, usage.completion_tokens) if usage else None


def error_event(body: bytes) -> bytes:
    """Return an error object as the event that OpenAI's clients raise from a stream."""
    return b"data: " + body + b"\n\n"
