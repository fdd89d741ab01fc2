"""What is broken during a soak, one after another, and which outcomes each explains."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.local_triton import LocalTriton
from loadtest.stack import Stack

SETTLING_S = 6.0
"""After a fault's end: the longest wait for an upstream, and a breaker's cooldown."""

_BROKEN = frozenset({"502", "503", "504", "error_event"})


class World:
    """The stack, and the handles to break and mend it. Use it as a context manager: at its end all is whole."""

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack, self.port = stack, port
        self.triton = stack.triton
        self._run_dir = stack.triton.log_path.parent
        self._replaced = ExitStack()
        self._held = ExitStack()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        self._replaced.close()

    def kill_triton(self) -> None:
        """End it without a word."""
        os.kill(self.triton.pid, signal.SIGKILL)

    def restart_triton(self) -> None:
        """Start another one on the same ports."""
        http_port, grpc_port, metrics_port = (
            int(address.rpartition(":")[2]) if "//" not in address else urlsplit(address).port or 0
            for address in (self.triton.http_url, self.triton.grpc_url, self.triton.metrics_url)
        )
        self.triton.stop()
        self.triton = self._replaced.enter_context(
            LocalTriton.start(self._run_dir, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
        )

    def hold_connections(self, number: int) -> None:
        """Connect, send half a request, and keep silent."""
        for _ in range(number):
            connection = self._held.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=5))
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-ty")

    def drop_connections(self) -> None:
        """Let go of them."""
        self._held.close()

    def signal_router(self, number: signal.Signals) -> None:
        """Send a signal to the router."""
        os.kill(self.stack.router.pid, number)

    def signal_triton(self, number: signal.Signals) -> None:
        """Send a signal to Triton itself."""
        os.kill(self.triton.pid, number)


@dataclass(frozen=True, slots=True)
class Fault:
    """Begins, lasts for a while, ends. `explains`: what requests meanwhile may end as, beside what is expected."""

    name: str
    begin: Callable[[World], object]
    end: Callable[[World], object]
    explains: frozenset[str] = frozenset()


def _of_upstream(name: str, fault: str, *, expensive: bool = False, explains: frozenset[str] = _BROKEN) -> Fault:
    def tell(world: World, words: str) -> None:
        (world.stack.expensive if expensive else world.stack.cheap).set_fault(words)

    return Fault(name, lambda world: tell(world, fault), lambda world: tell(world, ""), explains)


def _nothing(_: World) -> None:
    """End what ends by itself."""


FAULTS = (
    Fault("Triton is killed, and started again", World.kill_triton, World.restart_triton),
    _of_upstream("the cheap model answers 503", "status=503"),
    Fault("the configuration is reloaded", lambda world: world.signal_router(signal.SIGHUP), _nothing),
    _of_upstream("the expensive model dies in mid-stream", "die_after_chunks=3;die_mid_event", expensive=True),
    Fault(
        "Triton stands still",
        lambda world: world.signal_triton(signal.SIGSTOP),
        lambda world: world.signal_triton(signal.SIGCONT),
    ),
    _of_upstream("the cheap model never answers", "hang"),
    Fault("a hundred clients send half a request", lambda world: world.hold_connections(100), World.drop_connections),
    _of_upstream(
        "the expensive model answers 429", "status=429;retry_after=1", expensive=True, explains=frozenset({"429"})
    ),
    _of_upstream(  # a whole answer passes as it is, whatever it says
        "the cheap model sends malformed JSON", "malformed", explains=_BROKEN | {"not an answer"}
    ),
    _of_upstream("the cheap model is slow", "delay_ms=1000", explains=frozenset()),
)
