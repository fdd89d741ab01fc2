"""A host of our own in Linux namespaces: loopback only, and for each service the file system that its image has.

No container engine: `docker-compose.*.yml` and our Dockerfiles say what a service's files, environment and command
are, this machine's programs stand in for those of the base image. A service's root is this machine's, read-only,
under its image's files, volumes and secrets. It runs without capabilities, as `cap_drop: [ALL]` says.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.processes import Child
from tests.deploy.compose import Image, Json, image_of

_ENTER = ["unshare", "--net", "--mount", "--propagation=private"]
_NO_PRIVILEGES = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as any_socket:  # SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))
"""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What stands in for an image that we cannot have: files at their places, variables, the entry point."""

    files: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()


def why_not() -> str | None:
    """Return why this machine cannot make namespaces and mounts, None when it can."""
    try:
        attempt = subprocess.run([*_ENTER, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    return None if attempt.returncode == 0 else f"needs root for namespaces: {attempt.stderr.strip()}"


class Sandbox:
    """The host; services are started in it one by one."""

    def __init__(self, holder: Child, directory: Path, config: Json, base_images: Mapping[str, BaseImage]) -> None:
        self._here = ["nsenter", f"--target={holder.pid}", "--net", "--mount"]
        self._directory, self._config, self._base_images = directory, config, base_images

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, config: Json, base_images: Mapping[str, BaseImage]) -> Iterator[Sandbox]:
        """Make the namespaces for the services of `config`, whose names all lead to 127.0.0.1."""
        (directory / "hosts").write_text(f"127.0.0.1 localhost {' '.join(config['services'])}\n")
        (directory / "loopback_up.py").write_text(_LOOPBACK_UP)
        started = directory / "started"
        script = f"{sys.executable} {directory / 'loopback_up.py'} && touch {started} && exec sleep infinity"
        holder = Child.start("sandbox", [*_ENTER, "sh", "-c", script], log_path=directory / "sandbox.log")
        try:
            holder.wait_until(started.exists, deadline_s=20)
            yield cls(holder, directory, config, base_images)
        finally:
            holder.stop()

    def start(self, name: str, command: list[str] | None = None) -> Service:
        """Start a service, with its own command when none is given; it does not wait."""
        service = self._config["services"][name]
        image = image_of(service)
        base = self._base_of(service, image)
        environment = {**base.environment, **(image.environment if image else {}), **(service.get("environment") or {})}
        environment["PATH"] = environment.get("PATH", "$PATH").replace("$PATH", os.environ["PATH"])
        enter = self._enter(self._build_root(name, service, image), image.workdir if image else "/", environment)
        argv = [
            *(service.get("entrypoint") or (image.entrypoint if image else base.entrypoint)),
            *(command or service.get("command") or (image.command if image else ())),
        ]
        child = Child.start(name, [*enter, *argv], log_path=self._directory / f"{name}.log")
        return Service(child, enter, service)

    def run(self, *command: str) -> str:
        """Run a command on the host itself and return its output."""
        return subprocess.run([*self._here, *command], check=True, capture_output=True, text=True).stdout

    def _enter(self, root: Path, workdir: str, environment: Mapping[str, str]) -> list[str]:
        variables = [f"{name}={value}" for name, value in environment.items()]
        env = ["env", "--ignore-environment", f"--chdir={workdir}", *variables]
        return [*self._here, "chroot", str(root), *_NO_PRIVILEGES, *env]

    def _base_of(self, service: Json, image: Image | None) -> BaseImage:
        name = image.base if image else service["image"]
        return self._base_images[str(name).partition(":")[0]]

    def _build_root(self, name: str, service: Json, image: Image | None) -> Path:
        """Lay the service's files over this machine's: base image, our image, volumes, secrets; then lock it."""
        top = self._directory / name
        root = top / "root"
        top.mkdir()
        self.run("mount", "-t", "tmpfs", "tmpfs", str(top))
        for part in ("upper", "work", "root"):
            self.run("mkdir", str(top / part))
        layers = f"lowerdir=/,upperdir={top / 'upper'},workdir={top / 'work'}"
        self.run("mount", "-t", "overlay", "overlay", "-o", layers, str(root))
        for system in ("/proc", "/dev", "/sys"):
            self.run("mount", "--rbind", system, f"{root}{system}")
        self.run("mount", "-t", "tmpfs", "tmpfs", f"{root}/run")
        self._bind(root, "/etc/hosts", self._directory / "hosts")
        for target, source in {**self._base_of(service, image).files, **(image.copies if image else {})}.items():
            self._bind(root, target, source)
        for volume in service.get("volumes") or []:
            self._bind(root, volume["target"], self._source_of(volume), read_only=volume.get("read_only", False))
        for secret in service.get("secrets") or []:
            self._bind(root, secret["target"], Path(self._config["secrets"][secret["source"]]["file"]), read_only=True)
        if service.get("read_only"):
            self.run("mount", "-o", "remount,ro", str(root))
        for target in service.get("tmpfs") or []:
            self.run("mount", "-t", "tmpfs", "tmpfs", f"{root}{target}")
        return root

    def _source_of(self, volume: Json) -> Path:
        if volume["type"] == "bind":
            return Path(volume["source"])
        named = self._directory / "volumes" / str(volume["source"])
        named.mkdir(parents=True, exist_ok=True)
        return named

    def _bind(self, root: Path, target: str, source: Path, *, read_only: bool = False) -> None:
        at = f"{root}{target}"
        kind = ["mkdir", "-p", at] if source.is_dir() else ["sh", "-c", f"mkdir -p $(dirname {at}) && touch {at}"]
        self.run(*kind)
        self.run("mount", "--bind", str(source), at)
        if read_only:
            self.run("mount", "-o", "remount,bind,ro", at)


class Service:
    """One running service."""

    def __init__(self, child: Child, enter: list[str], description: Json) -> None:
        self.child, self._enter, self._description = child, enter, description

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the service runs, as `docker compose exec` does."""
        return subprocess.run([*self._enter, *command], capture_output=True, text=True, timeout=60)

    def wait_healthy(self) -> None:
        """Ask its own health check until it succeeds; without one it only has to live."""
        check = self._description.get("healthcheck") or {}
        if check.get("disable") or "test" not in check:
            return
        kind, *command = check["test"]
        assert kind == "CMD"
        healthy: Callable[[], bool] = lambda: self.execute(*command).returncode == 0  # noqa: E731 - one line says it
        self.child.wait_until(healthy, deadline_s=90)
