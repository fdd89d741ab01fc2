import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifier.errors import DataError
from classifier.labels import DIMENSIONS
from classifier.own_set import (
    DIFFICULTIES,
    DIRECTORY,
    LABELLED_TASK_TYPES,
    OwnPrompt,
    problems,
    read_own_set,
    relabelled,
)

LINE: dict[str, Any] = {
    "id": "t-0001",
    "language": "en",
    "group": "t-0001",
    "turns": ["Name a tree.", "and one that keeps its leaves?"],
    "prompt": "and one that keeps its leaves?",
    "task_type": "Open QA",
    "creativity": 0,
    "reasoning": 0.33,
    "contextual_knowledge": 0.67,
    "domain_knowledge": 1,
    "constraints": 0.0,
    "few_shots": 0,
    "difficulty": "easy",
}


@pytest.fixture(scope="module")
def rows() -> list[OwnPrompt]:
    return read_own_set()


def share(rows: list[OwnPrompt], holds: Callable[[OwnPrompt], bool]) -> float:
    return sum(map(holds, rows)) / len(rows)


def words(text: str) -> int:
    """Words as spaces part them; two Chinese or Japanese characters count as one word."""
    text, unspaced = re.subn(r"[\u3040-\u30ff\u4e00-\u9fff]", " ", text)
    return len(text.split()) + unspaced // 2


def test_there_are_as_many_prompts_as_the_card_says(rows: list[OwnPrompt]) -> None:
    said = re.search(r"More than ([\d,]+) prompts", (DIRECTORY.parent / "README.md").read_text(encoding="utf-8"))
    assert said
    assert len(rows) > int(said[1].replace(",", ""))


def test_the_set_has_neither_doubled_ids_nor_near_duplicates(rows: list[OwnPrompt]) -> None:
    assert list(problems(rows)) == []


def test_every_task_type_is_there_and_none_takes_over(rows: list[OwnPrompt]) -> None:
    counts = Counter(row.task_type for row in rows)
    assert min(counts[name] for name in LABELLED_TASK_TYPES if name != "Other") >= 0.04 * len(rows)
    assert max(counts.values()) <= 0.25 * len(rows)
    assert counts["Other"] >= 0.01 * len(rows)


def test_every_difficulty_and_every_step_of_every_dimension_is_there(rows: list[OwnPrompt]) -> None:
    assert min(Counter(row.difficulty for row in rows)[name] for name in DIFFICULTIES) >= 0.08 * len(rows)
    for index, name in enumerate(DIMENSIONS):
        steps = Counter(row.dimensions[index] for row in rows)
        assert len(steps) == 4, name
        assert min(steps.values()) >= 0.004 * len(rows), name


def test_english_leads_and_at_least_five_other_languages_count(rows: list[OwnPrompt]) -> None:
    counts = Counter(row.language for row in rows)
    assert all(re.fullmatch("[a-z]{2}", language) for language in counts)
    assert 0.55 * len(rows) <= counts["en"] <= 0.7 * len(rows)
    assert sum(count >= 0.02 * len(rows) for language, count in counts.items() if language != "en") >= 5


def test_short_and_long_prompts_and_conversations_are_there(rows: list[OwnPrompt]) -> None:
    assert share(rows, lambda row: words(row.prompt) < 15) >= 0.25
    assert share(rows, lambda row: 15 <= words(row.prompt) < 60) >= 0.25
    assert share(rows, lambda row: words(row.prompt) >= 60) >= 0.2
    assert share(rows, lambda row: words(row.prompt) >= 200) >= 0.05
    assert share(rows, lambda row: len(row.turns) > 1) >= 0.1


def test_addresses_are_reserved_ones(rows: list[OwnPrompt]) -> None:
    text = "\n".join(turn for row in rows for turn in row.turns)
    domains = re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", text)
    assert domains
    assert [domain for domain in domains if not re.search(r"\.(example|test|invalid)$|(^|\.)example\.", domain)] == []


def written(directory: Path, **changes: object) -> Path:
    (directory / "t.jsonl").write_text(json.dumps(LINE | changes) + "\n", encoding="utf-8")
    return directory


def test_a_line_becomes_a_prompt_with_thirds(tmp_path: Path) -> None:
    (row,) = read_own_set(written(tmp_path))
    assert row.prompt == LINE["prompt"]
    assert row.dimensions == (0, 1 / 3, 2 / 3, 1, 0, 0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("task_type", "Unknown", "one of Brainstorming"),
        ("difficulty", "trivial", "easy, medium, hard"),
        ("reasoning", 0.5, "0, 0.33, 0.67, 1"),
        ("few_shots", None, "a finite number"),
        ("turns", [], "at least one string"),
        ("turns", ["one", ""], "none of them empty"),
        ("prompt", "something else", "the last user turn"),
        ("group", "", "not empty"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, key: str, value: object, said: str) -> None:
    with pytest.raises(DataError, match=rf"t\.jsonl, line 1: `{key}` is .*{re.escape(said)}"):
        read_own_set(written(tmp_path, **{key: value}))


def test_a_directory_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \*\.jsonl"):
        read_own_set(tmp_path)


def test_near_duplicates_need_one_group_and_ids_are_unique(tmp_path: Path) -> None:
    (row,) = read_own_set(written(tmp_path))
    other = replace(row, id="t-0002", group="t-0002", turns=("Something with no word in common with it",))
    copy = replace(row, id="t-0003", group="t-0003")
    assert list(problems([row, other])) == []
    assert [text.partition(":")[0] for text in problems([row, other, copy])] == ["t-0001, t-0003"]
    assert list(problems([row, other, replace(copy, group="t-0001")])) == []
    assert [text.partition(":")[0] for text in problems([row, replace(other, id="t-0001")])] == ["t-0001"]


def test_another_labelling_replaces_the_labels_alone(tmp_path: Path) -> None:
    (row,) = read_own_set(written(tmp_path))
    line = json.dumps(LINE | {"turns": None, "task_type": "Chatbot", "reasoning": 1}) + "\n"
    path = tmp_path / "second.jsonl"
    path.write_text(line, encoding="utf-8")
    assert relabelled([row, replace(row, id="t-0002")], path) == {
        "t-0001": replace(row, task_type="Chatbot", dimensions=(0, 1, 2 / 3, 1, 0, 0)),
    }
    with pytest.raises(DataError, match=r"line 1: `id` is 't-0001'; allowed is the id of a prompt in the set, once"):
        relabelled([replace(row, id="t-0002")], path)
    path.write_text(line * 2, encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: `id` is 't-0001'"):
        relabelled([row], path)
