"""`make pin`: every image gets its digest, nothing else changes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from deploy.pin import FILES, pinned
from tests.deploy.compose import ROOT

ONE, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM python:3.13-slim AS packages\n", f"FROM python:3.13-slim@{ONE} AS packages\n"),
        ("FROM nvcr.io/nvidia/tritonserver:26.11-py3\n", f"FROM nvcr.io/nvidia/tritonserver:26.11-py3@{ONE}\n"),
        (f"FROM python:3.13-slim@{OTHER} AS a\n", f"FROM python:3.13-slim@{ONE} AS a\n"),
        ("    image: grafana/grafana:13.2.3\n", f"    image: grafana/grafana:13.2.3@{ONE}\n"),
        ("    image: llm-router\n", "    image: llm-router\n"),
        ("COPY --from=packages /a /b\n# FROM python:3\n", "COPY --from=packages /a /b\n# FROM python:3\n"),
    ],
)
def test_a_tag_gets_its_digest(before: str, after: str) -> None:
    assert pinned(before, lambda _image: ONE) == after


def test_every_image_of_the_project_is_found() -> None:
    asked: list[str] = []

    def digest_of(image: str) -> str:
        asked.append(image)
        return ONE

    text = "".join(pinned(path.read_text(), digest_of) for path in FILES)
    external = {"python", "nvcr.io/nvidia/tritonserver", "vllm/vllm-openai", "prom/prometheus", "grafana/grafana"}
    assert {image.partition(":")[0] for image in asked} == external | {"nvcr.io/nvidia/k8s/dcgm-exporter"}
    unpinned = [line for line in re.findall(r"^(?:FROM| +image:) .*:.*$", text, re.MULTILINE) if "@sha256:" not in line]
    assert unpinned == []


def test_without_docker_nothing_changes() -> None:
    before = [path.read_text() for path in FILES]
    command = [sys.executable, "-m", "deploy.pin"]
    result = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "pin: docker is not installed; nothing was changed\n")
    assert [path.read_text() for path in FILES] == before
