"""What one configuration changes in another, and a number that tells configurations apart. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from router.settings.load import redacted
from router.settings.types import Settings

# Taken once, when the router starts: where it listens, and how many processes do.
FIXED_AT_START = ("server.host", "server.port", "server.workers", "admin")


def changes(old: object, new: object, path: str = "") -> list[str]:
    """Return the keys whose values differ, such as `models.cheap.timeouts.total_s`; never a value."""
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [key for name in names for key in changes(old.get(name), new.get(name), _joined(path, name))]
    if dataclasses.is_dataclass(old) and type(old) is type(new):
        names = [field.name for field in dataclasses.fields(old)]
        return [key for name in names for key in changes(getattr(old, name), getattr(new, name), _joined(path, name))]
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [key for i, (before, after) in pairs for key in changes(before, after, f"{path}[{i}]")]
    return [path]


def needs_restart(changed: list[str]) -> list[str]:
    """Return those of the changed keys that only a start reads."""
    return [key for key in changed if key in FIXED_AT_START or key.startswith(tuple(f"{k}." for k in FIXED_AT_START))]


def with_fixed_of(running: Settings, new: Settings) -> Settings:
    """Return the new settings with what only a start reads as it is in the running ones."""
    was = running.server
    server = dataclasses.replace(new.server, host=was.host, port=was.port, workers=was.workers)
    return dataclasses.replace(new, server=server, admin=running.admin)


def fingerprint(settings: Settings) -> int:
    """Return a number of 48 bits, equal for equal settings; keys are left out, so it gives none of them away."""
    text = json.dumps(redacted(settings), sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _joined(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
