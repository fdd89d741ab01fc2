"""What the modules of commands share."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Add(Protocol):
    """Adds a subcommand that calls `run`; its docstring is the help."""

    def __call__(self, name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        """Return the subcommand's parser, for its arguments."""
        ...


def progress_on_stderr() -> Callable[[str], None]:
    """Lines on stderr with the seconds since now."""
    start = time.monotonic()

    def show(message: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {message}", file=sys.stderr, flush=True)

    return show


def number_from(least: float, most: float = math.inf, kind: type[int | float] = int) -> Callable[[str], float]:
    """An argument's type: a number from `least` to `most`."""
    allowed = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
    what = "a whole number" if kind is int else "a number"

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not (least <= number <= most and number < math.inf):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}, {allowed}")
        return number

    return read


def print_for_programs(document: Mapping[str, Any]) -> None:
    """One line of JSON on stdout; not on a terminal, where the same figures stand above it to be read."""
    if not sys.stdout.isatty():
        print(json.dumps(document))
