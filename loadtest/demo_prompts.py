"""The prompts of the demo: a day of mixed traffic, easy and hard, short and long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadtest.labelled_set import labelled_prompts

Message = dict[str, Any]

_DIFFICULTIES = ("easy", "medium", "hard")
_LEAST_WORDS, _MOST_WORDS = 5, 90  # of a prompt
_WHOLE_EVERY = 4  # every fourth answer is not streamed


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """What is shown of it, the messages, and further fields of the request."""

    shown: str
    messages: tuple[Message, ...]
    stream: bool = True
    fields: tuple[tuple[str, Any], ...] = ()


def demo_prompts() -> tuple[DemoPrompt, ...]:
    """Return the set in the order in which it is sent and shown."""
    return (*_labelled(), _conversation(), _with_tools(), _with_image(), _as_json())


def _labelled() -> Iterator[DemoPrompt]:
    """Yield the first short English prompt of each difficulty and task type in the labelled set: no choice by hand."""
    first: dict[tuple[str, str], str] = {}
    for prompt in labelled_prompts():
        text = prompt.turns[-1]
        fits = _LEAST_WORDS <= len(text.split()) <= _MOST_WORDS
        if prompt.language == "en" and len(prompt.turns) == 1 and fits:
            first.setdefault((prompt.difficulty, prompt.task_type), text)
    ordered = sorted(first, key=lambda key: (_DIFFICULTIES.index(key[0]), key[1]))
    for number, key in enumerate(ordered, 1):
        text = first[key]
        yield DemoPrompt(
            " ".join(text.split()), ({"role": "user", "content": text},), stream=number % _WHOLE_EVERY != 0
        )


def _conversation() -> DemoPrompt:
    turns = (
        "Hi! I am learning about databases.",
        "Hello! What would you like to know?",
        "Explain how multi-version concurrency control avoids read locks, and which anomalies remain "
        "under snapshot isolation. Give an example schedule of write skew.",
        "Readers see a snapshot, so they take no locks; two writers can still break a shared rule.",
        "ok thanks",
    )
    messages = tuple(
        {"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(turns)
    )
    return DemoPrompt("(conversation of 3 turns) ok thanks", messages)


def _with_tools() -> DemoPrompt:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {"name": "get_weather", "description": "The weather now", "parameters": parameters}
    text = "What is the weather in Oslo right now?"
    tools = [{"type": "function", "function": function}]
    return DemoPrompt(f"(tools) {text}", ({"role": "user", "content": text},), fields=(("tools", tools),))


def _with_image() -> DemoPrompt:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
        "WjR9awAAAABJRU5ErkJggg=="
    )
    text = "Describe this picture in one sentence."
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": pixel}}]
    return DemoPrompt(f"(image) {text}", ({"role": "user", "content": content},))


def _as_json() -> DemoPrompt:
    text = "List the planets of the solar system with their number of moons as JSON."
    wanted = (("response_format", {"type": "json_object"}),)
    return DemoPrompt(f"(JSON) {text}", ({"role": "user", "content": text},), stream=False, fields=wanted)
