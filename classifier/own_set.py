"""The project's own labelled prompts, read from `classifier/data/prompts/*.jsonl` and checked.

What the fields mean is written in `classifier/data/RUBRIC.md`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypedDict

from classifier.data import Line
from classifier.errors import DataError
from classifier.groups import near_duplicate_groups
from classifier.labels import DIMENSIONS, TASK_TYPES
from classifier.rows import good_lines

DIRECTORY: Final = Path(__file__).parent / "data" / "prompts"

# As written in the files, and what they stand for.
STEPS: Final = {0.0: 0.0, 0.33: 1 / 3, 0.67: 2 / 3, 1.0: 1.0}
DIFFICULTIES: Final = ("easy", "medium", "hard")
# A file says what its prompts are; "Unknown" is only ever an answer of the classifier.
LABELLED_TASK_TYPES: Final = tuple(name for name in TASK_TYPES if name != "Unknown")


@dataclass(frozen=True, slots=True)
class OwnPrompt:
    """A conversation of user turns, oldest first, and the labels of its last one."""

    id: str
    language: str  # ISO 639-1, of the instruction
    group: str  # prompts of one origin share it
    turns: tuple[str, ...]
    task_type: str
    dimensions: tuple[float, ...]  # [6], in the order of DIMENSIONS, thirds from 0 to 1
    difficulty: str  # what model is enough, in the labeller's judgement

    @property
    def prompt(self) -> str:
        """The text that the classifier scores."""
        return self.turns[-1]


def read_own_set(directory: Path = DIRECTORY) -> list[OwnPrompt]:
    """All prompts of the files in `directory`, by file name; raises DataError at the first one that is not valid."""
    paths = sorted(directory.glob("*.jsonl"))
    if not paths:
        raise DataError(f"{directory} holds no *.jsonl: name the directory with the labelled prompts")
    return [own_prompt(line) for path in paths for line in good_lines(path)]


def relabelled(rows: Sequence[OwnPrompt], path: Path) -> dict[str, OwnPrompt]:
    """By id, each of `rows` that the file `path` labels, with the labels of that file; raises DataError."""
    by_id = {row.id: row for row in rows}
    found: dict[str, OwnPrompt] = {}
    for line in good_lines(path):
        name = line.text("id")
        if name not in by_id or name in found:
            raise line.wrong("id", repr(name), "the id of a prompt in the set, once")
        found[name] = replace(by_id[name], **_labels(line))
    return found


def own_prompt(line: Line) -> OwnPrompt:
    """One line of a file; raises DataError naming file, line, key and what is allowed."""
    turns = line.fields.get("turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn for turn in turns):
        raise line.wrong("turns", type(turns).__name__, "a list of at least one string, none of them empty")
    if line.text("prompt") != turns[-1]:
        raise line.wrong("prompt", "another text than the last of `turns`", "the last user turn")
    return OwnPrompt(
        id=line.text("id"),
        language=line.text("language"),
        group=line.text("group"),
        turns=tuple(turns),
        **_labels(line),
    )


def problems(rows: Sequence[OwnPrompt]) -> Iterator[str]:
    """What is wrong with the set as a whole: ids used twice, and near-duplicates in different groups."""
    for name, count in Counter(row.id for row in rows).items():
        if count > 1:
            yield f"{name}: the id is used {count} times; ids are unique over all files"
    alike: defaultdict[int, list[OwnPrompt]] = defaultdict(list)
    for number, row in zip(near_duplicate_groups(["\n".join(row.turns) for row in rows]).tolist(), rows, strict=True):
        alike[number].append(row)
    for found in alike.values():
        if len({row.group for row in found}) > 1:
            yield f"{', '.join(row.id for row in found)}: near-duplicates; drop all but one or give them one group"


class _Labels(TypedDict):
    task_type: str
    dimensions: tuple[float, ...]
    difficulty: str


def _labels(line: Line) -> _Labels:
    return {
        "task_type": _one_of(line, "task_type", LABELLED_TASK_TYPES),
        "dimensions": tuple(_step(line, name) for name in DIMENSIONS),
        "difficulty": _one_of(line, "difficulty", DIFFICULTIES),
    }


def _one_of(line: Line, key: str, allowed: Sequence[str]) -> str:
    value = line.text(key)
    if value not in allowed:
        raise line.wrong(key, repr(value), f"one of {', '.join(allowed)}")
    return value


def _step(line: Line, key: str) -> float:
    value = line.number(key)
    if value not in STEPS:
        raise line.wrong(key, repr(value), f"one of {', '.join(f'{step:g}' for step in STEPS)}")
    return STEPS[value]
