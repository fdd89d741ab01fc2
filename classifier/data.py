"""A line of JSON, and what its values must be."""

import math
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
        """A string that is not empty and can be written as UTF-8."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, type(value).__name__, "a string that is not empty")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.wrong(key, "text with half of a surrogate pair", "text that UTF-8 can write") from None
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
