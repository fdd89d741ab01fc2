"""Environments for routers whose insides a test can break; see sabotage/sitecustomize.py and sabotage/clock.c."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("sabotage")


def sabotaged(**values: int | float) -> dict[str, str]:
    """Return the variables: sabotaged(BLOCK_S=0.3), sabotaged(CLOCK_S=86400), sabotaged(FILES=128)."""
    path = [str(HERE), os.environ.get("PYTHONPATH", "")]
    variables = {f"SABOTAGE_{name}": str(value) for name, value in values.items()}
    preloaded = {"LD_PRELOAD": str(_movable_clock())} if "CLOCK_S" in values else {}
    return {"PYTHONPATH": ":".join(filter(None, path)), **variables, **preloaded}


@cache
def _movable_clock() -> Path:
    """Compile clock.c; a test that needs it is skipped where nothing can, except in CI."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing = "this test needs a C compiler (Debian: apt install gcc libc6-dev)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    library = Path(tempfile.mkdtemp(prefix="movable-clock-")) / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "clock.c", "-ldl"], check=True)
    return library
