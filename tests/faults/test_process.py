"""The router as a process: a set-up that cannot work does not start, and says why."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from loadtest.simulated_llm import SimulatedLLM
from tests.faults.configuration import config
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, REPOSITORY, refuses_to_start, serve_command


@pytest.mark.fault("the port is taken", "the start stops and names the settings")
def test_a_taken_port_is_named_with_its_settings(llm: SimulatedLLM, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refuses_to_start(config(llm, closed_port()), tmp_path, "--port", str(port))
    [message] = [line for line in said.splitlines() if "WARNING" not in line]
    assert message.startswith(f"127.0.0.1:{port} is taken")
    assert all(setting in message for setting in ("--port", "LLM_ROUTER_PORT", "server.port"))


@pytest.mark.fault("a mistake in the configuration", "the start stops with file, line and key, and no value")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("models: {cheap: [\n", 2, ()),
        ("server:\n  prot: 8084\n", 2, ("server.prot",)),
        ("models:\n  cheap:\n    api_base: 7\n", 3, ("models.cheap.api_base",)),
        (
            f"models:\n  cheap:\n    api_base: http://127.0.0.1/v1\n    api_key: [{CANARY}]\n",
            4,
            ("models.cheap.api_key",),
        ),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: tuple[str, ...]) -> None:
    said = refuses_to_start(text, tmp_path)
    [told] = [told for told in said.splitlines() if f"router.yaml:{line}: " in told]
    assert all(word in told for word in words)


@pytest.mark.fault("no configuration file", "the start stops and names the file")
def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    command = serve_command(tmp_path / "absent.yaml")
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "absent.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr
