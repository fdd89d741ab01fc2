"""NVIDIA's own model from its checkpoint to the router's decision: import, real Triton, a policy on complexity."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.canary_service import running_service
from tests.integration.router_process import CHAT, REPOSITORY, chat_body, refuses_to_start, send
from tests.integration.test_retrain import TRAINING_PYTHON, run
from tests.tiny_classifier import TRITON_MODELS

pytestmark = [
    pytest.mark.skipif(not TRAINING_PYTHON.exists(), reason="needs PyTorch: `make train-env`"),
    pytest.mark.timeout(300),
]
PROMPTS = ["write a poem", "prove the theorem in c with examples and why not", "why", "a " * 200]
# A checkpoint of random weights, and what the reference implementation says of the prompts.
REFERENCE = """
import json, sys, torch
from pathlib import Path
from tests.unit.classifier.nvidia_reference import Reference, tokenizer, write_checkpoint
model, prompts = Reference(), json.loads(sys.argv[2])
write_checkpoint(Path(sys.argv[1]), model)
for prompt in prompts:
    ids = tokenizer().encode(prompt).ids
    task, scores = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    print(json.dumps([int(task.argmax()), scores["prompt_complexity_score"][0]]))
"""


def test_the_router_decides_by_nvidia_s_complexity(tmp_path: Path) -> None:
    source, models = tmp_path / "nvidia", tmp_path / "models"
    shutil.copytree(TRITON_MODELS, models, ignore=shutil.ignore_patterns("__pycache__"))
    made = [str(TRAINING_PYTHON), "-c", REFERENCE, str(source), json.dumps(PROMPTS)]
    told = subprocess.run(made, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120).stdout
    wanted = [json.loads(line) for line in told.splitlines()]
    run(TRAINING_PYTHON, "import-nvidia", source, "--out", models / "prompt_classifier" / "1")
    tasks = json.loads((models / "prompt_classifier" / "1" / "spec.json").read_text())["task_types"]

    middle = sorted(score for _, score in wanted)[2]
    tiers = {"score": "complexity", "tiers": [{"model": "cheap"}, {"model": "expensive", "from": round(middle, 3)}]}
    policies = {
        "default": {"type": "threshold", **tiers},
        "task": {"type": "task_map", "models": {"Code Generation": "expensive"}, "default_model": "cheap"},
    }
    with running_service(tmp_path / "service", models, policies=policies) as service:
        for prompt, (task, complexity) in zip(PROMPTS, wanted, strict=True):
            answer = send(service.router.port, "POST", CHAT, chat_body(prompt))
            assert answer.header("x-router-decision") == "classifier"
            assert float(answer.header("x-router-score") or "nan") == pytest.approx(complexity, abs=1e-4)
            answer = send(service.router.port, "POST", CHAT, chat_body(prompt, model="task"))
            assert answer.header("x-chosen-classifier") == tasks[task]

        settings = yaml.safe_load((tmp_path / "service" / "router" / "router.yaml").read_text())
        settings["policies"] = {"default": {"type": "threshold", **tiers, "score": "need_strong"}}
        said = refuses_to_start(settings, tmp_path / "refused")
        assert "policies.default: score 'need_strong' needs an outcome head; the served model declares none" in said
