"""The Compose files as the real `docker-compose` resolves them, and what our Dockerfiles add to a service."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[2]
GPU, CPU = ("docker-compose.gpu.yml",), ("docker-compose.gpu.yml", "docker-compose.cpu.yml")
_DOCKER_COMPOSE = Path(sys.executable).with_name("docker-compose")

Json = dict[str, Any]


@cache
def resolved(files: tuple[str, ...], profiles: tuple[str, ...] = ("*",)) -> Json:
    """Return the files merged, interpolated and checked against the schema, with no variable set."""
    result = compose(
        *(word for name in profiles for word in ("--profile", name)), "config", "--format=json", files=files
    )
    assert result.returncode == 0, result.stderr
    config: Json = json.loads(result.stdout)
    return config


def compose(
    *arguments: str, files: tuple[str, ...], variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run docker-compose on `files` with no variable set but those given, nor an .env file."""
    options = [word for name in files for word in ("--file", str(ROOT / name))]
    command = [str(_DOCKER_COMPOSE), "--env-file=/dev/null", *options, *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(variables or {})}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@dataclass(frozen=True, slots=True)
class Image:
    """What the last stage of a Dockerfile says about running it."""

    base: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)  # path in the image: ours


@cache
def read_dockerfile(path: Path) -> Image:
    """Read the few instructions that our Dockerfiles use."""
    stages: list[dict[str, Any]] = []
    for line in re.sub(r"\\\n", " ", path.read_text()).splitlines():
        instruction, _, rest = line.partition(" ")
        match instruction:
            case "FROM":
                stages.append({"base": rest.split(" AS ")[0], "environment": {}, "copies": {}})
            case "ENTRYPOINT" | "CMD":
                stages[-1]["entrypoint" if instruction == "ENTRYPOINT" else "command"] = tuple(json.loads(rest))
            case "WORKDIR":
                stages[-1]["workdir"] = rest
            case "ENV":
                stages[-1]["environment"] |= dict(word.split("=", 1) for word in shlex.split(rest))
            case "COPY" if "--from=" not in rest:
                source, target = (word for word in rest.split() if not word.startswith("--"))
                in_image = str(PurePosixPath(stages[-1].get("workdir", "/")) / target)
                stages[-1]["copies"][in_image] = ROOT / source
    return Image(**stages[-1])


def image_of(service: Json) -> Image | None:
    """Return what our Dockerfile says, None for a service that runs somebody else's image."""
    build = service.get("build")
    return read_dockerfile(ROOT / build["dockerfile"]) if build else None
