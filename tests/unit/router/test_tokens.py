"""How a request's tokens are estimated: by script, by kind of part, and with what it declares."""

from __future__ import annotations

from typing import Any

import pytest

from router.decide.prompt import Prompt
from router.decide.tokens import PER_IMAGE, PER_SMALL_IMAGE, estimate, of_text

HELLO = {"role": "user", "content": "Hello?"}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "x" * 400, "parameters": {}}}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("x" * 400, 100),
        ("人工智能正在改变世界", 10),
        ("ありがとうございます", 10),
        ("Привет, как дела?", 9),
        ("\ud800", 0),  # never comes from a body, and breaks nothing
    ],
)
def test_a_text_counts_by_its_script(text: str, tokens: int) -> None:
    assert of_text(text) == tokens


def test_a_message_counts_beside_its_text() -> None:
    assert estimate([{"role": "user", "content": "x" * 40}] * 2) == 2 * (10 + 4)
    assert estimate([{"role": "assistant", "content": None}]) == 4


def test_a_tool_call_counts_as_the_text_that_it_is() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "x" * 4000}}
    tokens = estimate([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert 1000 < tokens < 1050


@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_count(field: str) -> None:
    alone = Prompt.of_chat({"messages": [HELLO]}).estimated_tokens
    assert 100 < Prompt.of_chat({"messages": [HELLO], field: [TOOL]}).estimated_tokens - alone < 140


def test_a_schema_counts() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"description": "x" * 4000}}}
    assert Prompt.of_chat({"messages": [HELLO], "response_format": schema}).estimated_tokens > 1000


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}, PER_IMAGE),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}, PER_SMALL_IMAGE),
        ({"type": "image_url", "image_url": "no object"}, PER_IMAGE),
        ({"type": "input_audio", "input_audio": {"data": "A" * 10**6}}, PER_IMAGE),
        ({"type": "text", "text": "x" * 40}, 10),
    ],
)
def test_a_part_counts_by_its_kind(part: dict[str, Any], tokens: int) -> None:
    assert estimate([{"role": "user", "content": [part]}]) == 4 + tokens
