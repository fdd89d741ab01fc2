"""Own task types on a finished encoder: the other heads say what they said before. Needs torch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from classifier import checkpoint  # noqa: E402  # after the skip
from classifier.checkpoint import Encoder  # noqa: E402  # after the skip
from classifier.errors import DataError  # noqa: E402  # after the skip
from classifier.export import parity  # noqa: E402  # after the skip
from classifier.graphs import graph_of  # noqa: E402  # after the skip
from classifier.inference import outputs  # noqa: E402  # after the skip
from classifier.labelled import Row  # noqa: E402  # after the skip
from classifier.starting_point import known_task_types  # noqa: E402  # after the skip
from classifier.train import Plan, train  # noqa: E402  # after the skip
from tests.unit.classifier.test_train import ENCODERS, RECIPE, saved  # noqa: E402  # after the skip

OWN = ("proof", "place", "paint")
WORD = {"proof": "theorem", "place": "city", "paint": "colour"}
IDS = [np.array([2, *words, 3]) for words in ([6, 1, 6, 1], [8, 1, 8, 1], [9, 1, 9, 1])]


def rows(count: int = 300) -> list[Row]:
    """A task type follows from its word; no row has an outcome."""
    found = []
    for number in range(count):
        task = OWN[number % 3]
        text = " ".join(f"{WORD[task]} {number}x{place}" for place in range(2 + number % 4))
        found.append(Row(text, "s", task_type=task, group=f"r{number}"))
    return found


def plan(start: Path, out: Path) -> Plan:
    return Plan(str(start), "heads", out, OWN, transformer=RECIPE, own_set=False, command="this command")


@ENCODERS
def test_a_new_task_head_is_learned_and_the_others_stay(
    tmp_path: Path, kind: str, random: Callable[[], Encoder]
) -> None:
    start = saved(tmp_path / "start", random(), kind)
    spec = train(rows(), plan(start, tmp_path / "out"), lambda _: None)
    assert spec is not None
    assert spec["task_types"] == list(OWN)
    assert spec["metrics"]["test_split"]["task"]["accuracy"] > 0.9
    old, new = (outputs(checkpoint.load(directory)[0], IDS) for directory in (start, tmp_path / "out"))
    np.testing.assert_allclose(new.outcome, old.outcome, atol=1e-5)
    np.testing.assert_allclose(new.dimensions, old.dimensions, atol=1e-5)
    assert [OWN[best] for best in new.task.argmax(axis=1)] == list(OWN)

    model, _ = checkpoint.load(tmp_path / "out")
    assert parity(model, graph_of(model, with_dimensions=True)) < 0.05  # unrounded weights: fp16 in the graph
    assert known_task_types(str(tmp_path / "out"), "heads") == OWN


def test_a_checkpoint_with_own_task_types_is_continued(tmp_path: Path) -> None:
    from tests.unit.classifier.tiny import random_static

    start = saved(tmp_path / "start", random_static(), "static")
    train(rows(), plan(start, tmp_path / "first"), lambda _: None)
    spec = train(rows(), plan(tmp_path / "first", tmp_path / "second"), lambda _: None)
    assert spec is not None
    assert spec["task_types"] == list(OWN)
    assert len(spec["training"]["commands"]) == 3


def test_new_task_types_need_rows_and_a_mode_that_learns(tmp_path: Path) -> None:
    from tests.unit.classifier.tiny import labelled_rows, random_static

    start = saved(tmp_path / "start", random_static(), "static")
    with pytest.raises(DataError, match=r"--mode calibrate changes no head, .* take --mode heads"):
        train(rows(), replace(plan(start, tmp_path / "out"), mode="calibrate"), lambda _: None)
    untold = [row for row in labelled_rows(400) if row.outcome is not None]
    with pytest.raises(DataError, match="no row has a `task_type`"):
        train(untold, plan(start, tmp_path / "out"), lambda _: None)
