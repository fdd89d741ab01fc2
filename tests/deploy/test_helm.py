"""The chart of deploy/helm: what it renders is valid, hardened, with the ports, names and files of the code."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.load.settings import LoadSettings
from router.check_config import check
from router.settings.load import OVERRIDES
from router.workers import _LAST_WORDS_S
from tests.deploy import helm
from tests.deploy.compose import GPU, ROOT, Json, resolved
from tests.deploy.helm import CHART, RELEASE, containers, find, pod_of, render

pytestmark = pytest.mark.skipif(helm.why_not() is not None, reason=str(helm.why_not()))

CONFIG = "--set-file=router.config=deploy/docker/router.yaml"
VOLUME = "--set=triton.repository.volume.persistentVolumeClaim.claimName=triton-models"
KEDA = "--set=triton.autoscaling.enabled=true,triton.autoscaling.prometheusUrl=http://prometheus.monitoring:9090"
VALUES = {
    "least": (CONFIG, VOLUME),
    "cpu": (
        CONFIG,
        VOLUME,
        "--set=triton.gpus=0",
        "--set-string=router.env[0].name=CLASSIFIER_DEADLINE_MS,router.env[0].value=250",
    ),
    "hosted": (
        "--set-file=router.config=deploy/docker/router.openai.yaml",
        "--set=triton.repository.url=s3://models/production,triton.serviceAccountName=reads-models",
        "--set=router.secrets={llm-keys},imagePullSecrets={registry}",
    ),
    "monitored": (CONFIG, VOLUME, KEDA, "--set=monitoring.enabled=true"),
    "fixed": (CONFIG, VOLUME, "--set=router.autoscaling.enabled=false,networkPolicy.enabled=false"),
    "loadtest": (CONFIG, VOLUME, "--set=loadtest.enabled=true,monitoring.enabled=true"),
}
each_set = pytest.mark.parametrize("options", VALUES.values(), ids=VALUES)


@each_set
def test_kubernetes_accepts_everything(options: tuple[str, ...]) -> None:
    documents = render(*options)
    for document in documents:
        helm.validate(document)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(names)) == len(names) > 0


def test_what_kubernetes_would_refuse_is_refused_here() -> None:
    """The validation can fail: unknown fields and wrong types, in built-in and in custom objects."""
    documents = render(*VALUES["monitored"])
    for kind, name, spoil in (
        ("Deployment", "llm-router", lambda spec: spec["template"]["spec"].update(restartpolicy="Always")),
        ("NetworkPolicy", "llm-triton", lambda spec: spec.update(policyTypes="Ingress")),
        ("PodMonitor", "llm-router", lambda spec: spec["podMetricsEndpoints"][0].update(intervall="5s")),
        ("PrometheusRule", "llm-slo", lambda spec: spec["groups"][0].pop("name")),
        ("ScaledObject", "llm-triton", lambda spec: spec.update(minReplicaCount="one")),
    ):
        spoiled: Any = yaml.safe_load(yaml.safe_dump(find(documents, kind, name)))
        spoil(spoiled["spec"])
        with pytest.raises(Exception, match=r"validat|valid under|not of type|required|unexpected"):
            helm.validate(spoiled)


@each_set
def test_helm_lints_the_chart(options: tuple[str, ...]) -> None:
    result = helm.helm("lint", "--strict", CHART, *options)
    assert (result.returncode, "1 chart(s) linted, 0 chart(s) failed" in result.stdout) == (0, True), result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((VOLUME,), "router.config is empty: give the router's file with --set-file router.config=router.yaml"),
        ((CONFIG,), "triton.repository: give one of `volume`"),
        ((CONFIG, VOLUME, "--set=triton.repository.url=s3://models"), "triton.repository: give one of `volume`"),
        ((CONFIG, VOLUME, "--set=triton.repository.url=models"), "does not match pattern"),
        ((CONFIG, VOLUME, "--set=router.replica=3"), "additional properties 'replica' not allowed"),
        ((CONFIG, VOLUME, "--set=triton.gpus=one"), "at '/triton/gpus': got string, want integer"),
        ((CONFIG, VOLUME, "--set=triton.autoscaling.enabled=true"), "triton.autoscaling.prometheusUrl is empty"),
        (
            (VOLUME, "--set-string=router.config=server: {drain_s: '${DRAIN:-30}'}"),
            'server.drain_s is "${DRAIN:-30}"; in this chart it must be a number',
        ),
    ],
)
def test_values_that_cannot_work_stop_it(options: tuple[str, ...], message: str) -> None:
    result = helm.helm("template", RELEASE, CHART, *options)
    assert result.returncode != 0
    assert message in result.stderr


@each_set
def test_pods_are_hardened(options: tuple[str, ...]) -> None:
    workloads = [document for document in render(*options) if pod_of(document)]
    assert workloads
    for pod in map(pod_of, workloads):
        assert pod is not None
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    for container in (one for workload in workloads for one in containers(workload)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert not container["image"].endswith(":latest")


@each_set
def test_images_are_those_that_compose_builds(options: tuple[str, ...]) -> None:
    ours = {service["image"] for service in resolved(GPU)["services"].values() if "build" in service}
    images = {container["image"] for document in render(*options) for container in containers(document)}
    project = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert images <= {f"{image}:{project['appVersion']}" for image in ours}
    assert f'version = "{project["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_every_container_is_seen_alive_and_ready() -> None:
    for name in ("llm-router", "llm-triton"):
        [container] = containers(find(render(*VALUES["least"]), "Deployment", name))
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize("options", [VALUES["least"], VALUES["cpu"], VALUES["hosted"]], ids=["least", "cpu", "hosted"])
def test_the_configuration_is_the_file_and_can_work(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = render(*options)
    written = find(documents, "ConfigMap", "llm-router")["data"]["router.yaml"]
    given = (ROOT / options[0].rpartition("=")[2]).read_text()
    assert written.rstrip() == given.rstrip()
    for secret in ("cheap_api_key", "expensive_api_key"):
        (tmp_path / secret).write_text("sk-test")
    (tmp_path / "router.yaml").write_text(written.replace("/run/secrets/", f"{tmp_path}/"))
    [container] = containers(find(documents, "Deployment", "llm-router"))
    report = check(tmp_path / "router.yaml", {one["name"]: one["value"] for one in container["env"]})
    assert report.problems == ()
    settings = report.settings
    assert settings is not None
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (settings.server.port, settings.admin.port) == (ports["http"], ports["admin"])
    assert (settings.server.host, settings.admin.host) == ("0.0.0.0", "0.0.0.0")
    service = find(documents, "Service", "llm-triton")
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    grpc = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc")
    assert settings.triton.url == f"{service['metadata']['name']}:{grpc}"
    assert settings.triton.deadline_ms == (250 if options is VALUES["cpu"] else 50)


@pytest.mark.parametrize(("server", "seconds"), [("{}", 45), ("{drain_s: 120, stop_delay_s: 7.5}", 143)])
def test_kubernetes_waits_longer_than_the_router_drains(server: str, seconds: int) -> None:
    documents = render(VOLUME, f"--set-string=router.config=server: {server.replace(',', chr(92) + ',')}")
    pod = pod_of(find(documents, "Deployment", "llm-router"))
    assert pod is not None
    told = yaml.safe_load(server)
    pre_stop = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pre_stop + told.get("stop_delay_s", 0) + told.get("drain_s", 30) + _LAST_WORDS_S
    assert pod["terminationGracePeriodSeconds"] == seconds > needed


@each_set
def test_every_variable_is_one_that_the_code_reads(options: tuple[str, ...]) -> None:
    files = [*(ROOT / "deploy" / "docker").glob("router*.yaml"), ROOT / "triton_models/prompt_classifier/1/runtime.py"]
    words = set(re.findall(r"\b[A-Z_]+\b", " ".join(path.read_text() for path in files)))
    known = {*OVERRIDES, *words, *(field.name.upper() for field in dataclasses.fields(LoadSettings))}
    variables = {v["name"] for document in render(*options) for c in containers(document) for v in c.get("env", ())}
    assert "LLM_ROUTER_TRITON_URL" in variables
    assert variables <= known


def test_triton_is_started_as_in_compose() -> None:
    compose = resolved(GPU)["services"]["triton"]
    [container] = containers(find(render(*VALUES["least"]), "Deployment", "llm-triton"))
    assert [one for one in container["args"] if "connection-age" not in one] == compose["command"]
    assert container["startupProbe"]["httpGet"]["path"] in compose["healthcheck"]["test"][-1]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {"/run/triton", "/var/cache/triton", "/tmp"} <= writable
    limits = container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1
    [on_cpu] = containers(find(render(*VALUES["cpu"]), "Deployment", "llm-triton"))
    assert on_cpu["args"][0] == "--model-config-name=cpu"
    assert "nvidia.com/gpu" not in on_cpu["resources"]["limits"]


@each_set
def test_names_of_ports_and_selectors_lead_to_pods(options: tuple[str, ...]) -> None:
    documents = render(*options)
    workloads = [document["spec"]["template"] for document in documents if pod_of(document)]

    def ports_of(labels: Json) -> set[str]:
        chosen = [one for one in workloads if labels.items() <= one["metadata"]["labels"].items()]
        assert chosen, labels
        return {port["name"] for one in chosen for c in one["spec"]["containers"] for port in c.get("ports", ())}

    for document in documents:
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                assert {port["targetPort"] for port in spec["ports"]} <= ports_of(spec["selector"])
            case "PodMonitor":
                assert {one["port"] for one in spec["podMetricsEndpoints"]} <= ports_of(spec["selector"]["matchLabels"])
            case "PodDisruptionBudget":
                ports_of(spec["selector"]["matchLabels"])
            case "NetworkPolicy":
                own = ports_of(spec["podSelector"]["matchLabels"])
                assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= own
                for rule in spec["egress"]:
                    for peer in (
                        one["podSelector"]["matchLabels"] for one in rule.get("to", ()) if "podSelector" in one
                    ):
                        assert {port["port"] for port in rule["ports"]} <= ports_of(peer)
            case "HorizontalPodAutoscaler" | "ScaledObject":
                scaled = find(documents, "Deployment", spec["scaleTargetRef"]["name"])
                assert "replicas" not in scaled["spec"]  # a number here would undo what the autoscaler did


def test_an_untrusted_pod_reaches_neither_triton_nor_the_admin_listener() -> None:
    documents = render(*VALUES["least"])
    triton = find(documents, "NetworkPolicy", "llm-triton")["spec"]
    assert triton["egress"] == []
    assert all(rule["from"] for rule in triton["ingress"])
    admin = [rule for rule in find(documents, "NetworkPolicy", "llm-router")["spec"]["ingress"] if "from" in rule]
    assert [port["port"] for rule in admin for port in rule["ports"]] == ["admin"]
    assert find(documents, "Service", "llm-router")["spec"]["ports"] == [
        {"name": "http", "port": 8084, "targetPort": "http"}
    ]


def test_secrets_are_named_and_never_made() -> None:
    documents = render(*VALUES["hosted"])
    assert "Secret" not in {document["kind"] for document in documents}
    pod = pod_of(find(documents, "Deployment", "llm-router"))
    assert pod is not None
    [mounted] = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
    assert mounted["projected"]["sources"] == [{"secret": {"name": "llm-keys"}}]
    assert {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_rules_and_dashboards_are_those_of_monitoring() -> None:
    documents = render(*VALUES["monitored"])
    rules = sorted((ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml"))
    made = [document for document in documents if document["kind"] == "PrometheusRule"]
    assert [document["spec"] for document in made] == [yaml.safe_load(path.read_text()) for path in rules]
    dashboards = sorted((ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json"))
    found = [d["data"] for d in documents if d["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert [text.rstrip() for data in found for text in data.values()] == [d.read_text().rstrip() for d in dashboards]


def test_a_packed_chart_brings_them(tmp_path: Path) -> None:
    assert helm.helm("package", CHART, f"--destination={tmp_path}").returncode == 0
    [packed] = tmp_path.glob("llm-router-*.tgz")
    with tarfile.open(packed) as tar:
        members = {member.name for member in tar if member.isfile()}
    assert {"llm-router/files/rules/alerts.yml", "llm-router/files/dashboards/router.json"} <= members


def test_prometheus_gives_jobs_the_names_that_rules_and_dashboards_know() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    known = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]}
    documents = render(*VALUES["loadtest"])
    for monitor in (document for document in documents if document["kind"] == "PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        [job] = [rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"]
        [container] = containers(find(documents, "Deployment", monitor["metadata"]["name"]))
        port = next(one["containerPort"] for one in container["ports"] if one["name"] == endpoint["port"])
        assert known.pop(job).endswith(f":{port}")
    assert set(known) == {"dcgm"}  # NVIDIA's GPU operator brings its own


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")
@pytest.mark.parametrize(
    ("queue_us", "requests", "milliseconds"),
    [("0+240000x10", "0+60x10", 4), ("0+0x10", "0+0x10", 0), ("_x10", "_x10", 0)],
    ids=["4 ms each", "no traffic", "no Triton"],
)
def test_triton_is_scaled_by_the_time_that_requests_wait(
    queue_us: str, requests: str, milliseconds: float, tmp_path: Path
) -> None:
    [trigger] = find(render(*VALUES["monitored"]), "ScaledObject", "llm-triton")["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == "5"
    rule = {"record": "waited", "expr": trigger["metadata"]["query"]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "keda", "rules": [rule]}]}))
    of = 'namespace="routing",job="router-server-metrics",model="prompt_classifier",version="1"'
    case = {
        "interval": "15s",
        "input_series": [
            {"series": f"nv_inference_queue_duration_us{{{of}}}", "values": queue_us},
            {"series": f"nv_inference_request_success{{{of}}}", "values": requests},
        ],
        "promql_expr_test": [
            {"expr": "waited", "eval_time": "2m", "exp_samples": [{"labels": "waited", "value": milliseconds}]}
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [case]}))
    told = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
