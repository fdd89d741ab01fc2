"""Runs the application under uvicorn, in one process or several."""

from __future__ import annotations

import dataclasses
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
from router.http.protocol import HTTPProtocol
from router.metrics import Metrics
from router.settings import Settings, load_settings
from router.tracing import Tracing

logger = logging.getLogger("router")

DRAIN_S = 30
# Longer than clients keep an idle connection, so that it is they who close it and no request meets a closed one.
KEEP_ALIVE_S = 75
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
    settings, listeners = _bind_all(settings)
    config = uvicorn.Config(
        create_app(settings) if settings.server.workers == 1 else "router.server:create_worker_app",
        factory=settings.server.workers > 1,
        loop="uvloop",
        http=HTTPProtocol,
        workers=settings.server.workers,
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    logger.info("listening on http://%s:%d", settings.server.host, settings.server.port)
    if settings.admin.enabled:
        logger.info("dashboard at http://%s:%d/dashboard", settings.admin.host, settings.admin.port)
    if settings.server.workers == 1:
        server = uvicorn.Server(config)
        server.run(sockets=listeners)
        return 0 if server.started else 1
    os.environ[_CONFIG_VARIABLE] = str(config_file)
    # What options chose and what the system gave for a port 0: the workers' configuration says it too.
    os.environ["LLM_ROUTER_PORT"] = str(settings.server.port)
    os.environ["LLM_ROUTER_ADMIN_PORT"] = str(settings.admin.port)
    Multiprocess(config, sockets=listeners).run()
    return 0


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
