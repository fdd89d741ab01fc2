"""docs/retrain.md from end to end: the router's log, grades, training, export, a calibrated threshold, promotion."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.integration.canary_service import Service, running_service
from tests.integration.router_process import CHAT, REPOSITORY, chat_body, send, wait_until
from tests.tiny_classifier import TRITON_MODELS

TRAINING_PYTHON = REPOSITORY / ".venv-train" / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(not TRAINING_PYTHON.exists(), reason="needs PyTorch: `make train-env`"),
    pytest.mark.timeout(600),
]
# Where training starts: random token vectors, which tell the words of two topics apart all the same, and empty heads.
START = """
import json, sys, torch
from pathlib import Path
from classifier import checkpoint
from classifier.static_encoder import Shape, StaticEncoder
out, version = map(Path, sys.argv[1:])
spec = json.loads((version / "spec.json").read_text()) | {"metrics": {"test_split": {}}}  # they are of other weights
tokenizer = (version / "tokenizer.json").read_text()
model = StaticEncoder(Shape(len(json.loads(tokenizer)["model"]["vocab"]), dimensions=32, bigrams=16))
torch.manual_seed(0)
with torch.no_grad():
    model.vectors.copy_(torch.randn(model.vectors.shape))
    model.token_weight.fill_(1.0)
checkpoint.save(out, model, spec, tokenizer)
"""
# In this house the cheap model knows its way around the kitchen, and gets everything about ships wrong.
TOPICS = {
    "kitchen": ("flour", "butter", "oven", "recipe", "soup", "salt", "bread", "onion", "pan", "dough"),
    "ship": ("anchor", "rudder", "harbour", "sail", "mast", "keel", "tide", "deck", "captain", "buoy"),
}


def prompts(count: int) -> list[tuple[str, bool]]:
    """Questions about either topic, of any length; True where the cheap model fails."""
    rng = np.random.default_rng(11)
    found = []
    for number in range(count):
        topic = "ship" if rng.random() < 0.5 else "kitchen"
        words = " ".join(rng.choice(TOPICS[topic], int(rng.integers(3, 12))).tolist())
        found.append((f"Question {number}: what do I need to know of {words}?", topic == "ship"))
    return found


def run(python: str | Path, *arguments: str | Path) -> str:
    command = [str(python), "-m", "classifier", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(service: Service, prompt: str) -> tuple[str, str | None]:
    answer = send(service.router.port, "POST", CHAT, chat_body(prompt))
    assert answer.status == 200
    return str(answer.header("x-request-id")), answer.header("x-router-classifier-version")


def test_a_version_trained_on_the_routers_own_log_is_promoted(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    with (
        running_service(tmp_path / "service", TRITON_MODELS, decision_log={"path": str(log)}) as service,
        ThreadPoolExecutor(8) as clients,
    ):
        asked = prompts(900)
        answers = list(clients.map(lambda one: ask(service, one[0]), asked))
        assert {version for _, version in answers} == {"1"}
        wait_until(lambda: log.read_bytes().count(b"\n") == 900)
        assert {one["classifier_version"] for one in map(json.loads, log.read_text().splitlines())} == {"1"}
        grades = tmp_path / "grades.jsonl"
        grades.write_text(
            "".join(
                json.dumps({"request_id": name, "weak_score": float(not fails), "strong_score": 1.0}) + "\n"
                for (name, _), (_, fails) in zip(answers, asked, strict=True)
            )
        )
        rows, train, held_out = (tmp_path / name for name in ("rows.jsonl", "train.jsonl", "held_out.jsonl"))
        run(sys.executable, "import", "--format", "decision-log", "--input", log, "--grades", grades, "--output", rows)
        lines = rows.read_text().splitlines()
        train.write_text("\n".join(lines[:600]))
        held_out.write_text("\n".join(lines[600:]))

        checkpoint, candidate, report = tmp_path / "checkpoint", tmp_path / "candidate", tmp_path / "report"
        start = tmp_path / "start"
        made = [str(TRAINING_PYTHON), "-c", START, str(start), str(TRITON_MODELS / "prompt_classifier" / "1")]
        subprocess.run(made, cwd=REPOSITORY, check=True, timeout=120)
        run(TRAINING_PYTHON, "train", "--data", train, "--encoder", start, "--mode", "heads", "--out", checkpoint)
        run(TRAINING_PYTHON, "export", "--checkpoint", checkpoint, "--out", candidate)
        run(
            sys.executable,
            "evaluate",
            "--model",
            candidate,
            "--data",
            held_out,
            "--report",
            report,
            "--bootstrap",
            "50",
        )
        apgr = json.loads((report / "report.json").read_text())["routing"]["routers"]["need_strong"]["apgr"]["value"]
        assert apgr > 0.65  # a perfect order reaches 0.75 when half of the prompts need the strong model

        told = run(
            *(sys.executable, "calibrate", "--model", candidate, "--data", held_out),
            *("--target-quality", "0.9", "--bootstrap", "50"),
        )
        assert json.loads(told.splitlines()[-1])["expected"]["quality_share"]["high"] >= 0.9

        stopped: list[bool] = []
        traffic = clients.submit(lambda: [ask(service, one[0]) for _ in range(40) for one in asked if not stopped])
        promoted = service.promote(candidate, held_out, "--max-drift", "1")
        stopped.append(True)
        traffic.result()
        assert promoted.returncode == 0, promoted.stderr
        assert ask(service, "Where does the anchor go?")[1] == "3"  # versions 1 and 2 are shipped
