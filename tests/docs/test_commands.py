"""Commands in the documentation do what it says, against the stack that `make serve` brings up."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.local_triton import LocalTriton
from loadtest.processes import Child
from loadtest.stack import Ports, Stack, running_stack
from tests.docs.snippets import REPOSITORY, Snippet, blocks, commands, pages

_PLACEHOLDER = re.compile(r"[A-Z_]{8,}").fullmatch
SERVE_URL = "http://127.0.0.1:8084"
MAKE, CURL, PYTHON, ROUTER, CLASSIFIER, LOADTEST, DOCKER = (
    commands("make "),
    commands("curl "),
    list(blocks("python")),
    commands("-m router"),
    commands("-m classifier"),
    [*commands("-m loadtest.run"), *commands("-m locust")],
    commands("docker compose "),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("served"), Ports.any_free(), print) as stack:
        yield stack


@pytest.fixture
def user_directory(tmp_path: Path) -> Path:
    """A directory with the README's router.yaml."""
    [configuration] = [block for block in blocks("yaml") if block.file == "README.md"]
    (tmp_path / "router.yaml").write_text(configuration.text)
    return tmp_path


def test_every_shell_command_is_of_a_kind_that_is_tested_here() -> None:
    tested = {command.text for command in (*MAKE, *CURL, *ROUTER, *CLASSIFIER, *LOADTEST, *DOCKER)}
    assert [str(command) for command in commands("") if command.text not in tested] == []


@pytest.mark.parametrize("command", MAKE, ids=str)
def test_make_targets_exist(command: Snippet) -> None:
    result = subprocess.run([*shlex.split(command.text), "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", CURL, ids=str)
def test_curl_commands_are_answered(command: Snippet, served: Stack) -> None:
    assert SERVE_URL in command.text
    line = command.text.replace(SERVE_URL, served.router_url).replace("curl ", "curl --silent --fail-with-body ", 1)
    result = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["object"] in ("chat.completion", "list")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_snippets_run(block: Snippet, served: Stack) -> None:
    program = block.text.replace(SERVE_URL, served.router_url)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "-sim" in result.stdout


@pytest.mark.parametrize("command", ROUTER, ids=str)
def test_router_commands_work_with_the_readmes_configuration(
    command: Snippet, user_directory: Path, triton: LocalTriton
) -> None:
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "sk-test",
        "PYTHONPATH": str(REPOSITORY),
        "LLM_ROUTER_TRITON_URL": triton.grpc_url,
        "LLM_ROUTER_PORT": "0",
        "LLM_ROUTER_ADMIN_PORT": "0",
    }
    line = command.text.replace(".venv/bin/python", sys.executable)
    if " serve " not in line:
        result = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=user_directory, env=environment)
        assert result.returncode == 0, result.stderr
        assert result.stdout
        return
    log = user_directory / "router.log"
    router = Child.start("router", line.split(), log_path=log, cwd=user_directory, env=environment)
    try:
        router.wait_until(lambda: "listening on http://127.0.0.1:" in log.read_text(), deadline_s=30)
    finally:
        router.stop()


@pytest.mark.parametrize("command", CLASSIFIER, ids=str)
def test_classifier_commands_and_their_options_exist(command: Snippet) -> None:
    subcommand, *rest = command.text.partition("-m classifier ")[2].split()
    help_text = subprocess.run(
        [sys.executable, "-m", "classifier", subcommand, "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert help_text.returncode == 0, help_text.stderr
    assert [word for word in rest if word.startswith("--") and word not in help_text.stdout] == []


@pytest.mark.parametrize("command", LOADTEST, ids=str)
def test_load_test_commands_and_their_options_exist(command: Snippet) -> None:
    module, *rest = command.text.partition("-m ")[2].split()
    help_text = subprocess.run([sys.executable, "-m", module, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert help_text.returncode == 0, help_text.stderr
    assert [word for word in rest if word.startswith("--") and word not in help_text.stdout] == []


@pytest.mark.parametrize("command", DOCKER, ids=str)
def test_docker_commands_fit_the_files(command: Snippet) -> None:
    docker_compose = str(Path(sys.executable).with_name("docker-compose"))
    words = shlex.split(command.text)[2:]
    at = next(i for i, word in enumerate(words) if word in ("up", "run", "down"))
    files, (subcommand, *rest) = words[:at], words[at:]
    services = subprocess.run(
        [docker_compose, *files, "--profile", "*", "config", "--services"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert services.returncode == 0, services.stderr
    help_text = subprocess.run([docker_compose, subcommand, "--help"], capture_output=True, text=True).stdout
    if subcommand == "run":
        named = next(word for word in rest if not word.startswith("--"))
        assert named in services.stdout.split()
        rest = rest[: rest.index(named)]
    assert [word for word in rest if word.startswith("--") and word not in help_text] == []


def test_no_page_holds_a_placeholder() -> None:
    found = [(page.name, line) for page in pages() for line in page.read_text().splitlines() if _PLACEHOLDER(line)]
    assert found == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [part.partition(")")[0] for part in page.read_text().split("](")[1:]]
    local = [target.partition("#")[0] for target in targets if not target.startswith("http")]
    assert [target for target in local if target and not (page.parent / target).exists()] == []
