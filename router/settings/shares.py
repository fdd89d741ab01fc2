"""`triton.versions`: which versions of the classifier are asked, and for how much. Pure.

One text, "1=90, 2=10", so that it can also be the content of a file: `versions: ${file:/models/shares}`.
"""

from __future__ import annotations

import re

Shares = tuple[tuple[str, float], ...]

_ALLOWED = 'must be versions with their percent of conversations, together 100, such as "1=90, 2=10"; "3" is "3=100"'


def read_shares(text: str) -> Shares:
    """Return (version, percent) in the order of the text; () when it is not what `check_shares` allows."""
    shares = [re.fullmatch(r"([1-9][0-9]{0,9})(?:=([0-9]{1,3}(?:\.[0-9]{1,6})?))?", part) for part in _parts(text)]
    if not shares or None in shares:
        return ()
    return tuple((share[1], float(share[2] or 100)) for share in shares if share)


def check_shares(text: str) -> str | None:
    """Say what is wrong with the text, None when nothing is."""
    shares = read_shares(text)
    versions = [version for version, _ in shares]
    if not shares or len(set(versions)) != len(versions) or abs(sum(percent for _, percent in shares) - 100) > 1e-6:
        return _ALLOWED
    return None


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+", text) if part]
