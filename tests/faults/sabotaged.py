"""Environments for routers whose Python a test can break; see sabotage/sitecustomize.py."""

from __future__ import annotations

import os
from pathlib import Path


def sabotaged(**values: float) -> dict[str, str]:
    """Return the variables: sabotaged(BLOCK_S=0.3), sabotaged(CLOCK_S=86400), sabotaged(FILES=128)."""
    path = [str(Path(__file__).with_name("sabotage")), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": ":".join(filter(None, path)), **{f"SABOTAGE_{name}": str(v) for name, v in values.items()}}
