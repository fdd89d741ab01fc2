"""Each service's own command and health check, in the order that the Compose file gives, on a host of our own.

What a base image brings is this machine's: Python with the pinned packages, the wheel's Triton, Debian's Prometheus.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtest.triton_wheel import TritonWheel
from tests.deploy import sandbox
from tests.deploy.compose import CPU, ROOT, Json, resolved
from tests.deploy.sandbox import BaseImage, Sandbox, Service

# Their images are not to be had from a package registry, or they need a GPU.
NOT_STARTED = {"grafana", "dcgm-exporter", "small-llm", "large-llm"}
# A command to run and then go; a test of its own runs it.
ONE_SHOT = {"train"}

pytestmark = [
    pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not())),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt install prometheus"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True, slots=True)
class Host:
    sandbox: Sandbox
    services: dict[str, Service]
    descriptions: dict[str, Json]

    def python(self, program: str) -> str:
        """Run a program inside the router's container, which is on both networks, and return what it prints."""
        result = self.services["router"].execute("python", "-c", program)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def get(self, url: str) -> str:
        return self.python(f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("host")
    config = copy.deepcopy(resolved(CPU))
    descriptions = config["services"]
    models = shutil.copytree(ROOT / "triton_models", directory / "models", ignore=shutil.ignore_patterns("__pycache__"))
    for volume in (v for description in descriptions.values() for v in description.get("volumes") or ()):
        if volume["source"] == str(ROOT / "triton_models"):
            volume["source"] = str(models)  # `train` writes there
    services: dict[str, Service] = {}
    with Sandbox.open(directory, config, base_images(directory)) as opened:
        try:
            for name in in_order({n: d for n, d in descriptions.items() if n not in NOT_STARTED | ONE_SHOT}):
                services[name] = opened.start(name)
                services[name].wait_healthy()
            yield Host(opened, services, descriptions)
        finally:
            for service in reversed(services.values()):
                service.child.stop(grace_s=10)


def in_order(services: dict[str, Json]) -> list[str]:
    """Return the names, each after those that it waits for, as `docker compose up` starts them."""
    done: list[str] = []
    while len(done) < len(services):
        ready = [n for n, d in services.items() if n not in done and set(d.get("depends_on") or {}) <= set(done)]
        assert ready, f"services that wait for each other: {sorted(set(services) - set(done))}"
        done += ready
    return done


def base_images(directory: Path) -> dict[str, BaseImage]:
    venv = Path("/opt/venv")
    prefix = Path(sys.prefix)
    wheel = TritonWheel.find()

    def inside(path: Path) -> Path:
        return venv / path.relative_to(prefix) if path.is_relative_to(prefix) else path

    backend = directory / "backend"
    backend.mkdir()
    for part in (*wheel.python_backend.glob("*.*"), wheel.stub):
        (backend / part.name).symlink_to(inside(part))
    entrypoint = directory / "nvidia_entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\nexec "$@"\n')
    entrypoint.chmod(0o755)
    triton = BaseImage(
        files={
            str(venv): prefix,
            "/opt/nvidia/nvidia_entrypoint.sh": entrypoint,
            "/opt/tritonserver/bin/tritonserver": wheel.server,
            "/opt/tritonserver/backends/python": backend,
        },
        environment={
            "PATH": f"{venv / 'bin'}:/opt/tritonserver/bin:$PATH",
            "LD_LIBRARY_PATH": ":".join(str(inside(path)) for path in wheel.libraries),
        },
    )
    return {
        "python": BaseImage(files={str(venv): prefix}),
        "nvcr.io/nvidia/tritonserver": triton,
        "prom/prometheus": BaseImage(entrypoint=("prometheus",)),
    }


def test_every_service_that_can_be_had_is_started(host: Host) -> None:
    assert set(host.services) == set(host.descriptions) - NOT_STARTED - ONE_SHOT
    assert {name: service.child.poll() for name, service in host.services.items()} == dict.fromkeys(host.services)


def test_prompts_are_scored_and_answered_by_the_simulated_llms(host: Host) -> None:
    program = """
import json, urllib.request
def ask(text):
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(
        "http://router:8084/v1/chat/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.headers["x-router-model"], answer.headers["x-router-decision"]
print(json.dumps([ask("What is the capital of France?"), ask(
    "Prove that the square root of 2 is irrational, then generalise to any integer that is not a square.")]))
"""
    assert json.loads(host.python(program)) == [["cheap-sim", "classifier"], ["expensive-sim", "classifier"]]


def test_the_root_is_read_only_and_nothing_is_privileged(host: Host) -> None:
    router = host.services["router"]
    assert router.execute("touch", "/tmp/file").returncode == 0
    assert "Read-only file system" in router.execute("touch", "/app/file").stderr
    status = router.execute("cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_the_workers_share_their_metrics_on_the_tmpfs(host: Host) -> None:
    assert "counter_" in host.services["router"].execute("sh", "-c", "ls /tmp/llm-router-*/metrics").stdout
    assert "llm_router_requests_total" in host.get("http://router:8084/metrics")


def test_tritons_controls_need_the_key_that_the_train_service_can_read(host: Host) -> None:
    key = (host.services["triton"].execute("cat", "/run/triton/admin-key")).stdout
    assert len(key) == 64
    program = f"""
import tritonclient.grpc as grpc_client
triton = grpc_client.InferenceServerClient("triton:8001")
for headers in (None, {{"triton-grpc-protocol-admin-key": "wrong"}}, {{"triton-grpc-protocol-admin-key": {key!r}}}):
    for control in (triton.get_model_repository_index, triton.get_system_shared_memory_status):
        try:
            control(headers=headers)
            print("allowed")
        except grpc_client.InferenceServerException as error:
            print("restricted" if "restricted" in str(error) else error)
"""
    assert host.python(program).split() == ["restricted"] * 4 + ["allowed"] * 2


def test_prometheus_finds_its_targets_by_the_services_names(host: Host) -> None:
    query = "http://prometheus:9090/api/v1/targets"
    wanted = {"router-controller-metrics": "up", "router-server-metrics": "up", "locust": "up", "dcgm": "down"}
    found: dict[str, str] = {}
    deadline = time.monotonic() + 60  # each is scraped once in five seconds
    while found != wanted and time.monotonic() < deadline:
        targets = json.loads(host.get(query))["data"]["activeTargets"]
        found = {target["labels"]["job"]: target["health"] for target in targets}
        time.sleep(0.2)
    assert found == wanted


def test_a_load_test_runs_over_the_distributed_workers(host: Host) -> None:
    program = """
import json, time, urllib.parse, urllib.request
start = urllib.parse.urlencode({"user_count": 6, "spawn_rate": 6}).encode()
print(json.load(urllib.request.urlopen("http://locust:8089/swarm", start, timeout=10))["success"])
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    page = urllib.request.urlopen("http://locust:4000/metrics", timeout=5).read().decode()
    if "locust_requests_total{" in page:
        break
    time.sleep(0.2)
print("answered" if "locust_requests_total{" in page else page)
urllib.request.urlopen("http://locust:8089/stop", b"", timeout=10)
"""
    assert host.python(program).split() == ["True", "answered"]


@pytest.fixture(scope="module")
def train(host: Host) -> Service:
    """The service after its command has ended; `execute` runs others there."""
    train = host.sandbox.start("train", ["export", "--help"])
    while train.child.poll() is None:
        time.sleep(0.05)
    train.child.stop()
    return train


def test_train_runs_as_it_is_mounted(train: Service) -> None:
    assert "--checkpoint" in train.child.log_path.read_text()
    for path in ("/run/triton/admin-key", "/data", "/app/triton_models/prompt_classifier/config.pbtxt"):
        assert train.execute("test", "-r", path).returncode == 0, path
    assert train.execute("touch", "/training/checkpoint").returncode == 0
    assert train.execute("touch", "/data/file").returncode != 0


def test_train_promotes_a_version_into_the_running_triton(host: Host, train: Service) -> None:
    model, held_out = "/app/triton_models/prompt_classifier", "/training/held_out.jsonl"
    rows = [{"prompt": f"Question {n}", "weak_score": n % 2, "strong_score": 1} for n in range(60)]
    written = train.execute("python", "-c", f"import pathlib; pathlib.Path({held_out!r}).write_text({jsonl(rows)!r})")
    assert written.returncode == 0, written.stderr
    assert train.execute("cp", "-r", f"{model}/1", "/training/candidate").returncode == 0
    promote = (
        *("python", "-m", "classifier", "promote", "--candidate", "/training/candidate", "--data", held_out),
        *("--model", model, "--config-name", "cpu", "--router", "http://router:8085", "--triton", "triton:8001"),
        *("--admin-key-file", "/run/triton/admin-key", "--force", "--bootstrap", "20"),  # the candidate is no better
        *("--steps", "50", "100", "--step-seconds", "0.5", "--min-decisions", "10", "--step-timeout", "40"),
    )
    # Far below the threshold: ten scores about it would fall to either side by chance, which looks like drift.
    traffic = """
import json, urllib.request
versions = set()
easy = "What is the difference between a virus and a bacterium? Explain it to a child of ten."
for number in range(40):
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": f"{easy} %s {number}"}]}).encode()
    request = urllib.request.Request(
        "http://router:8084/v1/chat/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        versions.add(answer.headers["x-router-classifier-version"])
print(json.dumps(sorted(versions)))
"""
    with ThreadPoolExecutor(1) as pool:
        promoting = pool.submit(train.execute, *promote)
        while not promoting.done():
            host.python(traffic % time.monotonic())
    ended = promoting.result()
    assert ended.returncode == 0, ended.stderr
    promoted = json.loads(ended.stdout.splitlines()[-1])["to"]
    assert promoted != "1"
    assert json.loads(host.python(traffic % "after")) == [promoted]
    assert json.loads(host.get("http://router:8085/config"))["triton"]["versions"] == [["1", 0.0], [promoted, 100.0]]


def jsonl(rows: list[Json]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
