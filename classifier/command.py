"""What the modules of commands share."""

import argparse
import json
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


def print_for_programs(document: Mapping[str, Any]) -> None:
    """One line of JSON on stdout; not on a terminal, where the same figures stand above it to be read."""
    if not sys.stdout.isatty():
        print(json.dumps(document))
