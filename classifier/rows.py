"""Rows that people bring as JSON lines: bad ones are left out and counted, and too many of them refuse the file."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from classifier.data import Line
from classifier.errors import DataError

Row = TypeVar("Row")

BAD_SHARE: Final = 0.05  # with more, the file is not what its owner thinks it is


def json_lines(path: Path) -> Iterator[Line | DataError]:
    """Each line of a file, gzipped or not, as an object, or what is wrong with it; blank lines are skipped."""
    if not path.is_file():
        raise DataError(f"{path} is no file: give JSON lines, gzipped or not")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as stream:
            yield from (_object(path, number, text) for number, text in enumerate(stream, start=1) if text.strip())
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None


def good_lines(path: Path) -> Iterator[Line]:
    """The lines of a file in which none may be bad; raises DataError at the first that is."""
    for found in json_lines(path):
        if isinstance(found, DataError):
            raise found
        yield found


def read_rows(
    path: Path,
    read: Callable[[Line], Row],
    progress: Callable[[str], None],
    *,
    lines: Callable[[Path], Iterator[Line | DataError]] = json_lines,
) -> list[Row]:
    """What `read` makes of each row that `lines` finds in a file, in order.

    A line that is no JSON object, or for which `read` raises DataError, is bad: the first is reported with its place.
    Raises DataError when more than BAD_SHARE of the lines are bad, or when none is good.
    """
    rows: list[Row] = []
    bad: list[DataError] = []
    for found in lines(path):
        if isinstance(found, DataError):
            bad.append(found)
            continue
        try:
            rows.append(read(found))
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


def _object(path: Path, number: int, text: str) -> Line | DataError:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return DataError(f"{path}, line {number}: not JSON ({error})")
    if not isinstance(fields, dict):
        return DataError(f"{path}, line {number}: expected an object, found {type(fields).__name__}")
    return Line(path, number, fields)
