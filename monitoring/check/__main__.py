"""Ask a real Prometheus, on the real stack under traffic, for every panel of every dashboard.

Each query must return data that is not all NaN. What this stack cannot have (a GPU, say) is asked of promtool on
made-up series and marked so. Exit status 1 when anything is missing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monitoring.check import synthetic
from monitoring.check.answers import Answer, PrometheusClient, QueryError
from monitoring.check.questions import Question, every_question
from monitoring.check.stack import StartError, running_stack
from monitoring.check.traffic import drive
from monitoring.prometheus_server import PrometheusError, find_program

_SECONDS = 25.0
_SETTLE_S = 2.5  # two scrapes and evaluations after the last request
_TITLE_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its answer; `real`: from the live stack, not from made-up series."""

    question: Question
    answer: Answer
    real: bool


def main(arguments: list[str] | None = None) -> int:
    """Check everything; return 0 when every question was answered."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped then too
    try:
        for program in ("prometheus", "promtool"):
            find_program(program)
        if options.run_dir is not None:
            return _check(options.run_dir.resolve(), options.seconds)
        with tempfile.TemporaryDirectory(prefix="metrics-check-") as directory:
            return _check(Path(directory), options.seconds)
    except KeyboardInterrupt:
        print("\nmetrics-check: stopped", file=sys.stderr)
        return 130
    except (StartError, PrometheusError, QueryError) as error:
        print(f"metrics-check: {error}", file=sys.stderr)
        return 1


def _check(run_dir: Path, seconds: float) -> int:
    with running_stack(run_dir, _say) as stack:
        started = time.time()
        sent = drive(stack, seconds, _say)
        time.sleep(_SETTLE_S)
        ended = time.time()
        answered = ", ".join(f"{count} x {status or 'broken off'}" for status, count in sorted(sent.statuses.items()))
        _say(f"traffic: {answered}; asking Prometheus")
        client = PrometheusClient(stack.prometheus)
        names = client.metric_names()
        complaints = [*client.down_targets(), *client.broken_rules()]
        results = [_ask(client, question, names, started, ended) for question in every_question()]
    print(table(results))
    for complaint in complaints:
        print(f"BROKEN  {complaint}")
    failed = [result for result in results if result.answer.trouble is not None]
    made_up = sum(not result.real for result in results)
    print(
        f"\n{len(results) - len(failed)} of {len(results)} queries answered, {made_up} of them on made-up series; "
        f"{len(complaints)} targets or rules broken"
    )
    return 1 if failed or complaints else 0


def _ask(client: PrometheusClient, question: Question, names: frozenset[str], started: float, ended: float) -> Result:
    """Ask the live stack; what it cannot have is asked on made-up series instead."""
    answer = client.ask(question, started, ended)
    if answer.trouble is not None and question.optional_series() - names:
        return Result(question, synthetic.ask(question), real=False)
    return Result(question, answer, real=True)


def table(results: Iterable[Result]) -> str:
    """Return a line per question, under the name of its dashboard or file."""
    lines: list[str] = []
    place = ""
    for result in results:
        question, answer = result.question, result.answer
        if question.place != place:
            place = question.place
            lines += ["", f"{place:<{_TITLE_WIDTH}}{'series':>8}"]
        series = str(answer.series) if result.real else "made up"
        verdict = "ok" if answer.trouble is None else f"FAILED: {answer.trouble}\n      {question.expr}"
        lines.append(f"  {question.title:<{_TITLE_WIDTH - 2}}{series:>8}  {verdict}")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="how long to send requests (%(default)s)")
    parser.add_argument("--run-dir", type=Path, help="keep logs and Prometheus' data here (default: thrown away)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
