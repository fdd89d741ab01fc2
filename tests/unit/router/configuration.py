"""The example configuration of these tests, and ways to write, change and load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from router.errors import ConfigurationError
from router.settings import Settings, load_settings

DATA = Path(__file__).parent / "data"
GOOD = (DATA / "router.yaml").read_text()
KEY = "sk-canary-7f3a"
ENVIRON = {"KEY": KEY, "NOTHING": ""}


def write(directory: Path, content: str | bytes, name: str = "router.yaml") -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def problems_of(path: Path, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """The problems with the directory cut off, so that they read as someone in that directory sees them."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def outcome(path: Path, environ: Mapping[str, str] = ENVIRON) -> Settings | ConfigurationError:
    try:
        return load_settings(path, environ)
    except ConfigurationError as error:
        return error
