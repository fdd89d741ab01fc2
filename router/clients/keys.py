"""Keys: how one is made, what of it is stored, and whose it is. Nothing here keeps or shows a key."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest

from router.settings import ClientSettings

_INDEX = 8  # bytes of a digest by which it is looked up
_PREFIX = "sk-router-"
_BEARER = b"bearer "


def new_key() -> str:
    """Return a key that nobody can guess: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Return what the configuration keeps of a key. A key that is random needs no salt and no slow hash."""
    return sha256(key.encode()).hexdigest()


def bearer_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key of `authorization: Bearer KEY`, None when there is none."""
    for name, value in headers:
        if name == b"authorization":
            return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else None
    return None


class KeyRing:
    """Knows clients by their keys.

    One look-up by the beginning of the digest, then one comparison that takes the same time wherever digests differ:
    the time of an answer says nothing of a key, however many there are.
    """

    def __init__(self, clients: Iterable[ClientSettings]) -> None:
        self._by_index: dict[bytes, tuple[bytes, ClientSettings]] = {}
        for client in clients:
            for secret in client.key_sha256:
                digest = bytes.fromhex(secret.reveal())
                self._by_index[digest[:_INDEX]] = digest, client

    def owner_of(self, key: bytes) -> ClientSettings | None:
        """Return the client whose key it is, None when it is nobody's."""
        digest = sha256(key).digest()
        known = self._by_index.get(digest[:_INDEX])
        if known is None or not compare_digest(known[0], digest):
            return None
        return known[1]
