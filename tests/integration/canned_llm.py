"""A fake LLM that answers with given bytes, whatever it is asked: for what a well-behaved server cannot send."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def whole(body: bytes, head: bytes = JSON_HEAD) -> bytes:
    """Return a complete answer with a length."""
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came over the socket."""

    head: bytes
    body: bytes


class CannedLLM:
    """Listens on 127.0.0.1; sends `pieces`, one write each, and closes, or keeps silent when `then_hang`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.heard: list[Heard] = []
        self.closed_by_peer = threading.Event()
        self.say(whole(b"{}"))

    def say(self, *pieces: bytes, then_hang: bool = False) -> None:
        """Answer every later request with these bytes."""
        self._pieces: Sequence[bytes] = pieces
        self._then_hang = then_hang
        self.heard.clear()
        self.closed_by_peer.clear()

    def serve(self) -> None:
        """Answer until the listener is closed; one thread a connection."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.heard.append(_read(connection))
            for piece in self._pieces:
                connection.sendall(piece)
            if self._then_hang:
                connection.settimeout(10)
                if connection.recv(1) == b"":
                    self.closed_by_peer.set()


def _read(connection: socket.socket) -> Heard:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0]):
        body += _some(connection)
    return Heard(head, body)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the request was cut short")
    return data


@contextlib.contextmanager
def canned_llm() -> Iterator[CannedLLM]:
    """Run one for the length of a `with` block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        llm = CannedLLM(listener)
        thread = threading.Thread(target=llm.serve)
        thread.start()
        try:
            yield llm
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
