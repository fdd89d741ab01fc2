"""JSON lines, gzipped or not, and what their values must be."""

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from classifier.errors import DataError

ROUTING_FILE: Final = "routing_train.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, with readers that name the place when they refuse a value."""

    path: Path
    place: int
    fields: dict[str, Any]

    def text(self, key: str) -> str:
        """A string that is not empty."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, type(value).__name__, "a string that is not empty")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, repr(value), "a finite number")
        return float(value)

    def score(self, key: str) -> float:
        """A number from 0 to 1."""
        value = self.number(key)
        if not 0 <= value <= 1:
            raise self.wrong(key, repr(value), "a number from 0 to 1")
        return value

    def wrong(self, key: str, seen: str, allowed: str) -> DataError:
        """The error to raise for `key`."""
        return DataError(f"{self.path}, line {self.place}: `{key}` is {seen}; allowed is {allowed}")


def json_lines(path: Path) -> Iterator[Line]:
    """The objects of a file of JSON lines, gzipped or not; empty lines are skipped."""
    if not path.is_file():
        raise DataError(f"{path} is no file: give JSON lines, gzipped or not, or a directory with {ROUTING_FILE}")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(fields, dict):
                raise DataError(f"{path}, line {number}: expected an object, found {type(fields).__name__}")
            yield Line(path, number, fields)
