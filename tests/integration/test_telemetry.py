"""ONNX Runtime's Linux builds report to their maker by default and leave a device id in the home folder: not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.local_triton import MODELS, REPOSITORY, LocalTriton

WEIGHTS = MODELS / "prompt_classifier" / "1" / "model.onnx"
SESSION = f"import onnxruntime; onnxruntime.InferenceSession({str(WEIGHTS)!r})"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, and nothing in the environment that switches telemetry off."""
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def traces(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*") if "onnxruntime" in str(path) and path.is_file()]


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_without_our_setting_it_would_leave_a_trace(home: Path) -> None:
    """Else the next two tests look at the wrong thing."""
    run(SESSION)
    assert traces(home) != []


def test_the_served_version_leaves_none(home: Path, tmp_path: Path) -> None:
    with LocalTriton.start(tmp_path / "run"):
        assert traces(home) == []
    assert traces(home) == []


def test_the_classifiers_commands_leave_none(home: Path) -> None:
    run(f"import classifier; {SESSION}")
    assert traces(home) == []
