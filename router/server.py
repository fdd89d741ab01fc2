"""Runs the application under uvicorn, in one process or several."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from types import FrameType

import uvicorn

from router.app import Application, Process
from router.cork import Cork
from router.errors import ConfigurationError
from router.http.protocol import HTTPProtocol
from router.reload import ReloadableRouter
from router.settings import Settings, with_fixed_of
from router.workers import run_apart, supervise

logger = logging.getLogger("router")

# Longer than clients keep an idle connection, so that it is they who close it and no request meets a closed one.
KEEP_ALIVE_S = 75
BACKLOG = 2048
ENOUGH_DESCRIPTORS = 4096
# Requests leave no garbage, so what the collector finds is alive. It looks at young objects now and then, and hardly
# ever again at those that stay: 2,000 requests in flight are 230,000 objects, for which it stops the loop for 150 ms.
_COLLECTIONS = (20_000, 100, 10)


def log_to_stderr(settings: Settings) -> None:
    """Send log lines of `server.log_level` and above to stderr."""
    level = settings.server.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def check_classifier(settings: Settings, shared: Path) -> int:
    """Return 1, having said why on stderr, when a policy needs what the served classifier lacks; else 0."""

    async def check() -> None:
        async with Application(settings, Process(shared)) as application:
            await application.check_contract()

    try:
        asyncio.run(check())
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def serve(settings: Settings, written: Settings, load: Callable[[], Settings], shared: Path) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit status.

    `written` is what the file says, `settings` that with the command line's options; `load` reads the file anew;
    `shared` is an empty directory for all workers.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until a server listens to it
    if run_apart(partial(check_classifier, settings, shared)):
        return 1
    _raise_descriptor_limit()
    settings, listeners = _bind_all(settings)
    logger.info("listening on http://%s:%d", settings.server.host, settings.server.port)
    if settings.admin.enabled:
        logger.info("dashboard at http://%s:%d/dashboard", settings.admin.host, settings.admin.port)
    if settings.server.workers == 1:
        return _serve_here(ReloadableRouter(settings, written, load, shared), listeners)
    return _Workers(settings, written, load, shared, listeners).run()


def _serve_here(router: ReloadableRouter, listeners: list[socket.socket], supervisor: int | None = None) -> int:
    """Serve in this process, as long as the process `supervisor` is its parent."""
    config = uvicorn.Config(
        router,
        loop="uvloop",
        interface="asgi3",
        ws="none",  # an offer to speak WebSocket is declined like any other
        http=partial(HTTPProtocol, admission=router.admission, cork=Cork()),  # type: ignore[arg-type] # called like the class
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,  # nobody here asks for the client's address
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config, router, supervisor)
    server.run(sockets=listeners)
    return 0 if server.started else 1


class _Workers:
    """Serves in several processes, all with the newest usable configuration."""

    def __init__(
        self,
        settings: Settings,
        written: Settings,
        load: Callable[[], Settings],
        shared: Path,
        listeners: list[socket.socket],
    ) -> None:
        self._settings = settings
        self._written = written
        self._load = load
        self._shared = shared
        self._listeners = listeners
        self._supervisor = os.getpid()  # a worker that asked for its parent could be an orphan already

    def run(self) -> int:
        return supervise(self._work, self._settings.server.workers, hang_up=self._hang_up, stop=self._stop)

    def _work(self) -> int:
        router = ReloadableRouter(
            self._settings,
            self._written,
            self._load,
            self._shared,
            tell_others=lambda: os.kill(self._supervisor, signal.SIGHUP),
            give_up=lambda: os._exit(os.EX_SOFTWARE),  # the parent starts another one
        )
        return _serve_here(router, self._listeners, self._supervisor)

    def _hang_up(self) -> None:
        """Keep the new configuration for workers that start later; those that run read it, and judge it, themselves."""
        with suppress(ConfigurationError):
            self._written = self._load()
            self._settings = with_fixed_of(self._settings, self._written)

    def _stop(self) -> float:
        for listener in self._listeners:  # connections would wait here for ever once the workers have closed theirs
            listener.close()
        return self._settings.server.stop_delay_s + self._settings.server.drain_s


class _Server(uvicorn.Server):
    """uvicorn with our end: /health/ready says so at once, a delay for load balancers, a drain, and out."""

    def __init__(self, config: uvicorn.Config, router: ReloadableRouter, supervisor: int | None) -> None:
        super().__init__(config)
        self._router = router
        self._supervisor = supervisor
        # Nothing that exists by now is garbage: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal ends the drain. A worker leaves Ctrl-C to its parent."""
        if sig == signal.SIGINT and multiprocessing.parent_process() is not None:
            return
        self.force_exit = self.should_exit
        self.should_exit = True
        self._router.announce_stop()

    async def on_tick(self, counter: int) -> bool:
        """Stop too when the supervisor has gone: nobody could stop us any more."""
        return await super().on_tick(counter) or self._supervisor not in (None, os.getppid())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for load balancers, stop listening, drain; who is still there at the end of it is told so."""
        server = self._router.settings.server
        self._router.announce_stop()
        waits_until = monotonic() + server.stop_delay_s
        while monotonic() < waits_until and not self.force_exit:  # noqa: ASYNC110 - uvicorn knows flags
            await asyncio.sleep(0.05)
        self.config.timeout_graceful_shutdown = server.drain_s  # type: ignore[assignment] # it may be a fraction
        await super().shutdown(sockets)


def _bind_all(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """Take every port before anything starts; return the settings with the addresses that there really are."""
    public = _bind(settings.server.host, settings.server.port, "--port, LLM_ROUTER_PORT or server.port")
    host, port = public.getsockname()[:2]
    server = dataclasses.replace(settings.server, host=host, port=port)
    if not settings.admin.enabled:
        return dataclasses.replace(settings, server=server), [public]
    advice = "--admin-port, LLM_ROUTER_ADMIN_PORT or admin.port"
    private = _bind(settings.admin.host, settings.admin.port, advice)
    host, port = private.getsockname()[:2]
    admin = dataclasses.replace(settings.admin, host=host, port=port)
    return dataclasses.replace(settings, server=server, admin=admin), [public, private]


def _bind(host: str, port: int, advice: str) -> socket.socket:
    """Return a socket that has the port, so that a taken one is one clear message."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({os.strerror(error.errno or 0)})"
        raise ConfigurationError([f"{host}:{port} {what}: choose another with {advice}."]) from None
    listener.set_inheritable(True)
    return listener


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: each request in flight takes two, ours and its upstream's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < ENOUGH_DESCRIPTORS:
        logger.warning("only %d open files are allowed: raise `ulimit -n`, each request in flight takes two", hard)
