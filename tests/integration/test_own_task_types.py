"""docs/own-task-types.md from end to end: a bank's questions, a task head of its 77 intents, a policy for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.banking import INTENTS, question, write_banking
from tests.integration.canary_service import running_service
from tests.integration.router_process import CHAT, chat_body, refuses_to_start, send
from tests.integration.test_retrain import START, TRAINING_PYTHON, run
from tests.tiny_classifier import TRITON_MODELS

pytestmark = [
    pytest.mark.skipif(not TRAINING_PYTHON.exists(), reason="needs PyTorch: `make train-env`"),
    pytest.mark.timeout(300),
]
SERIOUS = ("compromised_card", "lost_or_stolen_card", "lost_or_stolen_phone")


def trained(directory: Path) -> Path:
    """Train and export as the page says; return a model repository that serves it."""
    write_banking(directory, train=8, test=2)
    models = directory / "models"
    shutil.copytree(TRITON_MODELS, models, ignore=shutil.ignore_patterns("__pycache__"))
    version, start, checkpoint = models / "prompt_classifier" / "1", directory / "start", directory / "checkpoint"
    subprocess.run([TRAINING_PYTHON, "-c", START, start, version], check=True, timeout=120)
    for name in ("train", "test"):
        rows = ("--input", directory / f"{name}.csv", "--output", directory / f"{name}.jsonl")
        assert "rows written" in run(sys.executable, "import", "--format", "labels", *rows)
    data = ("--data", directory / "train.jsonl", "--task-types", directory / "categories.json")
    run(
        TRAINING_PYTHON,
        "train",
        *data,
        "--encoder",
        start,
        "--mode",
        "heads",
        "--iterations",
        "20",
        "--out",
        checkpoint,
    )
    run(TRAINING_PYTHON, "export", "--checkpoint", checkpoint, "--out", version)
    return models


def test_a_bank_s_own_intents_route_its_questions(tmp_path: Path) -> None:
    models = trained(tmp_path)
    version = models / "prompt_classifier" / "1"
    assert json.loads((version / "spec.json").read_text())["task_types"] == INTENTS
    told = run(sys.executable, "evaluate", "--model", version, "--data", tmp_path / "test.jsonl", "--bootstrap", "20")
    right = float(told.partition("task type right on ")[2].partition("%")[0])
    assert right > 60, told  # one of 77 is right by chance in 1.3%

    policy = {
        "type": "task_map",
        "models": dict.fromkeys(SERIOUS, "expensive"),
        "default_model": "cheap",
    }
    with running_service(tmp_path / "service", models, policies={"default": policy}) as service:
        rng = np.random.default_rng(3)
        seen = []
        for intent in (*SERIOUS, "age_limit", "exchange_rate", "change_pin"):
            answer = send(service.router.port, "POST", CHAT, chat_body(question(intent, rng)))
            assert answer.header("x-router-decision") == "classifier"
            named = answer.header("x-chosen-classifier")
            assert named in INTENTS
            assert answer.header("x-router-model") == ("expensive" if named in SERIOUS else "cheap")
            seen.append(named == intent)
        assert sum(seen) >= 4

        wrong = {**policy, "models": {"lost_or_stolen_cards": "expensive"}}
        settings = yaml.safe_load((tmp_path / "service" / "router" / "router.yaml").read_text())
        settings["policies"] = {"default": wrong}
        said = refuses_to_start(settings, tmp_path / "refused")
        assert "policies.default: 'lost_or_stolen_cards' is not a task of the served model" in said
        assert 'did you mean "lost_or_stolen_card"?' in said
