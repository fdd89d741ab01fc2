"""A new version comes into service beside the old one: a real Triton, a real router of two workers, under load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from classifier.metrics import need_strong
from tests.integration.canary_service import FAST, VOCABULARY, Load, Service, running_service
from tests.integration.router_process import REPOSITORY, wait_until
from tests.tiny_classifier import TRITON_MODELS, expected_probabilities, write_tiny_repository, write_tiny_version


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("promotion")
    with running_service(directory, write_tiny_repository(directory / "source", max_tokens=64)) as running:
        yield running


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The strong model is always right, the weak one where the tiny classifier sees no need of the other."""
    rng = np.random.default_rng(3)
    prompts = [rng.choice(VOCABULARY, int(rng.integers(2, 6))).tolist() for _ in range(400)]
    needs = need_strong(np.array([expected_probabilities(words)[0] for words in prompts]))
    rows = [
        {"prompt": " ".join(words), "weak_score": float(need < np.median(needs)), "strong_score": 1.0}
        for words, need in zip(prompts, needs.tolist(), strict=True)
    ]
    path = tmp_path_factory.mktemp("held-out") / "held_out.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def tiny_candidate(directory: Path, change: Callable[[str], str] = str, file: str = "model.py") -> Path:
    """A version with the committed code, one file of which is changed."""
    write_tiny_version(directory, max_tokens=64)
    for source in (TRITON_MODELS / "prompt_classifier" / "1").glob("*.py"):
        shutil.copy(source, directory)
    text = (directory / file).read_text()
    (directory / file).write_text(change(text))
    return directory


def serving(service: Service) -> set[str | None]:
    return {service.answer(f"{word} {number}")[1] for word in VOCABULARY for number in range(10)}


def served_by_triton(service: Service) -> str:
    return (service.model / "configs" / "cpu.pbtxt").read_text().partition("version_policy")[2].partition("\n")[0]


def test_a_version_is_promoted_and_rolled_back_under_load_without_losing_a_request(
    service: Service, held_out: Path, tmp_path: Path
) -> None:
    with Load(service) as load:
        promoted = service.promote(tiny_candidate(tmp_path / "candidate"), held_out)
        assert promoted.returncode == 0, promoted.stderr
        assert json.loads(promoted.stdout)["to"] == "2"
        assert serving(service) == {"2"}
        back = service.run("rollback")
        assert (back.returncode, back.stdout) == (0, "version 1 serves\n"), back.stderr
        assert serving(service) == {"1"}
    statuses, versions = load.count()
    assert set(statuses) == {200}
    assert versions["1"] > 40
    assert versions["2"] > 40
    assert set(versions) == {"1", "2"}  # nobody fell back
    again = service.run("rollback")
    assert again.returncode == 1
    assert "nothing to go back to" in again.stderr
    history = [json.loads(line) for line in (service.model / "promotions.jsonl").read_text().splitlines()]
    assert [(one.get("promoted"), one.get("rolled_back_to")) for one in history] == [(True, None), (None, "1")]


def before(line: str, *inserted: str) -> Callable[[str], str]:
    """Insert lines into a file's text, before `line` and as far indented."""
    indentation = line[: len(line) - len(line.lstrip())]

    def change(text: str) -> str:
        assert text.count(line) == 1, f"not found once: {line}"
        return text.replace(line, "".join(f"{indentation}{one}\n" for one in inserted) + line)

    return change


