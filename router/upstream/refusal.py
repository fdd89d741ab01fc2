"""A model's own error answer, as OpenAI's clients understand it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from router.errors import UpstreamRefused, error_body

Headers = Sequence[tuple[bytes, bytes]]


def refusal(model: str, status: int, headers: Headers, body: bytes, pause_s: float | None) -> UpstreamRefused:
    """Return the error for an answer of 400 or more.

    One in OpenAI's shape stays as it is, byte for byte. Another (a proxy's page, a bare text) is put into that shape,
    with its message where it has one.
    """
    said = _read(body)
    message = f"Model '{model}' answered {status}."
    if isinstance(said.get("error"), dict):
        return UpstreamRefused(message, status, headers, body, pause_s)
    own = next((said[key] for key in ("error", "message", "detail") if isinstance(said.get(key), str)), message)
    kind = "invalid_request_error" if status < 500 else "server_error"
    kept = [(name, value) for name, value in headers if name != b"content-type"]
    error = UpstreamRefused(message, status, [(b"content-type", b"application/json"), *kept], b"", pause_s)
    error.answer = error_body(own, status, kind, error.code)
    return error


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
