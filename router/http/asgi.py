"""The little of ASGI that the hot path needs: types, sending, and noticing that the client has gone."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

from router.errors import RouterError, Stopping, without_values
from router.timer import LazyTimer

logger = logging.getLogger("router.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

ON_DISCONNECT = "router.on_disconnect"
EVENT_LOOP = "router.event_loop"  # of the scope, from our server: to ask asyncio for it is a system call
TIMER = "router.timer"  # of the scope: its connection's timer for requests, one after the other
WHOLE_BODY = "router.whole_body"  # of the scope: a body that came in one piece with its head, as nearly all do
WAITED_S = "router.waited_s"  # of the scope: how long the request waited for its turn, see `intake.py`
CLIENT = "router.client"  # of the scope: whose key came with the request, when there are clients
_LINGER_S = 0.5
_ids = random.Random()  # noqa: S311 - an id is no secret, and the system's randomness costs a call for each
os.register_at_fork(after_in_child=_ids.seed)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


def request_id(scope: Scope) -> bytes:
    """Return the client's own x-request-id when it is fit for a header and a log line, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%032x" % _ids.getrandbits(128)


async def send_whole(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a response whose body is known."""
    sent = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


def closing_gently(receive: Receive, send: Send) -> Send:
    """Return a `send` that reads on for a moment before a response's end closes the connection.

    A connection that is closed with data unread is reset, and the reset can overtake the answer that says why.
    """
    closes = False

    async def gently(message: Message) -> None:
        nonlocal closes
        if message["type"] == "http.response.start":
            closes = (b"connection", b"close") in message["headers"]
        elif closes and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _read_on(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return gently


async def _read_on(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass


async def answer_safely(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let a framework answer: with a request id, and with an error of ours instead of a traceback in the log."""
    id_ = request_id(scope)
    started = False
    send = closing_gently(receive, send)

    async def with_id(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = True
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", id_)]
        await send(message)

    try:
        await app(scope, receive, with_id)
        return
    except ClientGone:
        return
    except asyncio.CancelledError:  # the server's patience with open requests is over
        failed: RouterError = Stopping("The router was stopped. Try again.")
    except Exception as error:
        logger.error("request %s: %s", id_.decode(), without_values(error))
        failed = RouterError("The router failed. The operator's log knows why.")
    if not started:
        await send_whole(with_id, failed.status, [(b"content-type", b"application/json")], failed.body())


class Interruption:
    """Ends what a request awaits within the block: when the client closes its connection, or when its time is over.

    Our server calls what it finds in the scope (see `router.http.protocol`); ASGI's own way to notice a disconnect,
    waiting for a message, would take a task for every request. Limits follow one another; a new one replaces the last.
    """

    def __init__(self, scope: Scope) -> None:
        task = asyncio.current_task(scope.get(EVENT_LOOP))
        if task is None:
            raise RuntimeError("an Interruption needs to run in a task")
        self._scope, self._task = scope, task
        self._why: Callable[[], Exception] | None = None
        self._limit: Callable[[], Exception] | None = None
        self._timer = scope.get(TIMER) or LazyTimer(task.get_loop())

    def __enter__(self) -> Interruption:
        self._scope[ON_DISCONNECT] = partial(self._interrupt, ClientGone)
        return self

    def limit(self, seconds: float, error: Callable[[], Exception]) -> None:
        """Raise `error()` within the block once so many seconds have passed."""
        self._limit = error
        self._timer.set_in(seconds, self._ring)

    def lift(self) -> None:
        """Take the limit back."""
        self._timer.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.clear()
        del self._scope[ON_DISCONNECT]
        if self._why is not None:
            self._task.uncancel()
            if kind is not None:
                raise self._why() from None

    def _ring(self) -> None:
        if self._limit is not None:
            self._interrupt(self._limit)

    def _interrupt(self, why: Callable[[], Exception]) -> None:
        if self._why is None:
            self._why = why
            self._task.cancel()
