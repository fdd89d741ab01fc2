"""Reads a request's body: under a limit, in time, as strict JSON; and writes the body that the upstream gets.

Two readings of one body must never differ: what Python's parsers would let pass (NaN, the last of two equal keys)
another server may read otherwise, so it is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from router.errors import BodyTooLarge, InvalidJSON, InvalidRequest, UnsupportedMediaType
from router.http.asgi import WHOLE_BODY, ClientGone, Receive, Scope

MAX_DEPTH = 64
MAX_VALUES = 250_000

_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Return the whole body of a JSON request.

    Raises UnsupportedMediaType, BodyTooLarge (before the excess is read) or ClientGone.
    """
    headers = dict(scope["headers"])
    _check_media_type(headers)
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    whole: bytearray | None = scope.get(WHOLE_BODY)
    if whole is not None:
        body = bytes(whole)
        whole.clear()  # it may be megabytes, and lives as long as the request
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is over the limit of {max_bytes:,} bytes (server.max_body_bytes).")


def _check_media_type(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-type") == b"application/json" and b"content-encoding" not in headers:
        return
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise UnsupportedMediaType("Send the body uncompressed: content-encoding is not supported.")
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    if media_type.strip() != b"application/json":
        raise UnsupportedMediaType("Send the body as 'content-type: application/json'.")
    charset = parameters.replace(b" ", b"").replace(b'"', b"").partition(b"charset=")[2].partition(b";")[0]
    if charset not in (b"", b"utf-8", b"utf8"):
        raise UnsupportedMediaType("Send the body as UTF-8.")


class JSONBody(msgspec.Struct, frozen=True):
    """One JSON object: its values, and each top-level value's bytes as the client wrote them."""

    fields: dict[str, Any]
    raw: dict[str, msgspec.Raw]

    def rewritten(self, replaced: Mapping[str, bytes], removed: Iterable[str] = ()) -> bytes:
        """Return the object with some values replaced (or added) and others removed; all else byte for byte."""
        values = {**self.raw, **{key: msgspec.Raw(value) for key, value in replaced.items()}}
        for key in removed:
            values.pop(key, None)
        return msgspec.json.encode(values)


def parse_body(body: bytes) -> JSONBody:
    """Parse one strict JSON object; raises InvalidJSON saying what is wrong, never what was sent."""
    skeleton = _outside_strings(body)
    if len(skeleton) > MAX_VALUES and sum(map(skeleton.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise InvalidJSON(f"The body has more than {MAX_VALUES:,} values.")
    try:
        fields = msgspec.json.decode(body)
        if not isinstance(fields, dict):
            raise InvalidJSON("The body must be one JSON object.")
        raw = _decode_raw(body)
    except msgspec.DecodeError as error:
        raise InvalidJSON(f"The body is not valid JSON: {_where(error)}.") from None
    except UnicodeDecodeError:
        raise InvalidJSON("The body is not valid UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    if _count_keys(fields) != skeleton.count(b":"):
        raise InvalidJSON("The body has the same key twice in one object.")
    return JSONBody(fields, raw)


def _outside_strings(body: bytes) -> bytes:
    """Return a JSON text without its strings' contents: once no quote is escaped, every second part is outside."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _where(error: msgspec.DecodeError) -> str:
    """Return msgspec's reason; it tells offsets and kinds, never the text itself."""
    return str(error).removeprefix("JSON is malformed: ").partition(" - at ")[0]


def _count_keys(value: Any, depth: int = 1) -> int:  # noqa: ANN401 - JSON of any shape
    """Count the keys of all objects; InvalidJSON below `MAX_DEPTH` levels."""
    if depth > MAX_DEPTH:
        raise _too_deep()
    keys, children = (len(value), value.values()) if type(value) is dict else (0, value)
    for child in children:
        if type(child) is dict or type(child) is list:
            keys += _count_keys(child, depth + 1)
    return keys


def _too_deep() -> InvalidJSON:
    return InvalidJSON(f"The body is nested more than {MAX_DEPTH} levels deep.")


def chat_body_for(body: JSONBody, upstream_model: str, *, ask_usage: bool) -> bytes:
    """Return the body for an upstream: its own model id, no `nim-llm-router`, usage asked for in a stream."""
    replaced = {"model": msgspec.json.encode(upstream_model)}
    if ask_usage:
        options = body.fields.get("stream_options") or {}
        replaced["stream_options"] = msgspec.json.encode({**options, "include_usage": True})
    return body.rewritten(replaced, removed=("nim-llm-router",))


def check_stream_fields(fields: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return (the client wants a stream, and its usage in it); InvalidRequest names the field that is wrong."""
    stream, options = fields.get("stream"), fields.get("stream_options")
    if not (stream is None or isinstance(stream, bool)):
        raise InvalidRequest("'stream' must be true, false or null.", param="stream")
    if not (options is None or isinstance(options, dict)):
        raise InvalidRequest("'stream_options' must be an object or null.", param="stream_options")
    wants_usage = (options or {}).get("include_usage")
    if not (wants_usage is None or isinstance(wants_usage, bool)):
        raise InvalidRequest(
            "'stream_options.include_usage' must be true, false or null.", param="stream_options.include_usage"
        )
    return bool(stream), bool(wants_usage)
