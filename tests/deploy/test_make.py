"""The make targets that use Docker choose the right files, and step back where Docker or its stack is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT

BOTH = "docker compose -f docker-compose.gpu.yml -f docker-compose.cpu.yml"
GPU_ALONE = "docker compose -f docker-compose.gpu.yml "


@pytest.mark.parametrize(
    ("target", "starts"),
    [
        ("up GPU=", f"{BOTH} up --build --wait"),
        ("up GPU=yes", f"{GPU_ALONE} up --build --wait"),
        ("down GPU=", f"{BOTH} --profile '*' down"),
        ("metrics GPU= IS_UP=yes", f"{BOTH} --profile metrics  up --build --wait"),
        ("metrics GPU=yes IS_UP=yes", f"{GPU_ALONE} --profile metrics --profile gpu-metrics up --build --wait"),
        ("metrics IS_UP=", "-m monitoring.local"),
        ("loadtest GPU= IS_UP=yes", f"{BOTH} --profile loadtest up --build --wait"),
        ("loadtest IS_UP=", "-m loadtest.run --web"),
        ("loadtest IS_UP=yes HOST=http://127.0.0.1:1", "-m loadtest.run --web"),
    ],
)
def test_what_a_target_would_start(target: str, starts: str) -> None:
    result = subprocess.run(["make", "--dry-run", *target.split()], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    commands = [line for line in result.stdout.splitlines() if starts in line]
    assert len(commands) == 1, result.stdout


def test_without_docker_make_up_says_what_to_do(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    result = subprocess.run([make, "up"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode != 0
    assert "This needs Docker with its Compose plugin. Without Docker: make serve" in result.stdout
