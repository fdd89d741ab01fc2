"""The prompts of the load test: JSON Lines, checked when they are read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from loadtest.labelled_set import labelled_prompts

COMMITTED = Path(__file__).with_name("prompts.jsonl")

_REFERENCE = "\ue000"  # a private character: where a prompt's reference number goes
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_FIELDS = frozenset({"id", "task", "language", "messages", "tools", "max_tokens", "weight"})


class PromptError(ValueError):
    """A line that is no prompt; the message names file, line and field."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation to send. `weight` is how often it is chosen relative to the others."""

    id: str
    task: str
    language: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request body, encoded once: `before` and `after` the place where a reference number makes it unique."""

    before: bytes
    after: bytes

    def body(self, reference: str = "") -> bytes:
        """Return the JSON; an empty reference leaves the prompt word for word."""
        return self.before + reference.encode() + self.after


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts ready to send to one model."""

    plain: Sequence[Request]
    streamed: Sequence[Request]
    _weights: Sequence[float] = field(repr=False)

    @classmethod
    def of(cls, prompts: Iterable[Prompt], model: str) -> Self:
        """Encode every prompt's request to `model`, streamed and not."""
        listed = list(prompts)
        return cls(
            plain=[encode(prompt, model, stream=False) for prompt in listed],
            streamed=[encode(prompt, model, stream=True) for prompt in listed],
            _weights=[prompt.weight for prompt in listed],
        )

    def pick(self, rng: random.Random, *, stream: bool, repeat: bool) -> bytes:
        """Return the body of a prompt chosen by weight; unless it may `repeat`, no two are alike."""
        requests = self.streamed if stream else self.plain
        [request] = rng.choices(requests, self._weights)
        return request.body("" if repeat else f" (ref. {rng.getrandbits(32):08x})")


def encode(prompt: Prompt, model: str, *, stream: bool) -> Request:
    """Return the chat completion request of a prompt."""
    request: dict[str, Any] = {"model": model, "messages": _marked(prompt.messages)}
    if prompt.tools:
        request["tools"] = list(prompt.tools)
    if prompt.max_tokens is not None:
        request["max_tokens"] = prompt.max_tokens
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    before, _, after = msgspec.json.encode(request).partition(_REFERENCE.encode())
    return Request(before, after)


def _marked(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with the place of the reference at the end of the last user turn's text."""
    marked = list(messages)
    position = max(number for number, message in enumerate(messages) if message["role"] == "user")
    content = messages[position]["content"]
    if isinstance(content, str):
        changed: Any = content + _REFERENCE
    else:
        last = max(number for number, part in enumerate(content) if part.get("type") == "text")
        changed = list(content)
        changed[last] = {**content[last], "text": content[last]["text"] + _REFERENCE}
    marked[position] = {**messages[position], "content": changed}
    return marked


def default_prompts() -> list[Prompt]:
    """Return the load test's own, which have tools, pictures and system messages too, and the labelled set."""
    return load_prompts(COMMITTED) + [
        Prompt(
            id=prompt.id,
            task=prompt.task_type,
            language=prompt.language,
            messages=_conversation(prompt.turns),
        )
        for prompt in labelled_prompts()
    ]


def _conversation(turns: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return the user's turns with an answer after each but the last: some models take turns only."""
    first, *others = ({"role": "user", "content": turn} for turn in turns)
    answer = {"role": "assistant", "content": "Here it is."}
    return (first, *(message for turn in others for message in (answer, turn)))


def load_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts. Raises `PromptError`, naming the line and what is wrong."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise PromptError(f"PROMPTS: {path} cannot be read: {error.strerror}") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                prompts.append(_prompt(msgspec.json.decode(line), number))
            except (msgspec.DecodeError, ValueError) as error:
                raise PromptError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise PromptError(f"PROMPTS: {path} holds no prompt; each line is one JSON object with 'messages'")
    return prompts


def _prompt(fields: object, number: int) -> Prompt:
    if not isinstance(fields, dict):
        raise ValueError("a prompt is a JSON object with 'messages'")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]!r}; allowed: {', '.join(sorted(_FIELDS))}")
    weight, max_tokens = fields.get("weight", 1.0), fields.get("max_tokens")
    if not isinstance(weight, int | float) or not weight > 0:
        raise ValueError(f"'weight' is {weight!r}; it must be a number above 0")
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise ValueError(f"'max_tokens' is {max_tokens!r}; it must be a whole number above 0")
    return Prompt(
        id=str(fields.get("id", number)),
        task=str(fields.get("task", "unknown")),
        language=str(fields.get("language", "unknown")),
        messages=_messages(fields.get("messages")),
        tools=tuple(fields.get("tools", ())),
        max_tokens=max_tokens,
        weight=float(weight),
    )


def _messages(messages: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a non-empty array")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"every message is an object with a 'role' of {', '.join(sorted(_ROLES))}")
    if not any(message["role"] == "user" and _has_text(message.get("content")) for message in messages):
        raise ValueError("'messages' must hold a user turn with text")
    last = next(message for message in reversed(messages) if message["role"] == "user")
    if not _has_text(last.get("content")):
        raise ValueError("the last user turn must have text")
    return tuple(messages)


def _has_text(content: object) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "text" and part.get("text") for part in content
    )
