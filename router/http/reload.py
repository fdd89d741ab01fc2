"""POST /admin/reload: reads the configuration file again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload changed: keys such as `policies.default.tiers`, and those of them that wait for a restart."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    config_hash: int


Reload = Callable[[], Awaitable[Reloaded]]


def reload_api(reload: Reload) -> APIRouter:
    """Return the endpoint as a FastAPI router."""
    api = APIRouter(tags=["operations"])

    @api.post("/admin/reload")
    async def reload_now() -> dict[str, Any]:
        """Put the file's configuration in force in every worker, without losing a request.

        A file that cannot work changes nothing: 400 with every mistake in it, one a line, with file and line.
        """
        return asdict(await reload())

    return api
