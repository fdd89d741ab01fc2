"""Files that are there whole or not at all: a full disk or a kill leaves what was there before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path to write a file or a directory to, which takes the place of `target` when the block ends well.

    A directory's files join those that `target` has. Nothing is left of what ends in an error.
    """
    unfinished = target.with_name(f".{target.name}.part")
    _remove(unfinished)
    try:
        yield unfinished
        if unfinished.is_dir() and target.is_dir():
            for file in unfinished.iterdir():
                file.replace(target / file.name)
        else:
            unfinished.replace(target)
    except OSError as error:
        error.filename, error.filename2 = str(target), None  # the name that is known outside; a full disk tells none
        raise
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
