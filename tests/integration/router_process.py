"""The router as users run it: a process of its own, on a free port, driven over real sockets."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from loadtest.processes import Child
from loadtest.scrape import Page

REPOSITORY = Path(__file__).parents[2]
START_DEADLINE_S = 30.0
CANARY = "canary-5f2c"
"""Every key of a test, and every prompt that ends in an error, holds it: it must show up nowhere."""

CHAT = "/v1/chat/completions"
EXPLANATORY_HEADERS = (
    "x-request-id",
    "x-router-model",
    "x-router-policy",
    "x-router-reason",
    "x-router-decision",
    "x-router-score",
    "x-router-classifier-version",
    "x-router-overhead-ms",
    "x-chosen-classifier",
)
_WORK_UNDER_WAY = ("in_flight_requests", "upstream_in_flight_requests", "queue_depth")
_OUTCOME_COUNTS = "llm_router_requests_total"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; `headers` as they came, names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the only header of that name, None when there is none."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """Return OpenAI's error object after holding the answer against the shape that every error has."""
        error = self.json()["error"]
        assert sorted(error) == ["code", "message", "param", "status", "type"]
        assert error["status"] == self.status
        kinds = {429: "rate_limit_error"}
        assert error["type"] == kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        assert self.header("content-type") == "application/json"
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", self.header("x-request-id") or "")
        text = b" ".join([self.body, *(f"{name}: {value}".encode() for name, value in self.headers)])
        assert CANARY.encode() not in text
        assert b"Traceback" not in text
        return dict(error)


def send(
    port: int,
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = 20,
) -> Answer:
    """Send one request on a connection of its own; the body is read to its end."""
    payload = json.dumps(body).encode() if isinstance(body, Mapping) else body
    announced = {"content-type": "application/json"} if payload is not None else {}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)) as connection:
        connection.request(method, path, payload, {**announced, **(headers or {})})
        answer = connection.getresponse()
        pairs = tuple((name.lower(), value) for name, value in answer.getheaders())
        return Answer(answer.status, pairs, answer.read())


def chat_body(content: Any = "What is the capital of France?", **fields: Any) -> dict[str, Any]:
    """Return a chat body of one user turn for the default policy."""
    return {"model": "auto", "messages": [{"role": "user", "content": content}], **fields}


