"""Without a usable score the default model answers and says why; a set-up that cannot work does not start."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import SimulatedLLM
from tests.faults.configuration import config
from tests.faults.conftest import StartRouter
from tests.integration.conftest import closed_port
from tests.integration.router_process import (
    CANARY,
    CHAT,
    Answer,
    RouterProcess,
    chat_body,
    refuses_to_start,
    send,
    wait_until,
)
from tests.tiny_classifier import POISON, render_spec, write_tiny_repository, write_tiny_version

RECOVERY_S = 10.0  # generous: two seconds are promised
SLOW, SLEEP_S = "slow", 2.5
GARBAGE = {
    "not a number": "outcome=scores.outcome * float('nan')",
    "beyond": "outcome=scores.outcome + 1",
    "not a distribution": "outcome=scores.outcome / 2",
    "too narrow": "outcome=scores.outcome[:, :3]",
    "too few": "tokens=scores.tokens[:0]",
}
MISBEHAVIOUR = f"""

def _misbehaving(self, texts, score=Scorer.score):
    import dataclasses, time
    if any({SLOW!r} in text for text in texts):
        time.sleep({SLEEP_S})
    scores = score(self, texts)
    for word, change in {GARBAGE!r}.items():
        if any(word in text for text in texts):
            scores = dataclasses.replace(scores, **eval(f"dict({{change}})", {{"scores": scores}}))
    return scores

Scorer.score = _misbehaving
"""
prompts = (f"easy question number {number}" for number in itertools.count())


def decision(router: RouterProcess, text: str | None = None) -> str | None:
    """Ask something new and return where the decision came from; the answer itself is never an error."""
    answer = router.post(chat_body(text or next(prompts)))
    assert answer.status == 200, answer.body
    source = answer.header("x-router-decision")
    if source != "classifier":
        assert answer.header("x-router-model") == "expensive"
        assert answer.header("x-router-reason") == "fallback"
        assert answer.header("x-router-score") == "none"
    return source


def recovers(router: RouterProcess) -> None:
    """Wait until prompts are scored again, and until readiness says so too."""
    wait_until(lambda: decision(router) == "classifier", deadline_s=RECOVERY_S)
    wait_until(lambda: router.ready() == {"status": "ready", "classifier": "ok"}, deadline_s=RECOVERY_S)


@pytest.mark.fault(
    "Triton is down at the start, then killed under load",
    "the default model answers, ready says `degraded`, no client sees an error; scored within 2 s of its return",
)
def test_triton_comes_later_dies_under_load_and_comes_back(
    llm: SimulatedLLM, start_router: StartRouter, tmp_path: Path
) -> None:
    port = closed_port()
    models = write_tiny_repository(tmp_path / "models")
    router = start_router(config(llm, port))
    assert decision(router) == "fallback;reason=unavailable"
    assert router.get("/health/live").status == 200
    assert router.ready() == {"status": "degraded", "classifier": "unavailable"}
    assert "going on without the classifier" in router.log()

    with LocalTriton.start(tmp_path / "triton", models=models, grpc_port=port) as triton:
        recovers(router)
        sources = killed_under_load(router, triton)
    assert {"classifier", "fallback;reason=unavailable"} <= sources
    wait_until(lambda: router.ready()["status"] == "degraded", deadline_s=RECOVERY_S)

    with LocalTriton.start(tmp_path / "triton", models=models, grpc_port=port):
        recovers(router)


def killed_under_load(router: RouterProcess, triton: LocalTriton) -> set[str | None]:
    """Kill Triton while 8 clients ask without a pause; return what the decisions said. No client sees an error."""
    before = router.outcomes("ok")
    killed = threading.Event()

    def ask(worker: int) -> list[str | None]:
        seen: list[str | None] = []
        after = 0
        while after < 20:  # each client goes on for a while without Triton
            seen.append(decision(router, f"question {len(seen)} of client {worker}"))
            after += killed.is_set()
        return seen

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, worker) for worker in range(8)]
        wait_until(lambda: router.outcomes("ok") - before > 50)
        psutil.Process(triton.pid).kill()
        killed.set()
        sources = [source for one in asked for source in one.result()]
    assert router.outcomes("ok") == before + len(sources)
    return set(sources)


@dataclass(frozen=True, slots=True)
class Fragile:
    """A Triton with the tiny classifier that a test may break, and a router on it."""

    triton: LocalTriton
    router: RouterProcess
    models: Path

    def stub(self) -> psutil.Process:
        """Return the process that runs the classifier's python code."""
        children = psutil.Process(self.triton.pid).children(recursive=True)
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        [stub] = [child for child in alive if "prompt_classifier" in " ".join(child.cmdline())]
        return stub

    @property
    def port(self) -> int:
        """Triton's gRPC port."""
        return int(self.triton.grpc_url.rsplit(":", 1)[1])

    def control(self, verb: str) -> Answer:
        """Load or unload the classifier."""
        port = int(self.triton.http_url.rsplit(":", 1)[1])
        answer = send(port, "POST", f"/v2/repository/models/prompt_classifier/{verb}", {})
        assert answer.status == 200, answer.body
        return answer


