"""Show the router at work: start the whole stack, send mixed prompts through it, tell what it saved.

Real: Triton and the classifier, the router, the openai client, every socket. Simulated: the two LLMs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import openai
from rich.console import Console

from loadtest.demo_client import Failure, Row, ask_all, prices
from loadtest.demo_prompts import demo_prompts
from loadtest.demo_report import NOT_STREAMED, summary, table
from loadtest.processes import ChildError, interrupt_on_sigterm
from loadtest.scrape import Page
from loadtest.stack import CHEAP, EXPENSIVE, REPOSITORY, Ports, Stack, StartError, running_stack

_PIPED_WIDTH = 140
_NOTES = (
    "Real: Triton and the classifier's scores, the router, the openai client, the sockets.",
    "Simulated: the two LLMs; so their answers, their times to the first token and their token counts.",
    "Dollars: those tokens at the prices in loadtest/router.yaml; the last column prices the same tokens.",
    "The classifier is small: better than chance over many prompts, not right about every one; its figures are",
    "in the README.md beside its weights, in triton_models/prompt_classifier/.",
    f"{NOT_STREAMED} not streamed: the time of the whole answer.",
)


class Story:
    """Tells each step with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console, self._started = console, time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print one step."""
        self._console.print(f"{time.perf_counter() - self._started:5.1f} s  {line}", markup=False, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return 0, or 1 when a part did not start or died, or a prompt got no answer."""
    options = _parser().parse_args(arguments)
    interrupt_on_sigterm()
    terminal = sys.stdout.isatty()
    # Piped output is fixed in width and free of escape codes, whatever the environment asks for.
    console = Console() if terminal else Console(width=_PIPED_WIDTH, force_terminal=False, color_system=None)
    story = Story(console)
    run_dir = options.run_dir or REPOSITORY / ".run" / f"demo-{os.getpid()}"
    try:
        failures = _run(console, story, run_dir, options.at_once)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    except (*StartError, OSError, openai.OpenAIError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if failures:
        for failure in failures:
            print(f"demo: no answer to {failure.shown!r}: {failure.why}", file=sys.stderr)
        print(f"demo: {len(failures)} prompts failed; logs are in {run_dir}", file=sys.stderr)
        return 1
    if options.run_dir is None:
        shutil.rmtree(run_dir, ignore_errors=True)
    story("all stopped. Next: `make serve` keeps this running for your own requests, `make test` checks it all,")
    console.print("         README.md and docs/ explain the rest.", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.demo", description=__doc__)
    parser.add_argument(
        "--at-once", type=_positive, default=16, metavar="N", help="prompts in flight at the same time (default 16)"
    )
    parser.add_argument(
        "--run-dir", type=Path, help="keep logs and working files here (default: in .run/, removed after a success)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _run(console: Console, story: Story, run_dir: Path, at_once: int) -> list[Failure]:
    with running_stack(run_dir, Ports.any_free(), story) as stack:
        prompts = demo_prompts()
        together = min(at_once, len(prompts))
        story(f"ready. Sending {len(prompts)} prompts through the openai client, {together} at the same time")
        before = _batches(stack)
        results = asyncio.run(
            ask_all(
                f"{stack.router_url}/v1",
                prompts,
                at_once=at_once,
                on_answer=lambda done: story(f"{done} of {len(prompts)} answered") if done % 8 == 0 else None,
            )
        )
        if dead := stack.failure():
            raise ChildError(dead)
        after = _batches(stack)
        known = asyncio.run(prices(f"{stack.router_url}/v1"))
        rows = [result for result in results if isinstance(result, Row)]
        failures = [result for result in results if isinstance(result, Failure)]
        if rows:
            batch = (after[0] - before[0], after[1] - before[1])
            console.print(table(rows, known, EXPENSIVE), "")
            _print_lines(console, summary(rows, known, cheap=CHEAP, expensive=EXPENSIVE, batch=batch))
            _print_lines(console, ["", *_NOTES, ""])
        story("stopping")
    return failures


def _batches(stack: Stack) -> tuple[float, float]:
    """Return Triton's counts for the classifier so far: prompts scored, executions."""
    page = Page.get(stack.triton.metrics_url)
    prompts, executions = (
        page.total(f"nv_inference_{counter}_total", model="prompt_classifier") for counter in ("count", "exec_count")
    )
    return prompts, executions


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
