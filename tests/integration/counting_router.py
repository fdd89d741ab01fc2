"""The router with every function call of its main thread counted; whoever connects to COUNT_PORT is told the count.

COUNT_PORT=43211 python -m tests.integration.counting_router serve --config router.yaml
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import threading

_calls = 0


def _count(_frame: object, event: str, _argument: object) -> None:
    global _calls
    if event in ("call", "c_call"):
        _calls += 1


def _tell(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(str(_calls).encode())


def main() -> None:
    """Be the router; `sys.setprofile` goes for this thread alone, so that telling does not count."""
    port = os.environ.pop("COUNT_PORT")
    listener = socket.create_server(("127.0.0.1", int(port)))
    threading.Thread(target=_tell, args=[listener], daemon=True).start()
    sys.setprofile(_count)
    runpy.run_module("router", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
