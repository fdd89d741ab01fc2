"""The real Triton server on this machine, without a GPU or a container.

The wheel `nvidia-pytriton` carries NVIDIA's `tritonserver` binary with the python backend. This module lays
out what the binary needs in a run directory, starts it on loopback ports and answers for its life:

    with LocalTriton.start(Path(".run/triton")) as triton:
        triton.grpc_url  # "127.0.0.1:43117"

For development, tests and measurements: the build is old and has known vulnerabilities, so it never leaves
loopback. Production runs NVIDIA's container on the same model repository.

    python -m loadtest.local_triton --help
"""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.processes import Child, ChildError, describe_exit, interrupt_on_sigterm, listen, uninterrupted
from loadtest.triton_wheel import TritonWheel, TritonWheelError

REPOSITORY = Path(__file__).parents[1]
MODELS = REPOSITORY / "triton_models"
HOST = "127.0.0.1"
CACHE_VARIABLE = "PROMPT_CLASSIFIER_CACHE"  # where the classifier keeps what it derives at its first start
PORT_SETTINGS = ("TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
START_DEADLINE_S = 90.0
STOP_GRACE_S = 10.0
_START_ATTEMPTS = 3  # a free port can be lost to another process before Triton has it


class LocalTritonError(RuntimeError):
    """Triton cannot start, or ended before it was ready; the message says why and what to do."""


class LocalTriton:
    """One running Triton: its addresses and its life. A context manager that stops it."""

    def __init__(self, child: Child, ports: Sequence[int]) -> None:
        self._child = child
        http_port, grpc_port, metrics_port = ports
        self.http_url = f"http://{HOST}:{http_port}"
        self.grpc_url = f"{HOST}:{grpc_port}"
        self.metrics_url = f"http://{HOST}:{metrics_port}/metrics"

    @classmethod
    def start(
        cls,
        run_dir: Path,
        *,
        models: Path = MODELS,
        extra_models: Sequence[Path] = (),
        config: str = "cpu",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Start Triton and return when every model answers.

        `run_dir` keeps the log, a copy of the models and the backend; it is made, or reused. All models of
        the repository `models` are loaded, and those in `extra_models`, with configs/`config`.pbtxt where they
        have it. A port of 0 is any free one. `on_progress` gets a line about each step.

        Raises LocalTritonError, or PortTakenError when a wanted port is taken. Start from a thread that
        stays: Linux ties a child's life to the thread that started it.
        """
        wheel = _find_wheel()
        run_dir = run_dir.resolve()
        on_progress("triton: preparing the model repository")
        names = _copy_models(run_dir / "models", models, extra_models, config)
        _link_backend(run_dir / "backends" / "python", wheel)
        wanted = (http_port, grpc_port, metrics_port)
        attempts = 1 if all(wanted) else _START_ATTEMPTS
        while True:
            ports = _choose_ports(wanted)
            on_progress(f"triton: starting, {len(names)} models, gRPC on {HOST}:{ports[1]}")
            try:
                return cls(_start(run_dir, wheel, names, config, ports), ports)
            except ChildError as error:
                attempts -= 1
                log = (run_dir / "triton.log").read_text(errors="replace")
                if attempts == 0 or "already in use" not in log:
                    raise LocalTritonError(explain(str(error), log, run_dir / "triton.log")) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process id; its python stubs are its children."""
        return self._child.pid

    @property
    def log_path(self) -> Path:
        """Where Triton and its models log."""
        return self._child.log_path

    def poll(self) -> int | None:
        """Return how Triton ended (negative: by that signal), or None while it runs."""
        return self._child.poll()

    def stop(self) -> None:
        """Let requests in flight finish, end Triton and its stubs. Safe to call twice."""
        self._child.stop(grace_s=STOP_GRACE_S)


def explain(what: str, log: str, log_path: Path) -> str:
    """Return one message from Triton's log: the reasons why models are unavailable, else its errors."""
    reasons = re.findall(r"UNAVAILABLE: (?:Internal: )?(?:TritonModelException: )?(.*?)[ |]*$", log, re.MULTILINE)
    errors = [line for line in log.splitlines() if line[:1] in ("E", "F") and "CudaDriverHelper" not in line]
    lines = list(dict.fromkeys(reasons or errors[-6:] or log.splitlines()[-6:]))
    summary = what.split(";", 1)[0]
    return "\n    ".join([f"{summary}; see {log_path}:", *lines])


def _find_wheel() -> TritonWheel:
    try:
        return TritonWheel.find()
    except TritonWheelError as error:
        raise LocalTritonError(str(error)) from None


def _copy_models(target: Path, models: Path, extra_models: Sequence[Path], config: str) -> list[str]:
    """Copy the models, so that a run can be tampered with; return their names."""
    sources = [*sorted(path.parent for path in models.glob("*/config.pbtxt")), *extra_models]
    if not sources:
        raise LocalTritonError(f"no model in {models}: expected directories with a config.pbtxt")
    if not any((source / "configs" / f"{config}.pbtxt").is_file() for source in sources):
        raise LocalTritonError(f"no model in {models} has a configs/{config}.pbtxt: see docs/classifier.md")
    shutil.rmtree(target, ignore_errors=True)
    for source in sources:
        shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return [source.name for source in sources]


def _link_backend(target: Path, wheel: TritonWheel) -> None:
    """Bring the backend and the stub of this Python version into one directory, as Triton wants them."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for source in (*wheel.python_backend.glob("*.*"), wheel.stub):
        (target / source.name).symlink_to(source)


def _choose_ports(wanted: Sequence[int]) -> list[int]:
    with ExitStack() as stack:  # all open at once, so that no two are the same
        sockets = [
            stack.enter_context(listen(port, setting)) for port, setting in zip(wanted, PORT_SETTINGS, strict=True)
        ]
        return [socket.getsockname()[1] for socket in sockets]


def _start(run_dir: Path, wheel: TritonWheel, names: Sequence[str], config: str, ports: Sequence[int]) -> Child:
    server_id = f"local-{uuid.uuid4()}"
    http_port, grpc_port, metrics_port = ports
    command = [
        str(wheel.server),
        f"--id={server_id}",
        f"--model-repository={run_dir / 'models'}",
        f"--backend-directory={run_dir / 'backends'}",
        f"--model-config-name={config}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in names),
        *(f"--{protocol}-address={HOST}" for protocol in ("http", "grpc", "metrics")),
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        f"--metrics-port={metrics_port}",
        "--allow-gpu-metrics=false",
        f"--exit-timeout-secs={STOP_GRACE_S / 2:.0f}",
    ]
    child = Child.start(
        "Triton",
        command,
        log_path=run_dir / "triton.log",
        cwd=run_dir,
        env={
            # The stub takes the interpreter and its packages from the first python3 on the path.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, wheel.libraries)),
            "PYTHONDONTWRITEBYTECODE": "1",
            CACHE_VARIABLE: os.environ.get(CACHE_VARIABLE) or str(REPOSITORY / ".run" / "cache"),
        },
    )
    try:
        child.wait_until(lambda: _is_ready(http_port, server_id), deadline_s=START_DEADLINE_S)
    except BaseException:
        child.stop()
        raise
    return child


def _is_ready(port: int, server_id: str) -> bool:
    """Return whether the Triton with our id, and not some other one, has loaded its models."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/v2/health/ready")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return False
        connection.request("GET", "/v2")
        metadata = json.loads(connection.getresponse().read())
        return bool(metadata["name"] == server_id)
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return False
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run Triton in the foreground until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.local_triton",
        description="Run the real Triton server with the model repository on the CPU, on loopback.",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=REPOSITORY / ".run" / "triton",
        help="log and working files (%(default)s)",
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="model repository (%(default)s)")
    parser.add_argument(
        "--extra-model",
        type=Path,
        action="append",
        default=[],
        help="a further model's directory; repeatable",
    )
    parser.add_argument("--config", default="cpu", help="name of the models' configuration (%(default)s)")
    for flag, setting, port in zip(("http", "grpc", "metrics"), PORT_SETTINGS, (8000, 8001, 8002), strict=True):
        parser.add_argument(
            f"--{flag}-port",
            type=int,
            default=os.environ.get(setting, port),
            help=f"0 for any free one (%(default)s; environment: {setting})",
        )
    options = parser.parse_args(arguments)
    interrupt_on_sigterm()
    try:
        return _run_in_foreground(options)
    except (LocalTritonError, OSError, RuntimeError) as error:
        print(f"local_triton: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run_in_foreground(options: argparse.Namespace) -> int:
    triton = LocalTriton.start(
        options.run_dir,
        models=options.models,
        extra_models=options.extra_model,
        config=options.config,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        on_progress=print,
    )
    try:
        print(f"triton: ready\n  gRPC     {triton.grpc_url}\n  HTTP     {triton.http_url}")
        print(f"  metrics  {triton.metrics_url}\n  log      {triton.log_path}\nCtrl-C stops it.", flush=True)
        while (code := triton.poll()) is None:
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0
    finally:
        with uninterrupted():
            triton.stop()
    log = triton.log_path.read_text(errors="replace")
    print(explain(f"Triton {describe_exit(code)}", log, triton.log_path), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
