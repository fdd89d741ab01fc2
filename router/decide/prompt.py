"""From an OpenAI request to the texts that are classified. Pure.

Only people's words decide: user turns. An agent's tool results and the assistant's own answers do not change
how hard the user's question is, so an agent loop scores the same user turn again (a cache hit) and keeps its model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from router.decide.tokens import estimate
from router.errors import InvalidRequest

HARDEST_OF_TURNS = 6
_DECLARED = ("tools", "functions", "response_format")


class Prompt(msgspec.Struct, frozen=True, dict=True):
    """What the decision is made from: the conversation, and the output limit that the request sets itself.

    `needs` are those of `settings.CAPABILITIES` that the request makes use of. `declared` are the tools, functions and
    JSON schema that it brings along.
    """

    messages: Sequence[dict[str, Any]]
    max_output_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    declared: tuple[Any, ...] = ()

    @cached_property
    def estimated_tokens(self) -> int:
        """The tokens that a model will count, without those of its answer."""
        return estimate(self.messages, self.declared)

    @classmethod
    def of_text(cls, text: str) -> Prompt:
        """Return a prompt of one user turn."""
        return cls([{"role": "user", "content": text}])

    @classmethod
    def of_chat(cls, fields: Mapping[str, Any]) -> Prompt:
        """Read a chat body's `messages` and output limit; InvalidRequest names the field that is wrong."""
        limit = _positive(fields.get("max_completion_tokens")) or _positive(fields.get("max_tokens"))
        messages = check_messages(fields.get("messages"))
        declared = tuple(filter(None, map(fields.get, _DECLARED)))
        return cls(messages, limit, frozenset(_needs(fields, messages)), declared)


def _positive(limit: object) -> int | None:
    return limit if type(limit) is int and limit > 0 else None


def _needs(fields: Mapping[str, Any], messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what a model must be able to do beside reading and writing text."""
    if fields.get("tools") or fields.get("functions"):
        yield "tools"
    response_format = fields.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        yield "json_schema"
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and any(part["type"] == "image_url" for part in content):
            yield "vision"


def check_messages(messages: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON of any shape comes in
    """Return `messages` when it is a non-empty list of messages in OpenAI's shape.

    Raises `InvalidRequest` naming the field, e.g. `messages[2].content`.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(
            f"'messages' must be a non-empty array of messages, not {_shown(messages)}.", param="messages"
        )
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(f"'messages[{i}]' must be an object, not {_shown(message)}.", param=f"messages[{i}]")
        role = message.get("role")
        if not isinstance(role, str):
            raise InvalidRequest(
                f"'messages[{i}].role' must be a string such as 'user', not {_shown(role)}.",
                param=f"messages[{i}].role",
            )
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            raise InvalidRequest(
                f"'messages[{i}].content' must be a string, an array of parts or null, not {_shown(content)}.",
                param=f"messages[{i}].content",
            )
        if isinstance(content, list):
            _check_parts(content, i)
    return messages


def _check_parts(parts: list[Any], i: int) -> None:
    for j, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequest(
                f"'messages[{i}].content[{j}]' must be an object with a 'type', not {_shown(part)}.",
                param=f"messages[{i}].content[{j}]",
            )
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequest(
                f"'messages[{i}].content[{j}].text' must be a string, not {_shown(part.get('text'))}.",
                param=f"messages[{i}].content[{j}].text",
            )


def texts_to_classify(messages: Sequence[dict[str, Any]], conversation: str, max_chars: int) -> list[str]:
    """Return the texts to score, oldest first, each at most `max_chars` long; empty when there is no text at all.

    `conversation` is `hardest` (the last user turns, each by itself), `last` (the last user turn) or `joined` (all
    user turns as one text, the newest first, because a classifier reads the beginning of what is too long).
    Without any user text the system or developer text stands in.
    """
    turns = list(_texts(messages, ("user",))) or list(_texts(messages, ("system", "developer")))
    if conversation == "joined":
        return ["\n\n".join(reversed(turns))[:max_chars]] if turns else []
    wanted = HARDEST_OF_TURNS if conversation == "hardest" else 1
    return [turn[:max_chars] for turn in turns[-wanted:]]


def opening_text(messages: Sequence[dict[str, Any]]) -> str:
    """Return the first user turn (or else the system's text): what a conversation keeps however long it gets."""
    turns = (text for roles in (("user",), ("system", "developer")) for text in _texts(messages, roles))
    return next(turns, "")


def _texts(messages: Sequence[dict[str, Any]], roles: tuple[str, ...]) -> Iterator[str]:
    for message in messages:
        if message["role"] in roles:
            text = _text_of(message.get("content"))
            if text and not text.isspace():
                yield text


def _text_of(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _shown(value: object) -> str:
    """Name a value's JSON type without showing a prompt's text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, list) and not value:
        return "an empty array"
    names = {str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), "a value of another type")
