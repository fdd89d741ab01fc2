"""What clients have spent today (UTC), over all workers and restarts: in memory at once, in a file every second.

A request is let in while its client's day is under budget, and costs what it cost when it ends. So a client can
overshoot by what its requests in flight cost, and by what other workers have not yet told: about a second's worth.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from router.errors import ConfigurationError
from router.metrics import Metrics
from router.settings import ClientSettings, Settings

logger = logging.getLogger("router")

_EVERY_S = 1.0
_PATIENCE_S = 5.0
_CREATE = "CREATE TABLE IF NOT EXISTS spent (day TEXT, client TEXT, dollars REAL, PRIMARY KEY (day, client))"
_ADD = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET dollars = dollars + excluded.dollars"

Spent = Mapping[tuple[str, str], float]
"""Dollars by (day, client)."""


class Ledger:
    """The file: a row for each day and client. It is opened anew each time, so that it may be moved or restored."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / "spending.sqlite"

    def check(self) -> None:
        """Create what is missing; ConfigurationError when that cannot be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.add({}, "")
        except (OSError, sqlite3.Error) as error:
            advice = "name a directory that the router may write to"
            raise ConfigurationError([f"server.state_dir: {self.path} cannot be used ({error}); {advice}"]) from None

    def add(self, spent: Spent, day: str) -> dict[str, float]:
        """Add what was spent, all or nothing, and return what each client has spent on that day."""
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE_S)) as file:
            with file:
                file.execute(_CREATE)
                file.executemany(_ADD, [(*day_and_client, dollars) for day_and_client, dollars in spent.items()])
            return dict(file.execute("SELECT client, dollars FROM spent WHERE day = ?", [day]))


class Spending:
    """What this worker knows; one for the life of a process, with budgets and file of the last `keep`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._clients: tuple[ClientSettings, ...] = ()
        self._ledger: Ledger | None = None
        self._told_day = ""
        self._told: dict[str, float] = {}  # what the file said of `_told_day`
        self._untold: dict[tuple[str, str], float] = {}  # what is not in the file yet
        self._failing = False
        self._one_at_a_time = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None

    def keep(self, settings: Settings) -> None:
        """Take over budgets and file."""
        self._clients = tuple(client for client in settings.clients.values() if client.budget_per_day is not None)
        self._ledger = Ledger(settings.server.state_dir) if settings.server.state_dir else None
        if self._clients and self._telling is None:
            self._telling = asyncio.create_task(self._tell_for_ever())

    def add(self, client: str, dollars: float) -> None:
        """Count dollars of a client."""
        key = today(), client
        self._untold[key] = self._untold.get(key, 0.0) + dollars

    def of_today(self, client: str) -> float:
        """Return the dollars that a client has spent today, as far as this worker knows."""
        day = today()
        told = self._told.get(client, 0.0) if day == self._told_day else 0.0
        return told + self._untold.get((day, client), 0.0)

    async def tell(self) -> None:
        """Add to the file what it does not know, and learn what other workers have added."""
        if self._ledger is None or not self._clients:
            return
        async with self._one_at_a_time:
            day, telling = today(), dict(self._untold)
            try:
                told = await asyncio.to_thread(self._ledger.add, telling, day)
            except (OSError, sqlite3.Error) as error:
                self._note_failure(error)
            else:
                self._failing = False
                self._told_day, self._told = day, told
                for key, dollars in telling.items():
                    self._untold[key] -= dollars
                    if self._untold[key] <= 0:
                        del self._untold[key]
        self._show(self._clients)

    async def close(self) -> None:
        """Tell the file the last of it."""
        if self._telling is not None:
            async with self._one_at_a_time:  # never in the midst of a write, which would then be told twice
                self._telling.cancel()
            await self.tell()

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.tell()

    def _show(self, clients: Iterable[ClientSettings]) -> None:
        for client in clients:
            left = (client.budget_per_day or 0.0) - self.of_today(client.name)
            self._metrics.client_budget_left.labels(client.name).set(max(0.0, left))

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            logger.error("spending cannot be written (%s); until it can, each worker counts its own", error)


def today() -> str:
    """Return the day of which budgets are, as 2026-07-31; by the wall clock, in UTC."""
    return datetime.now(UTC).date().isoformat()


def seconds_to_tomorrow() -> int:
    """Return the whole seconds until budgets begin anew."""
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(1, int((midnight - now).total_seconds()))
