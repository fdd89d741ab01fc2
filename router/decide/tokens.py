"""How many tokens a model will count for a request: an estimate, before any tokenizer of its vendor has seen it. Pure.

It decides whether a request fits a model's `context_limit`, and what it is expected to cost. Vendors count differently;
the constants err on the side of more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CHARS_PER_TOKEN = 4
"""Of ASCII: English prose has a little more, code a little less."""
BYTES_PER_TOKEN = 3
"""Of other UTF-8: a token for each Chinese, Japanese or Korean character, two for three Greek or Cyrillic ones."""
PER_MESSAGE = 4
"""What frames a message and names its role."""
PER_IMAGE = 1000
"""Of an image (by vendor and size 250 to 1,600), a sound or a file, which are not opened."""
PER_SMALL_IMAGE = 85
"""Of an image with `detail: low`."""


def estimate(messages: Sequence[Mapping[str, Any]], declared: Iterable[Any] = ()) -> int:
    """Return the tokens of the messages and of what is declared beside them: tools, functions, a JSON schema."""
    return sum(map(_of_message, messages)) + sum(map(_of_json, declared))


def _of_message(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    tokens = sum(map(_of_part, content)) if isinstance(content, list) else of_text(content or "")
    calls = (message.get(field) for field in ("tool_calls", "function_call"))
    return PER_MESSAGE + tokens + sum(_of_json(call) for call in calls if call)


def _of_part(part: Mapping[str, Any]) -> int:
    if part["type"] == "text":
        return of_text(part["text"])
    image = part.get("image_url")
    return PER_SMALL_IMAGE if isinstance(image, dict) and image.get("detail") == "low" else PER_IMAGE


def _of_json(value: object) -> int:
    return of_text(json.dumps(value, ensure_ascii=False))


def of_text(text: str) -> int:
    """Return the tokens of a text."""
    if text.isascii():
        return len(text) // CHARS_PER_TOKEN
    ascii_chars = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode("utf-8", "replace")) - ascii_chars
    return ascii_chars // CHARS_PER_TOKEN + other_bytes // BYTES_PER_TOKEN
