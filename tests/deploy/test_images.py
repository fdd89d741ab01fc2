"""The Dockerfiles: what they are made of is pinned, what they copy exists, and what serves is small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import GPU, ROOT, read_dockerfile, resolved

DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
SERVING = ("image-router.txt", "image-triton.txt", "image-loadtest.txt")
HEAVY = re.compile(r"^(torch|tensorflow|transformers|nvidia-|triton|cmake|ninja|pip|setuptools)(-|==)", re.MULTILINE)

each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


@each_dockerfile
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_image_of_ours_is_built_by_a_service_and_by_its_name() -> None:
    services = resolved(GPU)["services"].values()
    assert {ROOT / s["build"]["dockerfile"] for s in services if "build" in s} == set(DOCKERFILES)
    assert {s["image"] for s in services if "build" in s and not s["image"].startswith("llm-router")} == set()


@each_dockerfile
def test_base_images_have_a_version(path: Path) -> None:
    for base in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE):
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?", base)


def test_other_images_have_a_version() -> None:
    images = {s["image"] for s in resolved(GPU)["services"].values() if "build" not in s}
    assert images
    assert [i for i in images if not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?", i)] == []


@each_dockerfile
def test_nothing_runs_as_root(path: Path) -> None:
    assert re.findall(r"^USER (\S+)$", path.read_text(), re.MULTILINE)[-1] == "10001:10001"


@each_dockerfile
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [source.relative_to(ROOT) for source in read_dockerfile(path).copies.values()]
    assert [source for source in sources if not allowed & {str(part) for part in (source, *source.parents)}] == []
    assert [source for source in sources if not (ROOT / source).exists()] == []


@each_dockerfile
def test_packages_are_locked_by_hash(path: Path) -> None:
    locks = re.findall(r"source=(requirements/[\w.-]+)", path.read_text())
    installs = len(re.findall(r"-m pip .*install|-m pip install", path.read_text()))
    assert len(locks) == installs == path.read_text().count("--require-hashes")
    for lock in locks:
        entries = re.split(r"^(?=[a-z])", (ROOT / lock).read_text(), flags=re.MULTILINE)
        assert [entry for entry in entries if entry and "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", SERVING)
def test_what_serves_has_no_torch_and_no_compiler(lock: str) -> None:
    assert HEAVY.findall((ROOT / "requirements" / lock).read_text()) == []


@pytest.mark.parametrize("lock", [*SERVING, "image-train.txt"])
def test_images_hold_the_versions_that_are_tested(lock: str) -> None:
    def versions(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for package, version in re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements" / name).read_text(), re.M):
            found.setdefault(package, set()).add(version)
        return found

    tested = versions("train.txt" if lock == "image-train.txt" else "test.txt")
    for package, seen in versions(lock).items():
        assert seen <= tested.get(package, seen), package
    assert set(versions(lock)) & set(tested)


def test_triton_gets_what_its_model_imports() -> None:
    lock = (ROOT / "requirements" / "image-triton.txt").read_text()
    assert {"numpy", "onnxruntime-gpu", "tokenizers"} <= set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
