"""Starting and ending the real Triton: what goes wrong is said in one message, and nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadtest.local_triton import REPOSITORY, LocalTriton, LocalTritonError
from loadtest.processes import PortTakenError
from tests.integration.router_process import has_ended
from tests.tiny_classifier import write_tiny_repository
from tests.triton_client import classify, wait_until


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_tiny_repository(tmp_path / "models")


def test_missing_weights_are_named(tmp_path: Path, models: Path) -> None:
    (models / "prompt_classifier" / "1" / "model.onnx").unlink()
    with pytest.raises(LocalTritonError, match=r"model\.onnx missing in .*: export a version") as caught:
        LocalTriton.start(tmp_path / "run", models=models)
    assert len(str(caught.value).splitlines()) < 6


def test_a_config_that_is_not_the_weights_own_is_refused(tmp_path: Path, models: Path) -> None:
    path = models / "prompt_classifier" / "1" / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": "another"}))
    with pytest.raises(LocalTritonError, match=r"parameter `spec` .* differs from spec\.json .* render-config"):
        LocalTriton.start(tmp_path / "run", models=models)


def test_a_directory_without_models(tmp_path: Path) -> None:
    with pytest.raises(LocalTritonError, match=r"no model in .*: expected directories with a config\.pbtxt"):
        LocalTriton.start(tmp_path / "run", models=tmp_path)


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} is already taken.*TRITON_GRPC_PORT"):
            LocalTriton.start(tmp_path / "run", models=models, grpc_port=port)


def test_stop_leaves_no_process_and_can_be_repeated(tmp_path: Path, models: Path) -> None:
    steps: list[str] = []
    with LocalTriton.start(tmp_path / "run", models=models, on_progress=steps.append) as triton:
        family = [psutil.Process(triton.pid), *psutil.Process(triton.pid).children(recursive=True)]
        assert len(family) >= 2
        assert triton.poll() is None
        assert classify(triton, ["easy"])["OUTCOME"].shape == (1, 4)
    assert steps
    assert triton.poll() is not None
    triton.stop()
    wait_until(lambda: all(map(has_ended, family)))


def foreground(tmp_path: Path, models: Path) -> subprocess.Popen[str]:
    ports = {f"TRITON_{name}_PORT": "0" for name in ("HTTP", "GRPC", "METRICS")}
    command = [sys.executable, "-m", "loadtest.local_triton", "--models", str(models)]
    return subprocess.Popen(
        [*command, "--run-dir", str(tmp_path / "run")],
        cwd=REPOSITORY,
        env={**os.environ, **ports},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return
    pytest.fail(f"the process ended before it printed {wanted!r}")


def test_the_foreground_command_ends_cleanly_on_sigterm(tmp_path: Path, models: Path) -> None:
    with foreground(tmp_path, models) as process:
        wait_for_line(process, "Ctrl-C stops it")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    wait_until(lambda: all(map(has_ended, family)))


def test_triton_dies_with_a_parent_that_was_killed(tmp_path: Path, models: Path) -> None:
    with foreground(tmp_path, models) as process:
        wait_for_line(process, "Ctrl-C stops it")
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    wait_until(lambda: all(map(has_ended, family)), deadline_s=20)


def test_the_foreground_command_reports_a_triton_that_died(tmp_path: Path, models: Path) -> None:
    with foreground(tmp_path, models) as process:
        wait_for_line(process, "Ctrl-C stops it")
        (server,) = psutil.Process(process.pid).children()
        server.kill()
        assert process.wait(timeout=30) == 1
        assert process.stderr is not None
        assert "Triton was killed by SIGKILL" in process.stderr.read()
