"""Writes the table of faults into docs/reliability.md: `python -m tests.faults.table`; with `--check` it only compares.

Its rows are the suite's own marks, as pytest collects them, so the page cannot promise what no test holds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

SUITE = Path(__file__).parent
PAGE = SUITE.parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: written by python -m tests.faults.table -->\n", "<!-- end of faults -->\n"
STAGES = {
    "classifier": "Classifier",
    "upstream": "Upstream",
    "streams": "Streams",
    "failover": "Failover",
    "context": "Context and capability",
    "client": "Client's connection",
    "input": "Client's request",
    "process": "Process",
    "reload": "Reload",
    "workers": "Workers",
    "stop": "Stop",
    "overload": "Overload",
    "keys": "Keys",
    "quotas": "Rates and budgets",
    "secrets": "Secrets and addresses",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: what breaks, what the router promises, and the test that breaks it."""

    stage: str
    breaks: str
    promise: str
    test: str


class _Collector:
    """A plugin that keeps what was collected and runs nothing."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collect() -> list[Fault]:
    """Return the fault of every test case of the suite, in the order of its files."""
    collector, said = _Collector(), StringIO()
    with redirect_stdout(said):
        status = pytest.main(["--collect-only", "--quiet", str(SUITE)], plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(said.getvalue())
    return [_fault(item) for item in collector.items]


def _fault(item: pytest.Item) -> Fault:
    mark = item.get_closest_marker("fault")
    assert mark is not None, "the suite's conftest.py lets no other test through"
    breaks, promise = mark.args
    return Fault(item.path.stem.removeprefix("test_"), breaks, promise, getattr(item, "originalname", item.name))


def render(faults: Iterable[Fault]) -> str:
    """Return the table as Markdown, stage by stage, equal rows joined with the number of their cases."""
    cases = Counter(faults)
    lines = [f"{len(cases)} faults in {cases.total()} cases, each against real processes.\n"]
    for stage in sorted({fault.stage for fault in cases}, key=list(STAGES).index):
        lines.append(f"\n### {STAGES[stage]}\n\n| what breaks | what the router promises | test |\n|---|---|---|\n")
        for fault, count in cases.items():
            if fault.stage == stage:
                several = f" ({count})" if count > 1 else ""
                lines.append(f"| {fault.breaks} | {fault.promise} | `{fault.test}`{several} |\n")
    return "".join(lines)


def with_table(page: str, table: str) -> str:
    """Return the page with its table replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has lost the comments between which its table stands.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Write the page, or say with status 1 that it is not current."""
    page = PAGE.read_text()
    wanted = with_table(page, render(collect()))
    if "--check" not in sys.argv:
        PAGE.write_text(wanted)
        return 0
    if page != wanted:
        print("docs/reliability.md is not current: run `python -m tests.faults.table`.", file=sys.stderr)
    return int(page != wanted)


if __name__ == "__main__":
    sys.exit(main())
