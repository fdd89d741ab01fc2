"""A drop-in for NVIDIA LLM Router v1: its config.yaml and its clients' requests, unmodified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import yaml

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import SimulatedLLM, simulated_llm
from tests.integration.conftest import closed_port
from tests.integration.router_process import CANARY, CHAT, RouterProcess
from tests.triton_client import connect, text_input

CONFIG = Path(__file__).parents[1] / "unit" / "router" / "data" / "nvidia_v1_config.yaml"
KEY = f"nvapi-{CANARY}"
QUESTION = "Write a Python function that reverses a linked list."
LLMS = {
    policy["name"]: {llm["name"]: llm["model"] for llm in policy["llms"]}
    for policy in yaml.safe_load(CONFIG.read_text())["policies"]
}


@pytest.fixture(scope="module")
def llm() -> Iterator[SimulatedLLM]:
    with simulated_llm("nim-sim", any_model=True, api_key=KEY) as llm:
        yield llm


def config_for(llm: SimulatedLLM) -> str:
    """Return NVIDIA's file with the addresses of its LLMs replaced, and nothing else."""
    text, count = re.subn(r"api_base: \S+", f"api_base: {llm.url}", CONFIG.read_text())
    assert count == 19
    return text


@pytest.fixture(scope="module")
def v1(triton: LocalTriton, llm: SimulatedLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    environment = {"NVIDIA_API_KEY": KEY, "LLM_ROUTER_TRITON_URL": triton.grpc_url}
    router = RouterProcess.start(config_for(llm), tmp_path_factory.mktemp("v1"), env=environment)
    yield router
    router.stop()


def request(**nim: Any) -> dict[str, Any]:
    """Return a request as that blueprint's documentation shows it."""
    return {
        "model": "",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 64,
        "stream": False,
        "nim-llm-router": nim,
    }


def expected_label(triton: LocalTriton, model: str, labels: list[str], prompt: str) -> str:
    with connect(triton) as client:
        scores = client.infer(model, [text_input([prompt], "INPUT")]).as_numpy("OUTPUT")
    return labels[int(np.argmax(scores[0]))]


@pytest.mark.parametrize("policy", ["task_router", "complexity_router"])
@pytest.mark.parametrize("prompt", [QUESTION, "Summarize this letter: Dear all, the harbour is closed.", "Hi!"])
def test_triton_chooses_the_category(
    v1: RouterProcess, triton: LocalTriton, llm: SimulatedLLM, policy: str, prompt: str
) -> None:
    body = request(policy=policy, routing_strategy="triton", model="")
    body["messages"][0]["content"] = prompt
    answer = v1.post(body)
    label = expected_label(triton, f"{policy}_ensemble", list(LLMS[policy]), prompt)
    assert (answer.status, answer.header("x-chosen-classifier")) == (200, label)
    assert answer.header("x-router-decision") in ("classifier", "cache")
    seen = llm.requests()[-1]
    assert seen.json() == {key: value for key, value in body.items() if key != "nim-llm-router"} | {
        "model": LLMS[policy][label]
    }
    assert (seen.path, seen.headers["authorization"]) == (CHAT, f"Bearer {KEY}")


@pytest.mark.parametrize("policy", LLMS)
def test_manual_takes_every_category(v1: RouterProcess, llm: SimulatedLLM, policy: str) -> None:
    for label, model in LLMS[policy].items():
        answer = v1.post(request(policy=policy, routing_strategy="manual", model=label))
        assert answer.status == 200
        assert answer.header("x-chosen-classifier") == label
        assert answer.header("x-router-reason") == "manual"
        assert llm.requests()[-1].json()["model"] == model


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client_with_an_extra_body(v1: RouterProcess, stream: bool) -> None:
    nim = {"policy": "task_router", "routing_strategy": "manual", "model": "Chatbot"}
    with openai.OpenAI(base_url=v1.base_url, api_key="theirs", max_retries=0, timeout=20) as client:
        answer: Any = client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "Hi!"}], stream=stream, extra_body={"nim-llm-router": nim}
        )
        models = {chunk.model for chunk in answer} if stream else {answer.model}
    assert models == {"mistralai/mixtral-8x22b-instruct-v0.1"}


