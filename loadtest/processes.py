"""Child processes that never outlive us: start, wait until ready, stop.

Every child leads its own process group, so that Ctrl-C in a terminal reaches only us and we stop
the others in order. Linux sends each child SIGTERM when we die without stopping it (kill -9 too).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class ChildError(RuntimeError):
    """A child ended, or was not ready in time; the message ends with the last lines of its log."""


class PortTakenError(RuntimeError):
    """A wanted port cannot be had; the message names it, why, and the setting that changes it."""

    def __init__(self, port: int, setting: str, why: str = "is already taken") -> None:
        super().__init__(f"port {port} {why}; choose another with {setting}=PORT")
        self.port, self.setting = port, setting


class Child:
    """One started process, the leader of its own group, with its output in a log file."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log_path: Path) -> None:
        self.name, self.log_path = name, log_path
        self._popen = popen

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start `command`; its output goes to `log_path`, `env` is added to our own environment.

        Linux ties the child's life to the *thread* that starts it: start from one that stays.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        child = None
        try:
            # A Ctrl-C inside Popen would leave a process that nobody knows: it has to wait until we have it.
            with log_path.open("wb") as log, _signals_deferred():
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    pass_fds=pass_fds,
                    start_new_session=True,
                    preexec_fn=_in_child(),
                )
                child = cls(name, popen, log_path)
        except BaseException:
            if child is not None:
                child.stop(grace_s=0)
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id, which is its group's id too."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return how it ended (negative: by that signal), or None while it runs.

        The process stays unreaped until `stop`, so that its id cannot be given to a stranger's group.
        """
        if self._popen.returncode is not None:
            return self._popen.returncode
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def wait_until(self, ready: Callable[[], bool], *, deadline_s: float) -> None:
        """Poll `ready` until it is true.

        Raises `ChildError`: the child ended first, or `deadline_s` passed.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            code = self.poll()
            if code is not None:
                raise ChildError(self.explain(f"{describe_exit(code)} before it was ready"))
            if ready():
                return
            if time.monotonic() > deadline:
                raise ChildError(self.explain(f"was not ready after {deadline_s:.0f} s"))
            time.sleep(_POLL_S)

    def explain(self, what: str) -> str:
        """Return one message: the name, `what` happened, the log's last lines and its place."""
        return explain(self.name, what, self.log_path)

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Ask the whole group to end, then kill what is left of it. Safe to call twice."""
        if self._popen.returncode is not None:
            return
        if self.poll() is None:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def explain(name: str, what: str, log_path: Path, *, lines: int = 12) -> str:
    """Return `name` `what`, followed by the last lines of its log."""
    try:
        tail = log_path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        tail = []
    shown = "".join(f"\n    {line}" for line in tail) or "\n    (it logged nothing)"
    return f"{name} {what}; the end of {log_path}:{shown}"


def describe_exit(code: int) -> str:
    """Return 'ended with exit code 3' or 'was killed by SIGKILL'."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def responds(url: str, *, timeout_s: float = 1.0) -> bool:
    """Return whether a GET of `url` is answered with a status below 400."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):  # noqa: S310 - our own loopback address
            return True
    except (urllib.error.URLError, OSError):
        return False


def listen(port: int, setting: str, host: str = "127.0.0.1") -> socket.socket:
    """Return a listening socket on `host`:`port`, 0 for any free one.

    Raises `PortTakenError` naming `setting` when the port is in use or not ours to take.
    """
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(port, setting) from error
        raise PortTakenError(port, setting, f"cannot be used ({error.strerror})") from error


def free_port() -> int:
    """Return a port that was free a moment ago, for a server that cannot be handed a socket."""
    with listen(0, "") as listener:
        port: int = listener.getsockname()[1]
    return port


def interrupt_on_sigterm() -> None:
    """Make SIGTERM end the main thread like Ctrl-C, so that `with` blocks stop what they started."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM: an impatient second Ctrl-C must not leave half the stack running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in _STOPPING]
    try:
        yield
    finally:
        for number, handler in zip(_STOPPING, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Put SIGINT and SIGTERM off until the end of the block.

    By handlers, for a mask does not do: the kernel gives a masked signal to any other thread of ours, and Python
    calls the handler in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = [signal.signal(number, lambda late, _frame: came.append(late)) for number in _STOPPING]
    try:
        yield
    finally:
        for number, handler in zip(_STOPPING, before, strict=True):
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _in_child() -> Callable[[], None]:
    """Return what a forked child runs first: only system calls, for a child of a threaded process may not lock.

    On Linux it asks for SIGTERM when we die.
    """
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # we died between the fork and the call
                os._exit(1)

    return prepare
