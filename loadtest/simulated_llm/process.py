"""A simulated LLM as a process of its own, with a handle to look at and change it."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from loadtest.processes import Child, listen, responds

_START_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it reached the simulated LLM: lower-case header names, the body byte for byte."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body, a JSON object, decoded."""
        return dict(json.loads(self.body))


class SimulatedLLM:
    """A running simulated LLM. `url` is its root, `base_url` what an OpenAI client wants."""

    def __init__(self, child: Child, port: int) -> None:
        self.child, self.port = child, port
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"

    @classmethod
    def start(
        cls, name: str, *, log_path: Path, port: int = 0, port_setting: str = "--port", **options: object
    ) -> Self:
        """Start it on 127.0.0.1 and return at once; `wait_ready` waits until it answers.

        Options are the command's flags: ttft_ms=60, any_model=True, fault="status=503".

        Raises `PortTakenError`: the port is taken; the message names `port_setting`.
        """
        command = [sys.executable, "-m", "loadtest.simulated_llm", "--name", name]
        for option, value in options.items():
            flag = "--" + option.replace("_", "-")
            command += [flag] if value is True else [] if value in (None, False) else [flag, str(value)]
        # The child inherits the socket: the port is known, and nobody can take it in between.
        with listen(port, port_setting) as listener:
            fd = listener.fileno()
            child = Child.start(
                name,
                [*command, "--fd", str(fd)],
                log_path=log_path,
                cwd=Path(__file__).resolve().parents[2],
                pass_fds=[fd],
            )
            return cls(child, listener.getsockname()[1])

    def wait_ready(self) -> None:
        """Wait until it answers; raise `ChildError` if it does not."""
        self.child.wait_until(lambda: responds(f"{self.url}/health"), deadline_s=_START_DEADLINE_S)

    def stop(self) -> None:
        """End the process."""
        self.child.stop()

    def requests(self) -> list[SeenRequest]:
        """Return the last chat requests, oldest first."""
        seen = self._get("/_simulated/requests")["data"]
        return [SeenRequest(one["path"], one["headers"], one["body"].encode("latin-1")) for one in seen]

    def stats(self) -> dict[str, int]:
        """Return the counts `requests`, `in_flight` and `disconnects`."""
        return dict(self._get("/_simulated/stats"))

    def wait_for(self, condition: Callable[[dict[str, int]], bool], *, deadline_s: float = 5.0) -> None:
        """Poll the counts until `condition` holds; raise `ChildError` after `deadline_s`."""
        self.child.wait_until(lambda: condition(self.stats()), deadline_s=deadline_s)

    def set_fault(self, fault: str) -> None:
        """Put a fault in force for every later request; empty text heals."""
        request = urllib.request.Request(f"{self.url}/_simulated/fault", fault.encode(), method="PUT")  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - loopback
            pass

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - loopback
            return dict(json.load(answer))


@contextlib.contextmanager
def simulated_llm(name: str = "simulated", **options: object) -> Iterator[SimulatedLLM]:
    """Run a simulated LLM on a free port for the length of a `with` block; options as its command's flags."""
    with tempfile.TemporaryDirectory(prefix="simulated-llm-") as directory:
        llm = SimulatedLLM.start(name, log_path=Path(directory) / f"{name}.log", **options)  # type: ignore[arg-type]  # flags, passed on
        try:
            llm.wait_ready()
            yield llm
        finally:
            llm.stop()
