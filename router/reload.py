"""The process's ASGI application: the router of the configuration in force, which a reload replaces.

SIGHUP or POST /admin/reload reads the file again. When it is usable, a second application is built and opened beside
the first, new requests go to it, and the old one closes once its last request has ended. When it is not, nothing
changes. The old settings stay for what only a start reads.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from router.app import Application, Process
from router.errors import ConfigurationError
from router.http.admission import Admission
from router.http.asgi import Receive, Scope, Send
from router.http.reload import Reloaded
from router.settings import Settings, changes, fingerprint, needs_restart, with_fixed_of
from router.watchdog import Watchdog

logger = logging.getLogger("router")

_LAST_WORDS_S = 2.0


class ReloadableRouter:
    """Answers with the application of the newest usable configuration.

    `settings` are in force at the start: what the file said, `written`, with what options and the system added.
    `load` reads the file anew; `shared` is a directory that all workers have; `tell_others` lets the others know that
    there is something to read; `give_up` is for an event loop that hangs.
    """

    def __init__(
        self,
        settings: Settings,
        written: Settings,
        load: Callable[[], Settings],
        shared: Path,
        tell_others: Callable[[], object] = lambda: None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._load = load
        self._tell_others = tell_others
        self._written = written
        self._process = Process(shared)
        self._current = self._application(settings)
        self._watchdog = Watchdog(self._late, self._process.metrics.loop_blocked.inc, give_up)
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._current.settings

    @property
    def admission(self) -> Admission:
        """Who says whether a request may come in; the same for every configuration."""
        return self._process.admission

    def announce_stop(self) -> None:
        """Let load balancers know, by /health/ready, that no new request should come."""
        self._process.admission.stopping = True

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request, or live through ASGI's lifespan."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._current(scope, receive, send)

    async def reload(self) -> Reloaded:
        """Put the file's configuration in force in this process; ConfigurationError when it cannot work."""
        async with self._one_at_a_time:
            began = perf_counter()
            try:
                reloaded = await self._take_over()
            except ConfigurationError as error:
                self._process.metrics.config_reloads.labels("rejected").inc()
                logger.error("the configuration stays as it was, the new one cannot work:\n%s", error)
                raise
            self._process.metrics.config_reloads.labels("ok").inc()
            took_ms = (perf_counter() - began) * 1000
            logger.info("configuration reloaded in %.0f ms; changed: %s", took_ms, ", ".join(reloaded.changed) or "-")
            if reloaded.needs_restart:
                logger.warning("only a restart takes over: %s", ", ".join(reloaded.needs_restart))
            return reloaded

    async def reload_everywhere(self) -> Reloaded:
        """Put it in force here and, as it can work, in every other worker."""
        reloaded = await self.reload()
        self._tell_others()
        return reloaded

    def _application(self, settings: Settings) -> Application:
        return Application(settings, self._process, self.reload_everywhere)

    async def _take_over(self) -> Reloaded:
        written = await asyncio.to_thread(self._load)
        changed = changes(self._written, written)
        settings = with_fixed_of(self.settings, written)
        if settings != self.settings:
            successor = await asyncio.to_thread(self._application, settings)
            await successor.__aenter__()
            try:
                await successor.check_contract()
            except BaseException:  # whatever it was, nobody else closes its connections
                await successor.__aexit__()
                raise
            old, self._current = self._current, successor
            self._keep(old.__aexit__())
            self._in_force()
        self._written = written
        return Reloaded(tuple(changed), tuple(needs_restart(changed)), fingerprint(settings))

    def _in_force(self) -> None:
        """Tell what outlives an application about the settings of the new one."""
        logging.getLogger().setLevel(self.settings.server.log_level.upper())
        most = self._process.admission.limit(self.settings.server)
        logger.info("this worker answers at most %d requests at a time", most)
        self._process.spending.keep(self.settings)
        self._process.metrics.configured(fingerprint(self.settings))

    async def _live(self, receive: Receive, send: Send) -> None:
        """ASGI's lifespan: connections open before the first request and close after the last."""
        await receive()
        await self._current.__aenter__()
        self._in_force()
        await self._process.spending.tell()  # what a run before this one has spent is known to the first request
        self._listen_to_hang_up()
        self._watchdog.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._watchdog.stop()
        self._keep(self._current.__aexit__())
        await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)
        await self._process.spending.close()
        self._process.metrics.registry.settle()
        await send({"type": "lifespan.shutdown.complete"})

    def _late(self, lag_s: float) -> None:
        self._process.metrics.loop_lag.observe(lag_s)
        self._process.metrics.registry.settle()  # other workers may be asked for what this one has counted
        self._process.admission.observe_lag(lag_s)

    def _listen_to_hang_up(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._keep(self._reload_quietly()))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # a supervisor blocks it until here

    async def _reload_quietly(self) -> None:
        with suppress(ConfigurationError):  # the log has it
            await self.reload()

    def _keep(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # asyncio itself would let go of a task that nobody holds
        task.add_done_callback(self._tasks.discard)
