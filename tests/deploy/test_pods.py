"""The chart's own pods without Kubernetes: arguments, variables, files and probes of each, on a host of our own.

What the sandbox needs to know of a pod it gets in the shape of a Compose service. Not tried here: scheduling, a GPU,
network policies, the user 10001.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.deploy import helm, sandbox
from tests.deploy.compose import GPU, ROOT, Json, resolved
from tests.deploy.helm import containers, find, pod_of, render
from tests.deploy.sandbox import Sandbox, Service
from tests.deploy.test_services import base_images

OPTIONS = (
    "--set-file=router.config=deploy/docker/router.yaml",
    "--set=triton.repository.volume.persistentVolumeClaim.claimName=triton-models",
    "--set=triton.gpus=0,loadtest.enabled=true,loadtest.workers=1",
    "--set-string=router.env[0].name=CLASSIFIER_DEADLINE_MS,router.env[0].value=2000",
)
TRITON, SECOND_TRITON = "127.0.0.2", "127.0.0.3"  # the pods that share a port have addresses of their own
# Kubernetes starts all at once, and Triton takes longest.
IN_ORDER = ("cheap-sim", "expensive-sim", "llm-router", "llm-triton", "llm-locust", "llm-locust-worker")

pytestmark = [
    pytest.mark.skipif(helm.why_not() is not None, reason=str(helm.why_not())),
    pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not())),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True, slots=True)
class Pods:
    sandbox: Sandbox
    running: dict[str, Service]
    descriptions: dict[str, Json]
    hosts: Path

    def start(self, name: str) -> None:
        self.running[name] = self.sandbox.start(name)
        self.running[name].wait_healthy()

    def python(self, program: str) -> str:
        result = self.running["llm-router"].execute("python", "-c", program)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def name_server_says(self, *addresses: str) -> None:
        """Let the headless Service's name have these addresses."""
        names = " ".join(name for name in self.descriptions if name != "llm-triton")
        lines = [f"127.0.0.1 localhost {names}", *(f"{address} llm-triton" for address in addresses)]
        self.hosts.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    directory = tmp_path_factory.mktemp("pods")
    documents = render(*OPTIONS)
    services = {name: as_service(documents, name, directory) for name in IN_ORDER}
    triton = services["llm-triton"]
    services["llm-triton-2"] = at_address(triton, SECOND_TRITON)
    services["llm-triton"] = at_address(triton, TRITON)
    config = {"services": services, "secrets": {}}
    with Sandbox.open(directory, config, base_images(directory)) as opened:
        pods = Pods(opened, {}, services, directory / "hosts")
        pods.name_server_says(TRITON)
        try:
            for name in IN_ORDER:
                pods.start(name)
            yield pods
        finally:
            for service in reversed(pods.running.values()):
                service.child.stop(grace_s=10)


def at_address(triton: Json, address: str) -> Json:
    """Give a Triton its pod's address; its volumes too are its own. Connections live for a second, not for thirty."""
    listen = [f"--{protocol}-address={address}" for protocol in ("http", "grpc", "metrics")]
    command = [re.sub(r"(?<=connection-age=)\d+", "1000", argument) for argument in triton["command"]]
    volumes = [
        volume | ({"source": f"{volume['source']}-{address}"} if volume["type"] == "volume" else {})
        for volume in triton["volumes"]
    ]
    probes = {key: [word.replace("127.0.0.1", address) for word in test] for key, test in triton["probes"].items()}
    check = {"test": probes["readinessProbe"]}
    return {**triton, "command": [*command, *listen], "volumes": volumes, "probes": probes, "healthcheck": check}


def as_service(documents: tuple[Json, ...], name: str, directory: Path) -> Json:
    """Describe a Deployment's pod as a Compose service whose health check is the readiness probe."""
    deployment = find(documents, "Deployment", name)
    pod, [container] = pod_of(deployment), containers(deployment)
    assert pod is not None
    image = container["image"].rpartition(":")[0]
    built = (service for service in resolved(GPU)["services"].values() if service["image"] == image)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    probes = {key: request(container, value) for key, value in container.items() if key.endswith("Probe")}
    return {
        "build": next(built)["build"],
        "command": container["args"],
        "environment": {variable["name"]: variable["value"] for variable in container.get("env", ())},
        "read_only": True,
        "volumes": [
            {"target": mount["mountPath"], "read_only": mount.get("readOnly", False)}
            | source_of(volumes[mount["name"]], documents, f"{name}-{mount['name']}", directory)
            for mount in container["volumeMounts"]
        ],
        "healthcheck": {"test": probes["readinessProbe"]} if "readinessProbe" in probes else {},
        "probes": probes,
    }


def source_of(volume: Json, documents: tuple[Json, ...], name: str, directory: Path) -> Json:
    if "persistentVolumeClaim" in volume:
        return {"type": "bind", "source": str(ROOT / "triton_models")}
    if "configMap" in volume:
        files = directory / "config-maps" / name
        files.mkdir(parents=True)
        for key, text in find(documents, "ConfigMap", volume["configMap"]["name"])["data"].items():
            (files / key).write_text(text)
        return {"type": "bind", "source": str(files)}
    assert "emptyDir" in volume
    return {"type": "volume", "source": name}


