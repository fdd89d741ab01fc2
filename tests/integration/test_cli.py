"""The command line as a process: exit status, what goes to stdout, what to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Stack, closed_port, stack_config
from tests.integration.router_process import CANARY, REPOSITORY, tiers, write_config

PROMPTS = [
    "What is the capital of France?",
    "Prove that there are infinitely many primes.",
    "Schreibe ein Gedicht über ☀️",
]


def run(*arguments: object, stdin: str | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "router", *map(str, arguments)],
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in ended.stderr
    assert (ended.returncode == 0) == ok, ended.stderr
    return ended


@pytest.fixture
def config(stack: Stack, tmp_path: Path) -> Path:
    return write_config(stack_config(stack.triton.grpc_url, stack.cheap, stack.expensive, stack.canned), tmp_path)


def test_classify_reads_a_file(stack: Stack, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join([*PROMPTS, "", "  "]), encoding="utf-8")
    ended = run("classify", "--config", config, file)
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    assert all(row["version"] == "1" and sum(row["outcome"].values()) > 0.99 for row in rows)
    assert ended.stderr.split("\n")[-2:] == ["classified 3/3", ""]
    [routed] = stack.router.post({"inputs": PROMPTS[:1]}, "/v1/route").json()["data"]
    assert rows[0]["scores"]["need_strong"] == pytest.approx(routed["score"], abs=1e-4)


def test_classify_reads_stdin_in_batches(config: Path) -> None:
    prompts = [f"Prompt number {i}" for i in range(100)]
    ended = run("classify", "--config", config, stdin="\n".join(prompts))
    assert [json.loads(line)["prompt"] for line in ended.stdout.splitlines()] == prompts
    assert ended.stderr.split("\n")[1:-1] == [f"classified {n}/100" for n in (32, 64, 96, 100)]


def test_classify_of_nothing(config: Path) -> None:
    assert run("classify", "--config", config, stdin="").stdout == ""


def test_classify_into_a_closed_pipe(config: Path) -> None:
    """`classify | head -1` is no error."""
    command = f'"{sys.executable}" -m router classify --config "{config}" | head -1'
    prompts = "\n".join(f"Prompt number {i} {'x' * 500}" for i in range(2000))
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=REPOSITORY,
        input=prompts,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert len(ended.stdout.splitlines()) == 1
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr


def test_classify_without_triton_says_where_it_looked(stack: Stack, tmp_path: Path) -> None:
    port = closed_port()
    config = stack_config(f"127.0.0.1:{port}", stack.cheap, stack.expensive, stack.canned)
    ended = run("classify", "--config", write_config(config, tmp_path), stdin=f"Hello {CANARY}", ok=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "triton.url" in ended.stderr
    assert CANARY not in ended.stderr


def test_classify_what_cannot_be_read(config: Path, tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes(f"{CANARY} caf\xe9\n".encode("latin-1"))
    for name, reason in (("absent.txt", "No such file"), (".", "Is a directory"), ("latin1.txt", "is not UTF-8")):
        ended = run("classify", "--config", config, tmp_path / name, ok=False)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert str(tmp_path / name) in ended.stderr
        assert reason in ended.stderr
        assert CANARY not in ended.stderr


def test_check_config_says_what_it_means(config: Path) -> None:
    ended = run("check-config", config)
    assert "router.yaml: ok" in ended.stdout
    assert "price unknown" in ended.stdout
    assert CANARY not in ended.stdout
    assert ended.stderr == ""


def test_check_config_names_every_problem(tmp_path: Path) -> None:
    config = {
        "models": {"cheap": {"api_base": "ftp://x", "api_key": f"{CANARY} with a space"}},
        "policies": {"default": tiers("cheap", "expnsive")},
    }
    ended = run("check-config", write_config(config, tmp_path), ok=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    for words in ("models.cheap.api_base", "models.cheap.api_key", '"expnsive" is not a configured model'):
        assert words in ended.stderr
    assert "3 problems; nothing was started" in ended.stderr
    assert CANARY not in ended.stderr


@pytest.mark.parametrize("command", [(), ("serve",), ("check-config",), ("classify",)])
def test_help(command: tuple[str, ...]) -> None:
    ended = run(*command, "--help")
    assert ended.stdout.startswith("usage: python -m router")
    assert len(ended.stdout.splitlines()) > 5
    assert ended.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("srve",), ("serve", "--port", "many"), ("check-config",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments, ok=False)
    assert ended.returncode == 2
    assert "usage: python -m router" in ended.stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--port", "65536"), ("--port", "-1"), ("--workers", "0"), ("--workers", "65")]
)
def test_an_option_out_of_range(config: Path, option: str, value: str) -> None:
    ended = run("serve", "--config", config, option, value, ok=False)
    assert ended.returncode == 1
    assert f"{option} {value}" in ended.stderr