class RouterProcess:
    """A running router. Stop it by `stop`, which holds it against what every router must keep."""

    key: str | None = None
    """The client's key that `get` and `post` send, for a router that has clients."""

    def __init__(self, child: Child, port: int) -> None:
        self.child, self.port = child, port
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"

    @classmethod
    def start(
        cls,
        config: Mapping[str, Any] | str,
        directory: Path,
        *options: str,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Write the configuration into `directory`, start `serve` and wait for /health/live.

        Raises `ChildError` with the end of its log when it ends before, or takes longer than 30 seconds.
        """
        file = write_config(config, directory)
        command, log = serve_command(file, *options), directory / "router.log"
        child = Child.start("router", command, log_path=log, cwd=REPOSITORY, env=env)
        port = 0

        def lives() -> bool:
            nonlocal port
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", child.log_path.read_text())
            port = int(found.group(1)) if found else 0
            try:
                return port > 0 and send(port, "GET", "/health/live", timeout_s=1).status == 200
            except (OSError, http.client.HTTPException):
                return False

        try:
            child.wait_until(lives, deadline_s=START_DEADLINE_S)
        except BaseException:
            child.stop()
            raise
        return cls(child, port)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET a path."""
        return send(self.port, "GET", path, headers={**self._credentials(), **(headers or {})})

    def post(
        self, body: bytes | Mapping[str, Any], path: str = CHAT, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST a body, a chat by default."""
        return send(self.port, "POST", path, body, {**self._credentials(), **(headers or {})})

    def _credentials(self) -> dict[str, str]:
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}

    @property
    def operators_port(self) -> int:
        """The admin listener's port, or the only one that there is."""
        found = re.search(r"dashboard at http://127\.0\.0\.1:(\d+)/", self.log())
        return int(found.group(1)) if found else self.port

    def metrics_text(self) -> str:
        """Return /metrics as operators see it."""
        return send(self.operators_port, "GET", "/metrics").body.decode()

    def metrics(self) -> Page:
        """Scrape /metrics."""
        return Page.parse(self.metrics_text())

    def ready(self) -> dict[str, str]:
        """Return what /health/ready says."""
        return dict(self.get("/health/ready").json())

    def log(self) -> str:
        """Return everything that it has logged."""
        return self.child.log_path.read_text()

    def outcomes(self, outcome: str) -> float:
        """Return how many requests have ended so."""
        return self.metrics().total(_OUTCOME_COUNTS, outcome=outcome)

    def connections_to(self, port: int) -> int:
        """Return how many connections it holds open to an upstream's port."""
        held = psutil.Process(self.child.pid).net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port == port for one in held if one.status == psutil.CONN_ESTABLISHED)

    def settles(self) -> None:
        """Wait until nothing waits or is under way, and until several workers have told each other their counts."""
        every_s = 0.2 if psutil.Process(self.child.pid).children() else 0.02  # they do so fifty times a second
        ended = -1.0

        def idle() -> bool:
            nonlocal ended
            page, before = self.metrics(), ended
            ended = page.total(_OUTCOME_COUNTS)
            under_way = any(page.total(f"llm_router_{gauge}") for gauge in _WORK_UNDER_WAY)
            return not under_way and ended == before

        wait_until(idle, every_s=every_s)

    def stop(self) -> None:
        """Stop it by SIGTERM: nothing in flight, exit 0, and no prompt, key or traceback in its log."""
        try:
            self.settles()
            psutil.Process(self.child.pid).send_signal(signal.SIGTERM)
            wait_until(lambda: self.child.poll() is not None, deadline_s=10)
            assert self.child.poll() == 0, self.child.explain(f"ended with {self.child.poll()}, not 0")
        finally:
            self.child.stop()
        log = self.log()
        assert "Traceback" not in log, log
        assert CANARY not in log, log


def write_config(config: Mapping[str, Any] | str, directory: Path) -> Path:
    """Write a configuration, as text or as data, and return its file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "router.yaml"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(_patient(config), sort_keys=False))
    return file


def _patient(config: Mapping[str, Any]) -> dict[str, Any]:
    """Let no router shed load because the machine is busy with other tests, unless its configuration says when."""
    server = config.get("server", {})
    return {**config, "server": {"max_lag_ms": 0, **server} if isinstance(server, Mapping) else server}


def serve_command(config: Path, *options: str) -> list[str]:
    """Return the command that serves `config` on a free port."""
    return [
        sys.executable,
        "-m",
        "router",
        "serve",
        "--config",
        str(config),
        "--port",
        "0",
        "--admin-port",
        "0",
        *options,
    ]


def refuses_to_start(config: Mapping[str, Any] | str, directory: Path, *options: str) -> str:
    """Return what the router says on stderr when it ends with 1 instead of starting."""
    command = serve_command(write_config(config, directory), *options)
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=START_DEADLINE_S)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    assert CANARY not in ended.stderr
    return ended.stderr


def tiers(*models: str, start: float = 0.3) -> dict[str, Any]:
    """Return a threshold policy over the models, `start` being where the second begins."""
    first, *others = models
    steps = [{"model": model, "from": start + 0.1 * i} for i, model in enumerate(others)]
    return {"type": "threshold", "score": "need_strong", "tiers": [{"model": first}, *steps]}


def has_ended(process: psutil.Process) -> bool:
    """Return whether it runs no more; an orphan's entry stays until the machine's first process looks after it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], *, deadline_s: float = 10, every_s: float = 0.02) -> float:
    """Poll until it holds and return how many seconds that took; fail after `deadline_s`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < deadline_s, "the condition did not come true in time"
        time.sleep(every_s)
    return time.monotonic() - started


def events(body: bytes) -> Sequence[bytes]:
    """Cut an event stream into its data lines."""
    assert body.endswith(b"\n\n"), "the stream ended within an event"
    return [event.removeprefix(b"data: ") for event in body.removesuffix(b"\n\n").split(b"\n\n")]
