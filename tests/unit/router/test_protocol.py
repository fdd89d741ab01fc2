import asyncio
import gc
import socket
import struct
import weakref

import pytest
import uvicorn
from uvicorn.server import ServerState

from router.cork import Cork
from router.http import protocol
from router.http.admission import Admission
from router.http.asgi import WAITED_S, Receive, Scope, Send, send_whole
from router.http.intake import Intake
from router.http.protocol import HTTPProtocol
from router.metrics import Metrics
from tests.unit.router.test_answer import RecordingTransport

REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close that resets the connection
ANSWERED_WITHIN_S = 5.0


@pytest.mark.parametrize("linger", [None, RESET], ids=["closed", "reset"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_connection_that_the_client_ended_is_forgotten(refused: bool, linger: bytes | None) -> None:
    """Also after its answer, when a timer for the next request runs: it would keep each for more than a minute."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_whole(send, 200, [], b"{}")

    async def run() -> None:
        config = uvicorn.Config(app, log_config=None, log_level="critical")
        config.load()
        admission, state = Admission(Metrics()), ServerState()
        admission.max_in_flight = 0 if refused else 1
        connections: list[weakref.ref[HTTPProtocol]] = []

        def connection() -> HTTPProtocol:
            protocol = HTTPProtocol(admission=admission, cork=Cork(), config=config, server_state=state, app_state={})
            connections.append(weakref.ref(protocol))
            return protocol

        loop = asyncio.get_running_loop()
        server = await loop.create_server(connection, "127.0.0.1", 0)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, server.sockets[0].getsockname())
                await loop.sock_sendall(client, REQUEST)
                assert await loop.sock_recv(client, 4096)
                if linger is not None:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn's own sets
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        gc.collect()
        assert [kept() for kept in connections] == [None]
        server.close()

    asyncio.run(run())


def test_an_answered_request_leaves_nothing_to_the_garbage_collector() -> None:
    """It costs a quarter of the router's time when there are many requests, each of them a reference cycle."""
    requests: list[weakref.ref[object]] = []

    async def run() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            requests.append(weakref.ref(made[0].cycle))
            await send_whole(send, 200, [], b"{}")

        config = uvicorn.Config(app, log_config=None, log_level="critical")
        config.load()
        made: list[HTTPProtocol] = []

        def connection() -> HTTPProtocol:
            made.append(
                HTTPProtocol(
                    admission=Admission(Metrics()), cork=Cork(), config=config, server_state=state, app_state={}
                )
            )
            return made[-1]

        state = ServerState()
        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(2):
                writer.write(REQUEST)
                await reader.readuntil(b"{}")
        assert [request() is None for request in requests] == [True, False], "the connection still knows the second"
        writer.close()
        server.close()

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_a_refused_request_whose_body_never_comes_holds_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SKIP_TIMEOUT_S", 0.05, raising=False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody is let in")

    async def run() -> None:
        config = uvicorn.Config(app, log_config=None, log_level="critical")
        config.load()
        admission = Admission(Metrics())
        admission.max_in_flight = 0

        def connection() -> HTTPProtocol:
            return HTTPProtocol(
                admission=admission, cork=Cork(), config=config, server_state=ServerState(), app_state={}
            )

        server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")  # and the connection's end
        writer.close()
        server.close()

    asyncio.run(run())


class Crowd:
    """An intake that lets nobody begin before `next` is called."""

    def __init__(self) -> None:
        self.admission = Admission(Metrics(), intake := Intake())
        self.seen: list[bytes] = []
        self.state = ServerState()
        self._intake = intake
        while intake.lets_begin(asyncio.get_running_loop().call_soon):
            pass
        self._config = uvicorn.Config(self._app, interface="asgi3", log_config=None, log_level="critical")
        self._config.load()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((await receive())["body"])
        self.waited_s = scope[WAITED_S]
        await send_whole(send, 200, [], b"{}")

    def connection(self) -> HTTPProtocol:
        made = HTTPProtocol(
            admission=self.admission, cork=Cork(), config=self._config, server_state=self.state, app_state={}
        )
        made.connection_made(RecordingTransport())
        return made

    async def next(self) -> None:
        for _ in range(3):  # the intake's turn, the request's task, the corked answer
            await asyncio.sleep(0)


def test_a_request_in_line_is_begun_in_the_next_turn_with_all_that_came_of_it() -> None:
    async def run() -> None:
        crowd = Crowd()
        connection = crowd.connection()
        connection.data_received(REQUEST[:-1])
        connection.data_received(REQUEST[-1:])
        assert crowd.admission.intake.waiting == 1
        assert connection.cycle is None, "nothing of it has been read"
        await crowd.next()
        assert crowd.seen == [b"{}"]
        assert crowd.waited_s > 0.0
        assert crowd.admission.intake.waiting == 0

    asyncio.run(run())


def test_what_goes_on_with_a_request_does_not_line_up() -> None:
    async def run() -> None:
        crowd = Crowd()
        connection = crowd.connection()
        connection.data_received(REQUEST[:-1])
        await asyncio.sleep(0)
        while crowd.admission.intake.lets_begin(asyncio.get_running_loop().call_soon):
            pass
        connection.data_received(REQUEST[-1:])
        assert crowd.admission.intake.waiting == 0
        await crowd.next()
        assert b"".join(crowd.seen) in (b"{}", b"{"), "its body came in one part or in two"

    asyncio.run(run())


def test_a_client_that_leaves_the_line_is_not_begun() -> None:
    async def run() -> None:
        crowd = Crowd()
        connection = crowd.connection()
        connection.data_received(REQUEST)
        connection.connection_lost(None)
        await crowd.next()
        assert crowd.seen == []
        assert connection.cycle is None

    asyncio.run(run())


def test_a_stop_loses_nobody_in_line() -> None:
    async def run() -> None:
        crowd = Crowd()
        connection = crowd.connection()
        connection.data_received(REQUEST)
        connection.shutdown()
        await crowd.next()
        assert crowd.seen == [b"{}"]

    asyncio.run(run())


def test_a_refusal_does_not_line_up() -> None:
    async def run() -> None:
        crowd = Crowd()
        crowd.admission.max_in_flight = 0
        connection = crowd.connection()
        connection.data_received(REQUEST)
        assert crowd.admission.intake.waiting == 0
        await crowd.next()
        assert crowd.seen == []

    asyncio.run(run())


def test_a_client_that_sends_on_and_on_in_line_is_left_to_the_kernel() -> None:
    async def run() -> None:
        crowd = Crowd()
        connection = crowd.connection()
        connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        connection.data_received(b" " * 70_000)
        assert connection.flow.read_paused
        await crowd.next()
        assert not connection.flow.read_paused

    asyncio.run(run())


def test_a_large_body_in_one_piece_leaves_the_connection_read() -> None:
    """Else nobody would notice that its client has gone."""

    async def run() -> None:
        crowd = Crowd()
        await asyncio.sleep(0)
        connection = crowd.connection()
        connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b" " * 100_000)
        assert not connection.flow.read_paused

    asyncio.run(run())
