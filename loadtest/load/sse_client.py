"""Reading a streamed chat completion with the time of each token. Pure: lines and a clock come from outside.

The caller must hand over each line as soon as it is there. Reads of a fixed size and most `iter_lines` wait until
their buffer is full, and then a first token of 50 ms looks like one of two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

_END = b"[DONE]"


class StreamError(Exception):
    """The stream is not a complete answer; `kind` is the error type to count it under."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Usage(msgspec.Struct):
    """The tokens that the upstream counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None
    refusal: Any = None

    def has_token(self) -> bool:
        return bool(self.content or self.reasoning_content or self.tool_calls or self.refusal)


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


class _Whole(msgspec.Struct):
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """A complete stream: when its tokens came (times of the caller's clock), and what its last events told."""

    token_times: tuple[float, ...]
    usage: Usage | None
    finish_reason: str | None

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Seconds between one token's event and the next."""
        return tuple(later - earlier for earlier, later in zip(self.token_times, self.token_times[1:], strict=False))


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


def read_stream(readline: Callable[[], bytes], clock: Callable[[], float]) -> Stream:
    """Read to `data: [DONE]`, noting the time of every event that carries a token.

    `readline` returns one line with its end, or b"" when the body is over.
    Raises `StreamError`: error_event, bad_event, no_token, or stream_cut when the body ends before [DONE].
    """
    times: list[float] = []
    usage: Usage | None = None
    finish_reason: str | None = None
    for data in events(readline):
        if data == _END:
            if not times:
                raise StreamError("no_token", "the stream ended without a token")
            return Stream(tuple(times), usage, finish_reason)
        now = clock()
        try:
            chunk = _decode(data)
        except msgspec.DecodeError as error:
            raise StreamError("bad_event", f"an event is not a chat completion chunk: {error}") from error
        if chunk.error is not None:
            raise StreamError("error_event", "the stream carried an error event")
        if any(choice.delta.has_token() for choice in chunk.choices):
            times.append(now)
        usage = chunk.usage or usage
        finish_reason = next((c.finish_reason for c in chunk.choices if c.finish_reason), finish_reason)
    raise StreamError("stream_cut", "the stream ended before [DONE]")


def read_whole(body: bytes) -> Usage | None:
    """Return the usage of an answer that came in one piece. Raises `StreamError`: bad_body."""
    try:
        return _decode_whole(body).usage
    except msgspec.DecodeError as error:
        raise StreamError("bad_body", f"the body is not a chat completion: {error}") from error


def events(readline: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield the data of each server-sent event once its closing blank line is there; comments are skipped."""
    data: list[bytes] = []
    while line := readline():
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []
