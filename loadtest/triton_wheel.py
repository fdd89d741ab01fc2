"""Where the wheel `nvidia-pytriton` keeps NVIDIA's `tritonserver`, and whether it can run here."""

import ctypes.util
import importlib.metadata
import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class TritonWheelError(RuntimeError):
    """The server in the wheel cannot run here; the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """The parts of the wheel that a local Triton is made of."""

    server: Path  # the tritonserver binary
    python_backend: Path  # directory with the backend's library and its python module
    stub: Path  # the process that runs a model.py, one binary for each Python version
    libraries: tuple[Path, ...]  # directories for LD_LIBRARY_PATH

    @classmethod
    def find(cls) -> Self:
        """Locate the parts for the running interpreter; raises TritonWheelError."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if sys.version_info >= (3, 13):
            raise TritonWheelError(
                f"nvidia-pytriton's Triton needs numpy 1, which does not exist for Python {version}: "
                "make the environment with Python 3.11 or 3.12"
            )
        spec = importlib.util.find_spec("pytriton")
        if spec is None or not spec.submodule_search_locations:
            raise TritonWheelError(
                "nvidia-pytriton, which carries the tritonserver binary, is not installed: "
                "pip install --no-deps nvidia-pytriton==0.7.0 (x86-64 Linux only)"
            )
        _check_numpy(importlib.metadata.version("numpy"))
        package = Path(spec.submodule_search_locations[0])
        server = package / "tritonserver"
        return cls(
            server=server / "bin" / "tritonserver",
            python_backend=server / "backends" / "python",
            stub=server / "python_backend_stubs" / version / "triton_python_backend_stub",
            libraries=(_libpython_directory(version), package.parent / "nvidia_pytriton.libs"),
        )


def _check_numpy(version: str) -> None:
    # Its backend was compiled against numpy 1: under numpy 2 every byte of a text reads as the first one.
    if not version.startswith("1."):
        raise TritonWheelError(
            f"nvidia-pytriton's Triton garbles text under numpy {version}: pip install numpy==1.26.4"
        )


def _libpython_directory(version: str) -> Path:
    directory = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    shared = f"libpython{version}.so.1.0"
    if not (directory / shared).exists() and not ctypes.util.find_library(f"python{version}"):
        raise TritonWheelError(
            f"Triton's python backend needs {shared}, which {directory} lacks: install the package "
            f"libpython{version} or use a Python that was built with --enable-shared"
        )
    return directory