def request(container: Json, probe: Json) -> list[str]:
    """Return what the kubelet asks, as a command."""
    get = probe["httpGet"]
    port = next(one["containerPort"] for one in container["ports"] if one["name"] == get["port"])
    return ["CMD", "curl", "--fail", "--silent", "--output", "/dev/null", f"http://127.0.0.1:{port}{get['path']}"]


def decide(pods: Pods, *texts: str) -> list[list[str]]:
    """Have the router decide by its Service's name, in a call for each text; return models and reasons."""
    program = f"""
import json, urllib.request
def decide(text):
    body = json.dumps({{"model": "auto", "inputs": [text]}}).encode()
    request = urllib.request.Request("http://llm-router:8084/v1/route", body, {{"content-type": "application/json"}})
    with urllib.request.urlopen(request, timeout=30) as answer:
        [decision] = json.load(answer)["data"]
        return decision["model"], decision["fallback_reason"] or decision["reason"]
print(json.dumps([decide(text) for text in {list(texts)!r}]))
"""
    return cast("list[list[str]]", json.loads(pods.python(program)))


def scored_by(pods: Pods, triton: str) -> float:
    """Return how many prompts a Triton has scored."""
    page = pods.python(f"import urllib.request as u; print(u.urlopen('http://{triton}:8002/metrics').read().decode())")
    return sum(float(n) for n in re.findall(r'^nv_inference_count\{model="prompt_classifier".*\} (\S+)$', page, re.M))


def test_every_probe_of_every_pod_succeeds(pods: Pods) -> None:
    probes = [(name, test) for name in IN_ORDER for test in pods.descriptions[name]["probes"].values()]
    assert len(probes) >= 9
    assert [test for name, (_, *test) in probes if pods.running[name].execute(*test).returncode != 0] == []


def test_a_router_that_was_there_first_finds_triton(pods: Pods) -> None:
    # Each worker has a connection to Triton of its own; each question goes to one of them.
    program = """
import json, time, urllib.request
deadline = time.monotonic() + 15
in_a_row = 0
while in_a_row < 12 and time.monotonic() < deadline:
    status = json.load(urllib.request.urlopen("http://llm-router:8084/health/ready", timeout=5))["status"]
    in_a_row = in_a_row + 1 if status == "ready" else 0
    time.sleep(0.1)
print(in_a_row)
"""
    assert pods.python(program).strip() == "12"


def test_prompts_are_scored_and_answered(pods: Pods) -> None:
    hard = "Prove that the square root of 2 is irrational, then generalise to any integer that is not a square."
    decisions = decide(pods, "What is the capital of France?", hard)
    assert decisions == [["cheap-sim", "threshold"], ["expensive-sim", "threshold"]]
    program = """
import json, urllib.request
body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}]})
request = urllib.request.Request(
    "http://llm-router:8084/v1/chat/completions", body.encode(), {"content-type": "application/json"})
print(urllib.request.urlopen(request, timeout=30).headers["x-router-model"])
"""
    assert pods.python(program).strip() == "cheap-sim"


def test_a_new_replica_of_triton_is_found_and_no_prompt_goes_unscored(pods: Pods) -> None:
    """The headless Service gets a second address; connections that reach their age make the router look again."""
    pods.start("llm-triton-2")
    idle = scored_by(pods, SECOND_TRITON)  # its warm-up
    pods.name_server_says(TRITON, SECOND_TRITON)
    deadline = time.monotonic() + 60
    number = 0
    while scored_by(pods, SECOND_TRITON) == idle and time.monotonic() < deadline:
        prompts = [f"What is {number + i} and {number} together?" for i in range(20)]
        assert {reason for _, reason in decide(pods, *prompts)} == {"threshold"}
        number += 20
    before = scored_by(pods, TRITON)
    decide(pods, *(f"Which town has postcode {number}?" for number in range(100, 140)))
    assert scored_by(pods, SECOND_TRITON) > idle
    assert scored_by(pods, TRITON) > before  # they share the work


def test_a_replica_of_triton_that_ends_takes_few_prompts_with_it(pods: Pods) -> None:
    second = pods.running.pop("llm-triton-2").child
    os.kill(second.pid, signal.SIGTERM)
    reasons = Counter(reason for _, reason in decide(pods, *(f"How far is it to town {n}?" for n in range(400))))
    second.stop()
    assert reasons["threshold"] >= 396, reasons  # what Triton had in hand when it was told may be lost


def test_the_router_drains_and_ends_well(pods: Pods) -> None:
    router = pods.running["llm-router"].child
    os.kill(router.pid, signal.SIGTERM)
    deadline = time.monotonic() + 40
    while router.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert router.poll() == 0
