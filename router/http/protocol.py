"""HTTP/1.1 as uvicorn speaks it, and what it lacks: admission, limits on a request's head, errors in OpenAI's shape.

What is refused here never became a request: it has no policy, no model and no outcome.
"""

from __future__ import annotations

import asyncio
import os
import random
from functools import partial
from math import ceil
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.cork import Cork, CorkedTransport
from router.errors import ClientError, HeadTimeout, HeadTooLarge, MalformedRequest, Overloaded
from router.http.admission import Admission
from router.http.answer import Answer
from router.http.asgi import EVENT_LOOP, ON_DISCONNECT, TIMER, WAITED_S, WHOLE_BODY, Scope, request_id
from router.timer import LazyTimer

HEAD_TIMEOUT_S = 10.0
SKIP_TIMEOUT_S = 10.0  # for the rest of a request that was refused
MAX_HEAD_BYTES = 65_536
_SOONEST_S, _LATEST_S = 0.5, 3.0  # of Retry-After

_STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
}


class HTTPProtocol(HttpToolsProtocol):
    """One connection. A head that is late, endless or malformed is refused, and the connection closes."""

    _in_head = False
    _head_bytes = 0
    _skipping = False  # the rest of a request that was refused
    _refused_last = False
    _rest_s = 0.0  # after a refusal
    _held = b""  # of a request that waits for its turn
    _waited_s = 0.0  # of the request that is read now
    _in_one_piece = False  # the request's head came with what is read now
    _stopping = False

    def __init__(self, *, admission: Admission, cork: Cork, **uvicorns: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(**uvicorns)
        self._admission = admission
        self._cork = cork
        self._timer = LazyTimer(self.loop)  # of the connection: for a head, a body that is skipped, the next request
        self._request_timer = LazyTimer(self.loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a client that only connects as long as one that has been answered."""
        super().connection_made(CorkedTransport(cast(asyncio.Transport, transport), self._cork, self.loop))
        self._timer.set_in(self.timeout_keep_alive, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and let the request that it carried know."""
        self._timer.stop()
        self._request_timer.stop()
        self._held = b""
        super().connection_lost(exc)
        cycle = self.cycle
        if cycle is not None and cycle.disconnected:
            scope = cast(Scope, cycle.scope)
            scope.pop(WHOLE_BODY, None)
            client_gone = scope.get(ON_DISCONNECT)
            if client_gone is not None:
                client_gone()

    def data_received(self, data: bytes) -> None:
        """Read on. A request's first bytes may have to wait for their turn, but not to be refused."""
        if self._held:
            self._held += data
            if len(self._held) > MAX_HEAD_BYTES:
                self.flow.pause_reading()
        elif self._is_new() and not self._begins_at_once():
            self._held = data
            self._timer.set_in(self.timeout_keep_alive, self.transport.close)
            self._admission.intake.line_up(self._begin)
        else:
            self._read(data)

    def _is_new(self) -> bool:
        """Whether what comes next is the beginning of a request."""
        return not (self._in_head or self._skipping) and (self.cycle is None or self.cycle.response_complete)

    def _begins_at_once(self) -> bool:
        return self._admission.intake.lets_begin(self.loop.call_soon) or self._admission.is_full()

    def _begin(self, waited_s: float) -> None:
        """Read what has waited, unless the client has left."""
        held, self._held = self._held, b""
        if held:
            self._waited_s = waited_s
            self.flow.resume_reading()
            self._read(held)
            self._waited_s = 0.0
            if self._stopping:
                super().shutdown()

    def _read(self, data: bytes) -> None:
        """Read on, but no head without an end."""
        self._in_one_piece = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            [head_ends_at] = offer.args
            self._decline_offer(data[head_ends_at:])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head:  # a head that came whole, as nearly all do, needs no timer
            if self._head_bytes == 0:
                late = HeadTimeout(f"The request's head did not arrive within {HEAD_TIMEOUT_S:g} s.")
                self._timer.set_in(HEAD_TIMEOUT_S, partial(self._refuse, late))
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(f"The request's head is over the limit of {MAX_HEAD_BYTES:,} bytes."))

    def on_message_begin(self) -> None:
        """Note a request's first byte; the rest of its head must follow in time."""
        super().on_message_begin()
        scope = cast(Scope, self.scope)
        scope[EVENT_LOOP], scope[TIMER], scope[WAITED_S] = self.loop, self._request_timer, self._waited_s
        self._leave_head()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Hand over, unless the router has enough to do: a refusal must cost far less than an answer."""
        self._leave_head()
        if self.parser.should_upgrade():
            return
        if self._may_be_refused() and self._admission.refuses(has_waited=self._waited_s > 0.0):
            self._turn_away()
        else:
            self._refused_last = False
            self._in_one_piece = True
            super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's own type of it
        """Start to answer a request; what is work counts."""
        if cycle.scope["method"] == "POST":
            cycle.send = Answer(cycle).send  # type: ignore[assignment,method-assign] # uvicorn's own
            app = self._admission.counted(app)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        if not self._skipping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note a request's last byte."""
        if self.parser.should_upgrade():
            return
        if self._skipping:
            self._skipping = False
            self._leave_head()
            self._timer.set_in(self.timeout_keep_alive if self.parser.should_keep_alive() else 0, self.transport.close)
            self._rest()
        else:
            super().on_message_complete()
            if self._in_one_piece:
                cast(Scope, self.scope)[WHOLE_BODY] = self.cycle.body
                self.flow.resume_reading()  # uvicorn pauses at 64 KiB until it is asked for more; we listen for the end

    def _decline_offer(self, rest: bytes) -> None:
        """Read a request that offers another protocol once more, without the offer, which HTTP lets a server ignore.

        Java's HTTP client offers HTTP/2 with each first request. httptools takes what follows such a head for the other
        protocol, and loses the body.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":  # that is no offer
            self.send_400_response("Invalid HTTP request received.")
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._read(b"\r\n".join([*lines, b"", rest]))

    def on_response_complete(self) -> None:
        """Go on to a request that has come meanwhile, or wait for one. uvicorn's own sets a new timer each time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._in_head:
            self._timer.set_in(self.timeout_keep_alive, self.transport.close)

    def shutdown(self) -> None:
        """Close a connection that carries no request. What is in line will still be answered."""
        self._stopping = True
        if not self._held:
            super().shutdown()

    def _turn_away(self) -> None:
        """Refuse at once. Who comes back too soon, when refusals are many, is read later: see `RefusalPace`.

        At the latest when it was told to return, so that clients which heed Retry-After never notice.
        """
        self._skipping = True
        self._timer.set_in(SKIP_TIMEOUT_S, self.transport.close)
        wait_s = random.uniform(_SOONEST_S, _LATEST_S)  # noqa: S311 - no secret; each another, lest all return at once
        self.transport.write(_overloaded(wait_s, request_id({"headers": self.headers})))
        pause_s = min(wait_s, self._admission.pause_s())
        self._rest_s = pause_s if self._refused_last else 0.0  # while it is not read, it is not seen to leave either
        self._refused_last = True

    def _rest(self) -> None:
        if self._rest_s > 0:
            self.flow.pause_reading()
            self.loop.call_later(self._rest_s, self._read_again)

    def _read_again(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _may_be_refused(self) -> bool:
        """Whether this is work, which can be too much: not a look at the router, nor its operator's wish."""
        earlier_is_over = self.cycle is None or self.cycle.response_complete
        return earlier_is_over and self.parser.get_method() == b"POST" and not self.url.startswith(b"/admin/")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(MalformedRequest(msg))

    def _leave_head(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._timer.clear()

    def _refuse(self, error: ClientError) -> None:
        """Close the connection, and say why where that cannot be taken for the answer to an earlier request."""
        cycle = self.cycle
        earlier_is_over = cycle is None or cycle.response_complete
        its_own_body = cycle is not None and not (self._in_head or self.pipeline or cycle.response_started)
        self._leave_head()
        if earlier_is_over or its_own_body:
            self.transport.write(_answer(error))
        self.transport.close()


def _overloaded(wait_s: float, id_: bytes) -> bytes:
    return _OVERLOADED % (int(1000 * wait_s), ceil(wait_s), id_)


_OVERLOADED_BODY = Overloaded("The router is at its limit. Try again after the time in Retry-After.").body()
_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"retry-after-ms: %%d\r\nretry-after: %%d\r\nx-request-id: %%b\r\n\r\n%b"
) % (len(_OVERLOADED_BODY), _OVERLOADED_BODY)


def _answer(error: ClientError) -> bytes:
    body = error.body()
    head = (
        _STATUS_LINES[error.status],
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + os.urandom(16).hex().encode(),
        b"connection: close",
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + body