BAD = {
    "fails on some prompts": (
        "scoring.py",
        before('            texts.append(row.decode("utf-8"))', 'if b"poem" in row: raise ValueError("broken")'),
        r"\d+ of \d+ prompts failed, allowed are 1\.0%",
    ),
    "is slow": (
        "model.py",
        before("        responses: list[", "import time", "time.sleep(0.3)"),
        r"p95 of a call is \d+ ms, with the serving version [\d.]+ ms",
    ),
    "cannot be loaded": (
        "model.py",
        before("        version_dir = Path", 'raise pb_utils.TritonModelException("broken")'),
        r"Triton at .* could not load prompt_classifier: .*broken",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_version_that_is_not_sound_goes_back_by_itself(
    what: str, service: Service, held_out: Path, tmp_path: Path
) -> None:
    file, change, reason = BAD[what]
    config = served_by_triton(service)
    version = serving(service)
    with Load(service) as load:
        refused = service.promote(tiny_candidate(tmp_path / "candidate", change, file), held_out)
    assert refused.returncode == 1, refused.stderr
    assert re.search(rf"version \d+ was rolled back, version 1 serves: {reason}", refused.stderr), refused.stderr
    assert set(load.count()[0]) == {200}
    assert serving(service) == version == {"1"}
    assert served_by_triton(service) == config
    assert (service.model / "shares").read_text() == "1=100\n"


def test_decisions_that_drift_send_a_forced_version_back(service: Service, held_out: Path, tmp_path: Path) -> None:
    """The outcome's temperature is so high that every prompt looks alike, and goes to the cheap model."""
    candidate = tiny_candidate(tmp_path / "candidate")
    spec = json.loads((candidate / "spec.json").read_text())
    (candidate / "spec.json").write_text(
        json.dumps({**spec, "calibration": {"temperature": 1000, "bias": [9, 0, 0, 0]}})
    )
    refused = service.promote(candidate, held_out)
    assert refused.returncode == 1
    assert "not promoted, version 1 serves: it " in refused.stderr
    with Load(service):
        forced = service.promote(candidate, held_out, "--force")
    assert forced.returncode == 1
    assert "forced in spite of: it " in forced.stderr
    assert re.search(r"[\d.]+% of its decisions go to other models, allowed are 15\.0%", forced.stderr)
    assert serving(service) == {"1"}


def test_without_traffic_a_step_is_not_judged_and_goes_back(service: Service, held_out: Path, tmp_path: Path) -> None:
    refused = service.promote(tiny_candidate(tmp_path / "candidate"), held_out, "--step-timeout", "1")
    assert refused.returncode == 1
    assert re.search(r"0 decisions in \d+ s, 40 are needed to judge a step", refused.stderr)
    assert serving(service) == {"1"}


def test_a_stopped_promotion_goes_back(service: Service, held_out: Path, tmp_path: Path) -> None:
    candidate = tiny_candidate(tmp_path / "candidate")
    options = ["--candidate", str(candidate), "--data", str(held_out), "--triton", service.triton.grpc_url]
    command = service.command("promote", *options, "--bootstrap", "50", "--steps", "50", "100")
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as promoting:
        wait_until(lambda: "=50" in (service.model / "shares").read_text(), deadline_s=60)
        promoting.send_signal(signal.SIGTERM)
        assert promoting.wait(30) == 1
    assert serving(service) == {"1"}


def test_a_triton_that_dies_meanwhile_leaves_files_with_which_the_old_version_starts_again(
    tmp_path: Path, held_out: Path
) -> None:
    with running_service(tmp_path / "service", write_tiny_repository(tmp_path / "source", max_tokens=64)) as service:
        config = served_by_triton(service)
        options = ["--candidate", str(tiny_candidate(tmp_path / "candidate")), "--data", str(held_out)]
        command = service.command("promote", *options, "--triton", service.triton.grpc_url, "--bootstrap", "50", *FAST)
        with (
            Load(service) as load,
            subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as promoting,
        ):
            wait_until(lambda: "=30" in (service.model / "shares").read_text(), deadline_s=60)
            os.kill(service.triton.pid, signal.SIGKILL)
            _, said = promoting.communicate(timeout=60)
        assert promoting.returncode == 1
        assert "was rolled back, version 1 serves:" in said
        assert "Traceback" not in said
        assert set(load.count()[0]) == {200}  # the default model answers
        assert served_by_triton(service) == config
        assert (service.model / "shares").read_text() == "1=100\n"
