"""The peers, each in an environment of its own that is made once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_LIMIT_S = 900


class PeerUnavailableError(RuntimeError):
    """A peer cannot be measured on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What to install, from where."""

    name: str
    package: str
    version: str
    npm: bool = False

    @property
    def requirement(self) -> str:
        """How pip or npm is told."""
        return f"{self.package}@{self.version}" if self.npm else f"{self.package}=={self.version}"


SWITCHYARD = Peer("switchyard", "nemo-switchyard", "0.3.0")
# What its own image has. Without proxy-runtime some of its modules cannot be imported, and it tries so at each request.
LITELLM = Peer("litellm", "litellm[proxy,proxy-runtime]", "1.108.7")
# Streams: 1.15.2 answers them with a 500 on Node 20 (it appends to headers that undici holds immutable).
PORTKEY = Peer("portkey", "@portkey-ai/gateway", "1.15.2", npm=True)


def install(peer: Peer, directory: Path) -> Path:
    """Return the peer's environment, made now if it is not there yet.

    Raises `PeerUnavailableError` when it cannot be installed.
    """
    home = directory / f"{peer.name}-{peer.version}"
    stamp = home / ".installed"
    if stamp.exists() and stamp.read_text() == peer.requirement:
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if peer.npm:
        if not (shutil.which("npm") and shutil.which("node")):
            raise PeerUnavailableError("node and npm are not installed: apt install nodejs npm")
        _call(["npm", "install", "--no-fund", "--no-audit", "--prefix", str(home), peer.requirement], home)
    else:
        _call([sys.executable, "-m", "venv", str(home)], home)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*pip, peer.requirement], home)
    stamp.write_text(peer.requirement)
    return home


def _call(command: list[str], home: Path) -> None:
    log_path = home / "install.log"
    try:
        with log_path.open("ab") as log:
            done = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=INSTALL_LIMIT_S
            )
    except subprocess.TimeoutExpired:
        raise PeerUnavailableError(f"not installed after {INSTALL_LIMIT_S} s; see {log_path}") from None
    if done.returncode != 0:
        last = log_path.read_text(errors="replace").strip().splitlines()[-1:]
        raise PeerUnavailableError(f"{' '.join(last) or 'installing failed'}; see {log_path}")
