"""Runs the application under uvicorn, in one process or several."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from router.app import create_app, create_decider, triton_connection
from router.errors import ClassifierError, ConfigurationError
from router.http.accounting import Accountant
from router.http.asgi import ASGIApp
from router.metrics import Metrics
from router.settings import ServerSettings, Settings, load_settings
from router.tracing import Tracing

logger = logging.getLogger("router")

DRAIN_S = 30
BACKLOG = 2048
ENOUGH_DESCRIPTORS = 4096
_CONFIG_VARIABLE = "LLM_ROUTER_CONFIG"


def log_to_stderr(settings: Settings) -> None:
    """Send log lines of `server.log_level` and above to stderr."""
    level = settings.server.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def create_worker_app() -> ASGIApp:
    """Return the application for one of several workers, which know the configuration's file only."""
    settings = load_settings(Path(os.environ[_CONFIG_VARIABLE]), os.environ)
    log_to_stderr(settings)
    return create_app(settings)


async def check_classifier(settings: Settings) -> None:
    """Stop the start with ConfigurationError when a policy needs what the served classifier lacks.

    A Triton that cannot be asked does not stop it: until it comes up the policies' default models answer.
    """
    async with triton_connection(settings) as triton:
        decider = create_decider(settings, triton, Accountant(settings, Metrics()), Tracing())
        try:
            await decider.check_contract()
        except ClassifierError as error:
            if error.reason == "contract":
                raise ConfigurationError([f"{settings.source}: {error}"]) from None
            logger.warning("starting without the classifier: %s", error)


def serve(settings: Settings, config_file: Path) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit status."""
    # uvicorn raises a signal anew once it has drained: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _raise_descriptor_limit()
    listener = _bind(settings.server)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        create_app(settings) if settings.server.workers == 1 else "router.server:create_worker_app",
        factory=settings.server.workers > 1,
        loop="uvloop",
        http="httptools",
        workers=settings.server.workers,
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    logger.info("listening on http://%s:%d", host, port)
    if settings.server.workers == 1:
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        return 0 if server.started else 1
    os.environ[_CONFIG_VARIABLE] = str(config_file)
    Multiprocess(config, sockets=[listener]).run()
    return 0


def _bind(server: ServerSettings) -> socket.socket:
    """Take the port before anything starts, so that a taken one is one clear message."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
    except OSError as error:
        listener.close()
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({os.strerror(error.errno or 0)})"
        raise ConfigurationError(
            [f"{server.host}:{server.port} {what}: choose another with --port, LLM_ROUTER_PORT or server.port."]
        ) from None
    listener.set_inheritable(True)
    return listener


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: each request in flight takes two, ours and its upstream's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < ENOUGH_DESCRIPTORS:
        logger.warning("only %d open files are allowed: raise `ulimit -n`, each request in flight takes two", hard)
