"""What must hold of any bytes at all: the properties that fuzzing tries to break, and that the corpus replays.

Each target takes bytes and raises only when a promise is broken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

from router.decide.prompt import Prompt, texts_to_classify
from router.errors import ClientError, InvalidJSON, UpstreamProtocol
from router.http.body import JSONBody, chat_body_for, check_stream_fields, parse_body
from router.upstream.http1 import BrokenResponse, Connection, Origin, Pool
from router.upstream.sse import EventSplitter, read_chunk, read_usage


def body(data: bytes) -> None:
    """A request's body is refused, or means to us what it means to every other reader of JSON."""
    try:
        parsed = parse_body(data)
    except InvalidJSON:
        return
    assert parsed.fields == strictly(data)
    try:
        _, wants_usage = check_stream_fields(parsed.fields)
        prompt = Prompt.of_chat(parsed.fields)
    except ClientError:
        return
    texts = [texts_to_classify(prompt.messages, mode, 1000) for mode in ("hardest", "last", "joined")]
    assert all(isinstance(text, str) for each in texts for text in each)
    _holds_rewritten(parsed, ask_usage=not wants_usage)


def _holds_rewritten(parsed: JSONBody, *, ask_usage: bool) -> None:
    """The upstream reads the same fields, but for `model`, `nim-llm-router` and the usage that we ask for."""
    expected = {**parsed.fields, "model": "upstream"}
    expected.pop("nim-llm-router", None)
    if ask_usage:
        expected["stream_options"] = {**(expected.get("stream_options") or {}), "include_usage": True}
    assert strictly(chat_body_for(parsed, "upstream", ask_usage=ask_usage)) == expected


def strictly(data: bytes) -> Any:
    """Read JSON with Python's own parser, made strict; ValueError where it would guess."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def refused(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(data.decode(), object_pairs_hook=once, parse_constant=refused)


def stream(data: bytes) -> None:
    """A stream gives the same events however the network cuts it, and loses no byte; each event can be read."""
    whole = _events([data])
    for cut in range(len(data) + 1):
        assert _events([data[:cut], data[cut:]]) == whole
    assert _events(_bytewise(data)) == whole
    events, broken = whole
    assert data.startswith(b"".join(events))
    assert broken or b"".join(events) == data
    for event in events:
        read_usage(event)
        with suppress(UpstreamProtocol):
            read_chunk(event)


def _events(parts: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """Return the events, and whether the stream ended within one."""
    splitter = EventSplitter()
    events: list[bytes] = []
    for part in parts:
        events += splitter.feed(part)
    try:
        return [*events, *splitter.end()], False
    except UpstreamProtocol:
        return events, True


class Heard(NamedTuple):
    """An upstream's answer as the router takes it; `broken` when it broke off or is not HTTP."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    broken: bool


def answer(data: bytes) -> None:
    """An upstream's answer is the same however the network cuts it, or broken in every cut."""
    whole = asyncio.run(_hear([data]))
    for parts in ([data[: len(data) // 2], data[len(data) // 2 :]], _bytewise(data)):
        cut = asyncio.run(_hear(parts))
        assert cut.broken == whole.broken
        assert cut == whole or cut.broken


async def _hear(parts: Iterable[bytes]) -> Heard:
    """Let a connection receive these parts and then the peer's end."""
    loop = asyncio.get_running_loop()
    connection = Connection(Pool(), Origin(False, "upstream", 80), loop)
    connection.connection_made(cast(asyncio.Transport, _Wire()))
    connection.send(b"")
    for part in parts:
        connection.data_received(part)
    connection.eof_received()
    connection.connection_lost(None)
    received = b""
    try:
        await connection.head(by=loop.time() + 1)
        while part := await connection.read(by=loop.time() + 1):
            received += part
    except BrokenResponse:
        return Heard(connection.status, connection.headers, received, broken=True)
    return Heard(connection.status, connection.headers, received, broken=False)


class _Wire:
    """The part of a transport that a connection calls; nothing leaves."""

    def __getattr__(self, name: str) -> Callable[..., bool]:
        return lambda *_: False


def _bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


TARGETS: dict[str, Callable[[bytes], None]] = {"body": body, "stream": stream, "answer": answer}
