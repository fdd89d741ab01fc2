"""A report that is made in parts: sections that are not run again stay."""

from __future__ import annotations

import json
from pathlib import Path

from loadtest.bench.lab import Outcome
from loadtest.bench.report import section_of, write

MACHINE = {"cpu": "some CPU", "cores": 2, "memory_gb": 8, "python": "3.11.1"}
ORDER = ("proxy", "growth")


def section(text: str, **fields: object) -> dict[str, object]:
    conditions = {"machine": MACHINE, "busy_before": 0.25, "rounds": 5, "seconds": 2}
    return section_of(Outcome(title="A title", text=text, figures={"n": 1}, **fields), conditions)  # type: ignore[arg-type]


def test_sections_keep_their_order_and_the_newest_wins(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "bench"
    write(path, {"growth": section("grown", plots={"cpu": "<svg/>"})}, {"cpu": "<svg/>"}, ORDER)
    write(path, {"proxy": section("old")}, {}, ORDER)
    text = write(path, {"proxy": section("new", notes=["litellm was left out: why"])}, {}, ORDER)
    assert [line for line in text.splitlines() if line in ("old", "new", "grown")] == ["new", "grown"]
    assert "litellm was left out: why" in text
    assert "![cpu](bench-cpu.svg)" in text
    assert (path.parent / "bench-cpu.svg").read_text() == "<svg/>"
    assert path.with_suffix(".md").read_text() == text
    assert list(json.loads(path.with_suffix(".json").read_text())) == ["proxy", "growth"]


def test_what_there_was_nothing_to_compute_from_is_null() -> None:
    outcome = Outcome(title="t", text="", figures={"rows": [{"spread": float("nan"), "n": 1.5}]})
    assert section_of(outcome, {})["figures"] == {"rows": [{"spread": None, "n": 1.5}]}


def test_each_section_says_under_which_conditions_it_was_measured(tmp_path: Path) -> None:
    text = write(tmp_path / "bench", {"proxy": section("x")}, {}, ORDER)
    assert "some CPU, 2 cores, 8 GB, Python 3.11.1; 25% busy with other work before the run. 5 rounds of 2 s." in text