@pytest.fixture(scope="module")
def running_fragile(llm: SimulatedLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    directory = tmp_path_factory.mktemp("fragile")
    models = write_tiny_repository(directory / "models")
    with (models / "prompt_classifier" / "1" / "scoring.py").open("a") as scoring:
        scoring.write(MISBEHAVIOUR)
    with LocalTriton.start(directory / "triton", models=models) as triton:
        port = int(triton.grpc_url.rsplit(":", 1)[1])
        router = RouterProcess.start(config(llm, port), directory / "router")
        yield Fragile(triton, router, directory / "triton" / "models")
        router.stop()


@pytest.fixture
def fragile(running_fragile: Fragile) -> Iterator[Fragile]:
    """It is whole before each test, and heals after it within two seconds of Triton's own healing."""
    recovers(running_fragile.router)
    yield running_fragile
    running_fragile.control("unload")
    running_fragile.control("load")
    recovers(running_fragile.router)


@pytest.mark.fault(
    "the classifier's process in Triton dies; Triton calls it ready",
    "fallback `unhealthy` or `deadline`; ready says `degraded`",
)
def test_a_dead_stub_shows(fragile: Fragile) -> None:
    """Triton itself still calls the model ready; only an inference tells, by an error or, while Triton is still
    finding out, by silence.
    """
    fragile.stub().kill()
    wait_until(lambda: fragile.router.ready()["status"] == "degraded", deadline_s=RECOVERY_S)
    wait_until(lambda: fragile.router.ready()["classifier"] == "unhealthy", deadline_s=10)
    assert decision(fragile.router) in ("fallback;reason=unhealthy", "fallback;reason=deadline")


@pytest.mark.fault("the classifier is unloaded", "fallback `not_found`; ready says so")
def test_a_model_that_was_unloaded(fragile: Fragile) -> None:
    fragile.control("unload")
    wait_until(lambda: decision(fragile.router) == "fallback;reason=not_found", deadline_s=5)
    wait_until(lambda: fragile.router.ready()["classifier"] == "not_found", deadline_s=RECOVERY_S)


@pytest.mark.fault("the classifier is slow", "fallback `deadline` before it answers; scored again once it is quick")
def test_a_slow_classifier(fragile: Fragile) -> None:
    """The deadline ends the wait, and what Triton then answers to nobody does no harm."""
    with ThreadPoolExecutor(8) as clients:
        sources = list(clients.map(lambda i: decision(fragile.router, f"{SLOW} {i}"), range(8)))
    assert sources == ["fallback;reason=deadline"] * 8
    wait_until(lambda: decision(fragile.router) == "classifier", deadline_s=SLEEP_S + RECOVERY_S)


@pytest.mark.fault(
    "the classifier answers NaN, what is no distribution, or a wrong shape",
    "fallback `invalid_output`; the next prompt is scored",
)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_never_routed_on(fragile: Fragile, garbage: str) -> None:
    assert decision(fragile.router, f"{garbage} {next(prompts)}") == "fallback;reason=invalid_output"
    assert decision(fragile.router) == "classifier"


@pytest.mark.fault("a version without the head that the policy needs is loaded", "fallback `invalid_output`")
def test_nan_is_never_routed_on(fragile: Fragile) -> None:
    """The weights lose their outcome head under the router, which knew the version with one."""
    model = fragile.models / "prompt_classifier"
    kept = shutil.copytree(model, model.parent.parent / "kept")
    spec = write_tiny_version(model / "1", heads=("task_types",))
    path = model / "configs" / "cpu.pbtxt"
    path.write_text(render_spec(path.read_text(), spec))
    try:
        fragile.control("unload")
        fragile.control("load")
        wait_until(lambda: decision(fragile.router) == "fallback;reason=invalid_output", deadline_s=RECOVERY_S)
        wait_until(lambda: fragile.router.ready()["classifier"] == "invalid_output", deadline_s=RECOVERY_S)
    finally:
        shutil.rmtree(model)
        kept.rename(model)


@pytest.mark.fault("a prompt that the classifier fails at", "the default model answers it; the next prompt is scored")
def test_a_poisonous_prompt_is_answered_and_breaks_nothing(fragile: Fragile) -> None:
    assert decision(fragile.router, f"easy {POISON}") in ("fallback;reason=unhealthy", "fallback;reason=invalid_output")
    assert decision(fragile.router) == "classifier"
    assert fragile.router.ready()["status"] == "ready"


@pytest.mark.fault("such a prompt within a batch", "its mates are scored")
def test_a_poisonous_prompt_fails_alone(fragile: Fragile) -> None:
    texts = ["easy poem one", f"a {POISON} apple", "hard code two", "why three"]
    answer = fragile.router.post({"inputs": texts}, "/v1/route")
    decisions = answer.json()["data"]
    assert [one["source"] for one in decisions] == ["classifier", "fallback", "classifier", "classifier"]
    assert decisions[1]["model"] == "expensive"
    assert all(one["turns"][0]["outcome"] for one in decisions if one["source"] == "classifier")


@pytest.mark.fault("several requests fall back", "each is counted, by its reason")
def test_fallbacks_are_counted_by_reason(fragile: Fragile) -> None:
    def count() -> float:
        return fragile.router.metrics().total("llm_router_fallbacks_total", reason="not_found")

    fragile.control("unload")
    wait_until(lambda: decision(fragile.router) == "fallback;reason=not_found", deadline_s=5)
    before = count()
    assert [decision(fragile.router) for _ in range(3)] == ["fallback;reason=not_found"] * 3
    assert count() == before + 3


@pytest.mark.fault(
    "no score, with `on_failure: reject`",
    "503 `classifier_unavailable` with `Retry-After`; ready is 503, live is 200",
)
def test_who_wants_no_fallback_gets_a_503(llm: SimulatedLLM, start_router: StartRouter) -> None:
    router = start_router(config(llm, closed_port(), on_failure="reject"))
    answer = router.post(chat_body(f"Hello? {CANARY}"))
    assert (answer.status, answer.error()["code"]) == (503, "classifier_unavailable")
    assert int(answer.header("retry-after") or 0) >= 1
    assert router.outcomes("classifier_error") == 1
    answer = router.post({"inputs": [f"Hello? {CANARY}"]}, "/v1/route")
    assert (answer.status, answer.error()["code"]) == (503, "classifier_unavailable")
    assert int(answer.header("retry-after") or 0) >= 1
    ready = router.get("/health/ready")
    assert (ready.status, ready.json()["status"]) == (503, "unready")
    assert router.post(chat_body(model="cheap")).status == 200  # nothing to score
    assert router.get("/health/live").status == 200


@pytest.mark.fault("a policy needs what the served model lacks", "the start stops and names policy and head")
def test_a_policy_that_needs_a_head_which_the_model_lacks(
    llm: SimulatedLLM, start_router: StartRouter, tmp_path: Path
) -> None:
    models = write_tiny_repository(tmp_path / "models")
    spec = write_tiny_version(models / "prompt_classifier" / "1", heads=("outcomes",))
    for path in (models / "prompt_classifier").rglob("*.pbtxt"):
        path.write_text(render_spec(path.read_text(), spec))
    with LocalTriton.start(tmp_path / "triton", models=models) as triton:
        settings = config(llm, int(triton.grpc_url.rsplit(":", 1)[1]))
        fitting = settings["policies"]["default"]
        task = {"type": "task_map", "models": {"Open QA": "cheap"}, "default_model": "cheap"}
        settings["policies"] = {"default": fitting, "deep": {**fitting, "score": "reasoning"}, "by-task": task}
        said = refuses_to_start(settings, tmp_path / "refused")
        assert len(said.splitlines()) == 2
        assert "policies.deep: score 'reasoning' needs a dimensions head; the served model declares none" in said
        assert "policies.by-task: it needs a task head; the served model declares none" in said

        settings["policies"] = {"default": fitting}
        assert decision(start_router(settings)) == "classifier"


@pytest.mark.fault(
    "more prompts wait than `max_waiting` allows", "fallback `queue_full` at once; the breaker stays closed"
)
def test_a_full_queue(fragile: Fragile, start_router: StartRouter, llm: SimulatedLLM) -> None:
    one_at_a_time = {"max_batch_size": 1, "max_batches_in_flight": 1, "max_waiting": 1, "deadline_ms": 10_000}
    router = start_router(config(llm, fragile.port, **one_at_a_time))
    recovers(router)
    with ThreadPoolExecutor(2) as clients:
        served = clients.submit(decision, router, f"{SLOW} {next(prompts)}")
        wait_until(lambda: router.metrics().total("llm_router_in_flight_requests") == 1)
        waits = clients.submit(decision, router)
        wait_until(lambda: router.metrics().total("llm_router_queue_depth") == 1)
        assert [decision(router) for _ in range(6)] == ["fallback;reason=queue_full"] * 6
        assert not served.done(), "what fills the queue was to be there all the time"
        assert router.metrics().total("llm_router_breaker_state") == 0
        assert (served.result(), waits.result()) == ("classifier", "classifier")


@pytest.mark.fault(
    "a client leaves while its prompt waits for a batch",
    "the prompt is dropped; the others' scores are those of their own prompts",
)
def test_who_leaves_is_not_scored_and_shifts_nobody(
    fragile: Fragile, start_router: StartRouter, llm: SimulatedLLM
) -> None:
    router = start_router(config(llm, fragile.port, max_batches_in_flight=1, deadline_ms=10_000))
    recovers(router)
    texts = ["easy", "hard code", "why", "poem", "what code", "hard"]
    alone = {text: fragile.router.post(chat_body(text)).header("x-router-score") for text in texts}
    assert len(set(alone.values())) == len(texts)

    def waiting() -> float:
        return router.metrics().total("llm_router_queue_depth")

    with ThreadPoolExecutor(len(texts)) as clients:
        first = clients.submit(decision, router, f"{SLOW} {next(prompts)}")
        wait_until(lambda: router.metrics().total("llm_router_in_flight_requests") == 1 and not waiting())
        rows = router.metrics().total("llm_router_batch_rows_sum")
        stay = {text: clients.submit(router.post, chat_body(text)) for text in texts[:3]}
        wait_until(lambda: waiting() == 3)
        before = router.outcomes("client_cancelled")
        with socket.create_connection(("127.0.0.1", router.port)) as leaver:
            leaver.sendall(chat_request("leaves"))
            wait_until(lambda: waiting() == 4)
        wait_until(lambda: router.outcomes("client_cancelled") == before + 1)
        stay |= {text: clients.submit(router.post, chat_body(text)) for text in texts[3:5]}
        assert {text: one.result().header("x-router-score") for text, one in stay.items()} == {
            text: alone[text] for text in stay
        }
        assert first.result() == "classifier"
    assert router.metrics().total("llm_router_batch_rows_sum") == rows + 1 + len(stay)


def chat_request(content: str) -> bytes:
    """Return a whole chat request as it goes over the wire."""
    body = json.dumps(chat_body(content)).encode()
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        CHAT.encode(),
        len(body),
        body,
    )


@pytest.mark.fault(
    "Triton's port accepts and stays silent, or speaks something else",
    "fallback `deadline` or `unavailable` within the deadline; ready says `degraded`",
)
@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "HTTP/1.1"])
def test_what_is_not_triton(start_router: StartRouter, llm: SimulatedLLM, speaks: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        router = start_router(config(llm, llm.port if speaks else silent.getsockname()[1]))
        assert decision(router) in ("fallback;reason=deadline", "fallback;reason=unavailable")
        assert router.ready()["status"] == "degraded"
