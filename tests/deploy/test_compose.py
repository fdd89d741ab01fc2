"""What the Compose files promise, read from what `docker-compose` makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from loadtest import stack
from loadtest.load.settings import variables
from loadtest.triton_wheel import TritonWheel
from router.settings import load_settings
from tests.deploy.compose import CPU, GPU, ROOT, Json, compose, image_of, resolved

ALWAYS = {"triton", "router", "cheap-sim", "expensive-sim"}
PROFILES = {
    "metrics": {"prometheus", "grafana"},
    "gpu-metrics": {"dcgm-exporter"},
    "loadtest": {"locust", "locust-worker"},
    "local-llm": {"small-llm", "large-llm"},
    "train": {"train"},
}
# Why each may do what the others may not.
RUNS_AS_THE_IMAGES_USER = {"dcgm-exporter"}  # reads the driver's files
HAS_NO_HEALTH_CHECK = {"dcgm-exporter", "locust-worker", "train"}  # no program to ask it, no port, not a server
ROUTER_FILES = sorted((ROOT / "deploy" / "docker").glob("router*.yaml"))

SERVICES: dict[str, Json] = resolved(GPU)["services"]
each_service = pytest.mark.parametrize("name", sorted(SERVICES))


@pytest.mark.parametrize("files", [GPU, CPU])
def test_the_files_are_valid_and_start_what_they_say(files: tuple[str, ...]) -> None:
    assert set(resolved(files, ())["services"]) == ALWAYS
    for profile, services in PROFILES.items():
        assert set(resolved(files, (profile,))["services"]) == ALWAYS | services
    assert set(SERVICES) == ALWAYS.union(*PROFILES.values())


def test_the_gpu_file_reserves_gpus_and_the_cpu_file_needs_none() -> None:
    reserving = {name for name, service in SERVICES.items() if gpus(service)}
    assert reserving == {"triton", "train", "dcgm-exporter", "small-llm", "large-llm"}
    on_cpu = resolved(CPU, ("metrics", "loadtest", "train"))["services"]
    assert {name for name, service in on_cpu.items() if gpus(service)} == set()
    assert "--model-config-name=cpu" in on_cpu["triton"]["entrypoint"]
    image = image_of(SERVICES["triton"])
    assert image is not None
    assert on_cpu["triton"]["entrypoint"][:-1] == list(image.entrypoint)
    assert on_cpu["triton"]["command"] == SERVICES["triton"]["command"]


def gpus(service: Json) -> list[Json]:
    found: list[Json] = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    return found


@each_service
def test_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges=true"]
    assert service["restart"] == ("no" if name == "train" else "unless-stopped")
    if name not in RUNS_AS_THE_IMAGES_USER:
        assert int(service["user"].partition(":")[0]) >= 472, "not root"
    assert not any(mount["source"].endswith("docker.sock") for mount in service.get("volumes", []))


@each_service
def test_health_is_checked_and_waited_for(name: str) -> None:
    check = SERVICES[name].get("healthcheck") or {}
    assert ("test" in check) == (name not in HAS_NO_HEALTH_CHECK)
    waits = SERVICES[name].get("depends_on") or {}
    assert {wait["condition"] for wait in waits.values()} <= {"service_healthy"}


@each_service
def test_ports_are_published_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port["host_ip"] == "127.0.0.1"


def test_triton_is_reached_from_inside_alone() -> None:
    assert "ports" not in SERVICES["triton"]
    assert list(SERVICES["triton"]["networks"]) == ["inference"]
    assert resolved(GPU)["networks"]["inference"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "inference" in service["networks"]} == {
        "triton",
        "router",
        "prometheus",
        "train",
    }


def test_what_is_mounted_exists() -> None:
    config = resolved(GPU)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sources = {m["source"] for s in SERVICES.values() for m in s.get("volumes", []) if m["type"] == "bind"}
    sources |= {secret["file"] for secret in config["secrets"].values()}
    relative = {str(Path(source).relative_to(ROOT)) for source in sources}
    known = set(tracked.split())
    assert {
        path for path in relative if path not in known and not any(k.startswith(f"{path}/") for k in known)
    } == set()


def test_every_variable_is_explained_with_its_default() -> None:
    defaults: dict[str, set[str]] = defaultdict(set)
    for name in CPU:
        for variable, default in re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / name).read_text()):
            defaults[variable].add(default)
        assert len(re.findall(r"(?<!\$)\$\{?\w+", (ROOT / name).read_text())) == len(
            re.findall(r"\$\{\w+:-", (ROOT / name).read_text())
        ), "a variable without a default would have to be set"
    example = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert set(example) == set(defaults)
    # The CPU file has a default of its own for the deadline; the example shows the GPU's and names the other.
    assert {name: value for name, value in example.items() if value not in defaults[name]} == {}
    assert {name for name, values in defaults.items() if len(values) > 1} == {"CLASSIFIER_DEADLINE_MS"}


def test_the_example_can_be_used_as_it_is() -> None:
    settings = re.sub(r"^#(\w+=)", r"\1", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    given = dict(line.split("=", 1) for line in settings.splitlines() if re.match(r"\w+=", line))
    result = compose("--profile", "*", "config", "--quiet", files=GPU, variables=given)
    assert result.returncode == 0, result.stderr


def test_variables_of_the_services_are_read_by_what_runs_in_them() -> None:
    in_router_files = set(re.findall(r"\$\{(\w+)[:}]", "".join(path.read_text() for path in ROUTER_FILES))) - {"file"}
    assert set(SERVICES["router"]["environment"]) == in_router_files | {
        "LLM_ROUTER_HOST",
        "LLM_ROUTER_ADMIN_HOST",
        "LLM_ROUTER_TRITON_URL",
    }
    for name in ("locust", "locust-worker"):
        assert set(SERVICES[name]["environment"]) <= {variable for variable, _default, _about in variables()}
    model = "".join(path.read_text() for path in (ROOT / "triton_models").rglob("*.py"))
    assert [variable for variable in SERVICES["triton"]["environment"] if f'"{variable}"' not in model] == []
    assert SERVICES["triton"]["environment"]["PROMPT_CLASSIFIER_CACHE"] in {
        volume["target"] for volume in SERVICES["triton"]["volumes"] if not volume.get("read_only")
    }


@pytest.mark.parametrize("path", ROUTER_FILES, ids=lambda path: path.name)
def test_router_configurations_are_accepted(path: Path, tmp_path: Path) -> None:
    """With the environment and the secrets that the Compose file gives to the router."""
    for secret in SERVICES["router"]["secrets"]:
        (tmp_path / secret["source"]).write_text("sk-test\n")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/run/secrets/", f"{tmp_path}/"))
    settings = load_settings(copy, SERVICES["router"]["environment"])
    assert settings.server.host == settings.admin.host == "0.0.0.0"
    assert [settings.server.port, settings.admin.port] == [port["target"] for port in SERVICES["router"]["ports"]]
    assert settings.triton.url == "triton:8001"
    here = {urlsplit(one.api_base) for model in settings.models.values() for one in model.replicas}
    for address in (url for url in here if not (url.hostname or "").endswith(".com")):
        assert f"--port={address.port}" in SERVICES[str(address.hostname)]["command"]


def test_a_configuration_whose_key_is_not_there_says_so() -> None:
    """The default secret is an empty file."""
    path = ROOT / "deploy" / "docker" / "router.openai.yaml"
    copy = [sys.executable, "-m", "router", "check-config", str(path)]
    result = subprocess.run(copy, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert '"${file:/run/secrets/cheap_api_key}" names a file that cannot be read' in result.stderr + result.stdout


def test_scrape_targets_are_services() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    targets = {target for job in config["scrape_configs"] for s in job["static_configs"] for target in s["targets"]}
    assert {target.partition(":")[0] for target in targets} == {"router", "triton", "locust", "dcgm-exporter"}
    assert f"locust:{SERVICES['locust']['environment']['EXPORTER_PORT']}" in targets


def test_the_simulated_llms_behave_as_those_of_make_serve() -> None:
    behaviours = {stack.CHEAP: stack.CHEAP_PROFILE, stack.EXPENSIVE: stack.EXPENSIVE_PROFILE}
    for name, profile in behaviours.items():
        flags = {f"--{key.replace('_', '-')}={value}" for key, value in {**profile, **stack.BOTH}.items()}
        assert flags <= set(SERVICES[name]["command"])


def test_triton_knows_its_flags_and_its_models() -> None:
    command = SERVICES["triton"]["command"]
    script = (ROOT / "deploy" / "docker" / "start-triton.sh").read_text()
    wheel = TritonWheel.find()
    libraries = ":".join(map(str, wheel.libraries))
    usage = subprocess.run([wheel.server, "--help"], capture_output=True, text=True, env={"LD_LIBRARY_PATH": libraries})
    known = set(re.findall(r"--[\w-]+", usage.stdout + usage.stderr))
    used = {flag.partition("=")[0] for flag in [*command, *re.findall(r'"(--[\w-]+)=', script), "--model-config-name"]}
    assert used - known == set()
    loaded = {flag.removeprefix("--load-model=") for flag in command if flag.startswith("--load-model=")}
    assert loaded == {path.parent.name for path in (ROOT / "triton_models").glob("*/config.pbtxt")}
