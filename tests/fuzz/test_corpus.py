"""What fuzzing has found, and where it begins, replayed; and the same properties on generated examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidJSON
from router.http.body import parse_body
from tests.fuzz.targets import TARGETS, body, stream

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_kept_corpus(kept: Path) -> None:
    TARGETS[kept.parent.name](kept.read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {kept.parent.name for kept in KEPT} == set(TARGETS)


texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool"])},
    optional={"content": st.none() | texts | st.just([{"type": "text", "text": "a"}]) | values},
)
chats = st.fixed_dictionaries(
    {"messages": st.lists(turns, max_size=3)},
    optional={"model": texts, "stream": st.booleans() | values, "stream_options": st.none() | values, "extra": values},
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few bytes of it replaced, removed or added, at any offset."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        whole = whole[:start] + draw(st.binary(max_size=2)) + whole[start + draw(st.integers(0, 2)) :]
    return whole


@given(chats, st.booleans(), st.data())
def test_any_chat_and_what_a_few_wrong_bytes_make_of_it(
    chat: dict[str, Any], ascii_: bool, data: st.DataObject
) -> None:
    body(data.draw(damaged(json.dumps(chat, ensure_ascii=ascii_).encode())))


@given(
    st.lists(st.sampled_from(["data: {}", 'data: {"usage":{}}', "data: [DONE]", ": x", "", "é"]), max_size=6), st.data()
)
def test_any_stream_and_what_a_few_wrong_bytes_make_of_it(lines: list[str], data: st.DataObject) -> None:
    ends = [data.draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])) for _ in lines]
    stream(data.draw(damaged("".join(a + b for a, b in zip(lines, ends, strict=True)).encode())))


@given(chats)
def test_a_chat_cut_short_at_every_offset(chat: dict[str, Any]) -> None:
    whole = json.dumps(chat).encode()
    for end in range(len(whole)):
        with pytest.raises(InvalidJSON):
            parse_body(whole[:end])
    parse_body(whole)