def test_policies_of_one_model_keep_their_own_names_for_its_output(
    triton: LocalTriton, llm: SimulatedLLM, tmp_path: Path
) -> None:
    config = yaml.safe_load(config_for(llm))
    [task_router] = [policy for policy in config["policies"] if policy["name"] == "task_router"]
    renamed = [entry | {"name": f"our {entry['name']}"} for entry in task_router["llms"]]
    config["policies"].append(task_router | {"name": "renamed", "llms": renamed})
    environment = {"NVIDIA_API_KEY": KEY, "LLM_ROUTER_TRITON_URL": triton.grpc_url}
    router = RouterProcess.start(config, tmp_path, env=environment)
    try:
        for policy, names in {"task_router": task_router["llms"], "renamed": renamed}.items():
            [turn] = router.post(request(policy=policy), "/v1/route").json()["turns"]
            assert list(turn["task_type"]) == [entry["name"] for entry in names]
    finally:
        router.stop()


def test_its_other_endpoints(v1: RouterProcess) -> None:
    assert v1.get("/health").json() == {"status": "OK"}
    config = v1.get("/config")
    assert b"[REDACTED]" in config.body
    assert KEY.encode() not in config.body
    manual = request(policy="task_router", routing_strategy="manual", model="Other")
    assert v1.post(manual, "/completions").header("x-chosen-classifier") == "Other"
    assert b"llm_router_requests_total" in v1.get("/metrics").body


@pytest.mark.parametrize(
    ("nim", "status", "words"),
    [
        ({"policy": "x"}, 404, ("Policy 'x' not found", "task_router", "complexity_router")),
        (
            {"policy": "task_router", "routing_strategy": "manual", "model": "Poetry"},
            404,
            ("Model 'Poetry' not found", "Code Generation"),
        ),
        ({"policy": "task_router", "routing_strategy": "manual"}, 400, ("nim-llm-router.model",)),
        ({"policy": "task_router", "routing_strategy": "random"}, 400, ("'triton' or 'manual'",)),
        ({}, 400, ("nim-llm-router.policy",)),
    ],
)
def test_errors_fit_its_clients_and_openais(
    v1: RouterProcess, nim: dict[str, Any], status: int, words: tuple[str, ...]
) -> None:
    answer = v1.post(request(**nim))
    error = answer.error()  # OpenAI's shape, and the {"message", "status"} that its own clients read
    assert (answer.status, error["status"]) == (status, status)
    assert all(word in error["message"] for word in words)


def test_a_request_without_its_object_names_the_choices(v1: RouterProcess) -> None:
    body = request()
    del body["nim-llm-router"]
    assert "'model' is missing" in v1.post(body).error()["message"]
    assert v1.post(body | {"model": "auto"}).header("x-router-policy") == "task_router"


def test_the_upstreams_error_keeps_the_category(v1: RouterProcess, llm: SimulatedLLM) -> None:
    llm.set_fault("status=429;times=1")
    answer = v1.post(request(policy="task_router", routing_strategy="manual", model="Open QA"))
    assert (answer.status, answer.header("x-chosen-classifier")) == (429, "Open QA")


def test_without_triton_the_unsure_category_answers(llm: SimulatedLLM, tmp_path: Path) -> None:
    environment = {"NVIDIA_API_KEY": KEY, "LLM_ROUTER_TRITON_URL": f"127.0.0.1:{closed_port()}"}
    router = RouterProcess.start(config_for(llm), tmp_path, env=environment)
    try:
        for policy, label in (("task_router", "Unknown"), ("complexity_router", "No-Label-Reason")):
            answer = router.post(request(policy=policy, routing_strategy="triton"))
            assert (answer.status, answer.header("x-chosen-classifier")) == (200, label)
            assert answer.header("x-router-decision") == "fallback;reason=unavailable"
            assert llm.requests()[-1].json()["model"] == LLMS[policy][label]
    finally:
        router.stop()
