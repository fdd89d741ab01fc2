"""Reading a chat request the way an upstream does: the fields that matter, the rest ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

Json = dict[str, Any]

_TOKENS_PER_IMAGE = 85
_TOKENS_PER_MESSAGE = 4
_CHARACTERS_PER_TOKEN = 4
_UNLIMITED = 1 << 30


class BadRequestError(ValueError):
    """The request cannot be answered; the answer's status, and the `param` and `code` of its error."""

    def __init__(self, message: str, param: str | None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the answer depends on. `tool` is the function to call, `schema` the JSON to answer in."""

    model: str
    prompt: str
    prompt_tokens: int
    images: int
    stream: bool
    include_usage: bool
    choices: int
    max_tokens: int
    tool: Json | None
    schema: Json | None


def read_request(body: bytes) -> ChatRequest:
    """Read a chat completion body.

    Raises `BadRequestError`: not JSON, or a field of the wrong type.
    """
    try:
        return _read(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the body is not JSON: {error}", None) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise BadRequestError(f"a field has the wrong shape: {error}", None) from error


def _read(fields: object) -> ChatRequest:
    if not isinstance(fields, dict):
        raise BadRequestError("the body must be a JSON object", None)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadRequestError("'messages' must be a non-empty array of objects", "messages")
    model = fields.get("model")
    if not isinstance(model, str):
        raise BadRequestError("'model' must be a string", "model")
    texts = [_text(message.get("content")) for message in messages]
    images = sum(_images(message.get("content")) for message in messages)
    estimate = _TOKENS_PER_MESSAGE * len(messages) + -(-sum(map(len, texts)) // _CHARACTERS_PER_TOKEN)
    return ChatRequest(
        model=model,
        prompt="\n".join(texts),
        prompt_tokens=estimate + _TOKENS_PER_IMAGE * images,
        images=images,
        stream=bool(fields.get("stream")),
        include_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        choices=_count(fields, "n", 1),
        max_tokens=_count(fields, "max_completion_tokens", _count(fields, "max_tokens", _UNLIMITED)),
        tool=_tool(fields, answered=messages[-1].get("role") == "tool"),
        schema=_schema(fields.get("response_format")),
    )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return ""


def _images(content: object) -> int:
    if not isinstance(content, list):
        return 0
    return sum(isinstance(part, dict) and part.get("type") == "image_url" for part in content)


def _count(fields: Json, name: str, default: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequestError(f"{name!r} must be a whole number above 0", name)
    return value


def _tool(fields: Json, *, answered: bool) -> Json | None:
    """Return the function to call: the chosen one, else the first unless its result is already there."""
    functions = [tool["function"] for tool in fields.get("tools") or () if tool.get("type") == "function"]
    choice = fields.get("tool_choice", "auto")
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        for function in functions:
            if function["name"] == name:
                return dict(function)
        raise BadRequestError("'tool_choice' names a function that is not in 'tools'", "tool_choice")
    if answered and choice != "required":
        return None
    return dict(functions[0])


def _schema(response_format: Json | None) -> Json | None:
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return None
    if kind == "json_schema":
        return dict(response_format["json_schema"].get("schema", {}))
    return {}
