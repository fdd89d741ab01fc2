"""From chat messages to the texts that are scored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.decide.prompt import (
    HARDEST_OF_TURNS,
    Prompt,
    check_messages,
    texts_to_classify,
)
from router.errors import InvalidRequest

Message = dict[str, Any]


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def text(value: str) -> Message:
    return {"type": "text", "text": value}


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.invalid/cat.png"}}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "a long tool result"}


@pytest.mark.parametrize(
    ("messages", "texts"),
    [
        ([user("hello")], ["hello"]),
        ([user("one"), {"role": "assistant", "content": "no"}, user("two")], ["one", "two"]),
        ([user("question"), CALL, RESULT, CALL, RESULT], ["question"]),
        ([user([text("look"), IMAGE, text("at this")])], ["look\nat this"]),
        ([user([{"type": "input_audio", "input_audio": {}}])], []),
        ([user([IMAGE]), {"role": "system", "content": "You name cats."}], ["You name cats."]),
        ([{"role": "developer", "content": [text("Be brief.")]}, user(None)], ["Be brief."]),
        ([{"role": "system", "content": "ignored"}, user("asked")], ["asked"]),
        ([user(""), user(" \n\t"), user("\u00a0")], []),
        ([{"role": "assistant", "content": "only me"}], []),
        ([{"role": "function", "name": "f", "content": "only me"}], []),
        ([user("🙂 naïve")], ["🙂 naïve"]),
    ],
)
def test_people_s_words_are_scored(messages: list[Message], texts: list[str]) -> None:
    assert texts_to_classify(check_messages(messages), "hardest", 100) == texts


def test_a_conversation_is_read_as_its_policy_wants() -> None:
    turns = [user(str(i)) for i in range(9)]
    assert texts_to_classify(turns, "hardest", 100) == ["3", "4", "5", "6", "7", "8"]
    assert texts_to_classify(turns, "last", 100) == ["8"]
    assert texts_to_classify(turns, "joined", 100) == ["\n\n".join("876543210")]


def test_a_long_turn_keeps_its_beginning_and_a_joined_conversation_its_newest_turn() -> None:
    turns = [user("abcdef"), user("ghijkl")]
    assert texts_to_classify(turns, "hardest", 3) == ["abc", "ghi"]
    assert texts_to_classify(turns, "joined", 8) == ["ghijkl\n\n"]


parts = st.lists(st.builds(text, st.text(max_size=5)) | st.just(IMAGE), max_size=3)
messages_ = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "developer", "assistant", "tool"])},
        optional={"content": st.none() | st.text(max_size=9) | parts},
    ),
    min_size=1,
    max_size=10,
)


@given(messages_, st.sampled_from(["hardest", "last", "joined"]), st.integers(1, 6))
def test_whatever_the_messages_texts_are_few_short_and_never_missing(
    messages: list[Message], conversation: str, limit: int
) -> None:
    texts = texts_to_classify(check_messages(messages), conversation, limit)
    assert len(texts) <= (HARDEST_OF_TURNS if conversation == "hardest" else 1)
    assert all(1 <= len(each) <= limit for each in texts)
    whole = texts_to_classify(messages, "joined", 10_000)
    assert bool(texts) == bool(whole)
    assert Prompt(messages).estimated_tokens >= 4 * len(messages)


def test_a_longer_conversation_scores_the_turns_that_it_scored_before() -> None:
    turns = [user(str(i)) for i in range(5)]
    before = texts_to_classify(turns, "hardest", 100)
    after = texts_to_classify([*turns, CALL, RESULT, user("next")], "hardest", 100)
    assert after == [*before, "next"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        (["secret"], "messages[0]"),
        ([{"content": "secret"}], "messages[0].role"),
        ([user("ok"), {"role": 5, "content": "secret"}], "messages[1].role"),
        ([user(5)], "messages[0].content"),
        ([user({"text": "secret"})], "messages[0].content"),
        ([user(True)], "messages[0].content"),
        ([user(["secret"])], "messages[0].content[0]"),
        ([user([IMAGE, {"text": "secret"}])], "messages[0].content[1]"),
        ([user([{"type": 5, "text": "secret"}])], "messages[0].content[0]"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": ["secret"]}])], "messages[0].content[0].text"),
    ],
)
def test_a_wrong_shape_is_named_and_never_quoted(messages: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_messages(messages)
    assert refused.value.param == param
    assert f"'{param}'" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -(10**400)}, None),
        ({"max_tokens": 10**400}, 10**400),
    ],
)
def test_the_output_limit_is_read_where_it_makes_sense(limits: Message, expected: int | None) -> None:
    assert Prompt.of_chat({"messages": [user("hello")], **limits}).max_output_tokens == expected
