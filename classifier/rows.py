"""Rows that people bring as JSON lines: bad ones are left out and counted, and too many of them refuse the file."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from classifier.data import Line
from classifier.errors import DataError

Row = TypeVar("Row")

BAD_SHARE: Final = 0.05  # with more, the file is not what its owner thinks it is


def read_rows(path: Path, read: Callable[[Line], Row], progress: Callable[[str], None]) -> list[Row]:
    """What `read` makes of each line of a file, gzipped or not, in order; blank lines are skipped.

    A line that is no JSON object, or for which `read` raises DataError, is bad: the first is reported with its place.
    Raises DataError when more than BAD_SHARE of the lines are bad, or when none is good.
    """
    rows: list[Row] = []
    bad: list[DataError] = []
    for found in _lines(path):
        try:
            rows.append(read(_object(found)))
        except DataError as error:
            bad.append(error)
    if bad:
        count = f"{len(bad):,} of {len(rows) + len(bad):,} rows are bad; the first: {bad[0]}"
        if len(bad) > BAD_SHARE * (len(rows) + len(bad)):
            raise DataError(f"{count}. Allowed are {BAD_SHARE:.0%}: correct the file")
        progress(f"{count}. They are left out")
    if not rows:
        raise DataError(f"{path} has no rows: give one JSON object a line")
    return rows


def _lines(path: Path) -> Iterator[tuple[Path, int, str]]:
    if not path.is_file():
        raise DataError(f"{path} is no file: give JSON lines, gzipped or not")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            yield from ((path, number, text) for number, text in enumerate(stream, start=1) if text.strip())
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _object(found: tuple[Path, int, str]) -> Line:
    path, number, text = found
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise DataError(f"{path}, line {number}: expected an object, found {type(fields).__name__}")
    return Line(path, number, fields)
