"""The whole system on one machine: real Triton, two simulated LLMs, and the router in front."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from loadtest.local_triton import LocalTriton, LocalTritonError
from loadtest.processes import (
    Child,
    ChildError,
    PortTakenError,
    describe_exit,
    explain,
    free_port,
    listen,
    uninterrupted,
)
from loadtest.simulated_llm import SimulatedLLM

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "loadtest" / "router.yaml"
CHEAP, EXPENSIVE = "cheap-sim", "expensive-sim"

# How the two behave: flags of `python -m loadtest.simulated_llm`.
CHEAP_PROFILE = {"ttft_ms": 60, "tokens_per_s": 120, "answer_tokens": 45}
EXPENSIVE_PROFILE = {"ttft_ms": 180, "tokens_per_s": 70, "answer_tokens": 60}
BOTH = {"ttft_sigma": 0.3, "tokens_per_s_sigma": 0.15, "keep_requests": 0}

# Which classifier: the variable CLASSIFIER, and the configuration in triton_models/ that serves it on a CPU.
CLASSIFIERS = {"static": "cpu", "minilm": "cpu-minilm"}

_ROUTER_DEADLINE_S = 30.0

Progress = Callable[[str], None]


class SettingError(ValueError):
    """An environment variable that cannot be used; the message names it, its value and what is allowed."""


StartError = (ChildError, LocalTritonError, PortTakenError, SettingError)
"""What a start can fail with; each message is meant for the user as it is."""


@dataclass(frozen=True, slots=True)
class Ports:
    """A port on 127.0.0.1 for each server; 0 takes a free one. Set by the variable of the same name."""

    router_port: int = 8084
    triton_http_port: int = 8000
    triton_grpc_port: int = 8001
    triton_metrics_port: int = 8002
    cheap_port: int = 9101
    expensive_port: int = 9102
    admin_port: int = 8085

    @classmethod
    def any_free(cls) -> Self:
        """Take free ports throughout."""
        return cls(**dict.fromkeys((field.name for field in fields(cls)), 0))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ROUTER_PORT and its like. Raises `SettingError` for what is not a port."""
        values = {
            field.name: _port(field.name.upper(), environment[field.name.upper()])
            for field in fields(cls)
            if environment.get(field.name.upper())
        }
        return cls(**values)

    def check(self) -> None:
        """Raise `PortTakenError`, naming the port and its variable, when one of the chosen ones is in use."""
        with contextlib.ExitStack() as open_at_once:  # so that a port given twice is found too
            for field in fields(self):
                if port := getattr(self, field.name):
                    open_at_once.enter_context(listen(port, field.name.upper()))


def _port(variable: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise SettingError(f"{variable}={text!r} is not a port: a number from 1 to 65535, or 0 for any free one")


def classifier_config(environment: Mapping[str, str]) -> str:
    """Read CLASSIFIER. Raises `SettingError` for a name that is none of CLASSIFIERS."""
    name = environment.get("CLASSIFIER") or "static"
    if name not in CLASSIFIERS:
        raise SettingError(f"CLASSIFIER={name!r} is not a classifier: one of {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]


@dataclass(frozen=True, slots=True)
class Stack:
    """The running parts."""

    triton: LocalTriton
    cheap: SimulatedLLM
    expensive: SimulatedLLM
    router: Child
    router_url: str
    admin_url: str

    def failure(self) -> str | None:
        """Return what died first and its last log lines, or None while all parts live."""
        children = (self.cheap.child, self.expensive.child, self.router)
        parts = [(child.name, child.poll, child.log_path) for child in children]
        for name, poll, log_path in (("Triton", self.triton.poll, self.triton.log_path), *parts):
            code = poll()
            if code is not None:
                return explain(name, describe_exit(code), log_path)
        return None


@contextlib.contextmanager
def running_stack(run_dir: Path, ports: Ports, on_progress: Progress, *, config_file: Path = CONFIG) -> Iterator[Stack]:
    """Start everything, yield it when the router answers, stop everything in reverse order.

    `config_file` is the router's; the variable CLASSIFIER picks the classifier. Logs and working files go to
    `run_dir`. Raises one of `StartError` with nothing left running.
    """
    ports.check()
    config = classifier_config(os.environ)
    running = contextlib.ExitStack()
    try:
        on_progress(f"{CHEAP}, {EXPENSIVE}: starting two simulated LLMs")
        cheap = _start_llm(CHEAP, CHEAP_PROFILE, run_dir, ports.cheap_port, "CHEAP_PORT")
        running.callback(cheap.stop)
        expensive = _start_llm(EXPENSIVE, EXPENSIVE_PROFILE, run_dir, ports.expensive_port, "EXPENSIVE_PORT")
        running.callback(expensive.stop)
        triton = running.enter_context(_start_triton(run_dir, config, ports, on_progress))
        for llm in (cheap, expensive):
            llm.wait_ready()
        on_progress("router: starting, waiting until it has scored a first prompt")
        router_port, admin_port = ports.router_port or free_port(), ports.admin_port or free_port()
        router = _start_router(run_dir, config_file, router_port, admin_port, triton, cheap, expensive)
        running.callback(router.stop)
        router_url = f"http://127.0.0.1:{router_port}"
        router.wait_until(lambda: _is_ready(router_url), deadline_s=_ROUTER_DEADLINE_S)
        yield Stack(triton, cheap, expensive, router, router_url, f"http://127.0.0.1:{admin_port}")
    finally:
        with uninterrupted():
            running.close()


def _start_llm(name: str, profile: Mapping[str, object], run_dir: Path, port: int, setting: str) -> SimulatedLLM:
    log_path = run_dir / f"{name}.log"
    return SimulatedLLM.start(name, log_path=log_path, port=port, port_setting=setting, **profile, **BOTH)


def _start_triton(run_dir: Path, config: str, ports: Ports, on_progress: Progress) -> LocalTriton:
    return LocalTriton.start(
        run_dir / "triton",
        config=config,
        http_port=ports.triton_http_port,
        grpc_port=ports.triton_grpc_port,
        metrics_port=ports.triton_metrics_port,
        on_progress=on_progress,
    )


def _start_router(
    run_dir: Path,
    config_file: Path,
    port: int,
    admin_port: int,
    triton: LocalTriton,
    cheap: SimulatedLLM,
    expensive: SimulatedLLM,
) -> Child:
    """Start it on our configuration alone: the user's own LLM_ROUTER_* variables would win over it."""
    overrides = [f"LLM_ROUTER_{key}" for key in ("HOST", "PORT", "ADMIN_HOST", "ADMIN_PORT", "TRITON_URL")]
    return Child.start(
        "router",
        [sys.executable, "-m", "router", "serve", "--config", str(config_file)],
        log_path=run_dir / "router.log",
        cwd=REPOSITORY,
        env={
            "ROUTER_PORT": str(port),
            "ADMIN_PORT": str(admin_port),
            "TRITON_GRPC_PORT": triton.grpc_url.rpartition(":")[2],
            "TRITON_METRICS_PORT": str(urlsplit(triton.metrics_url).port),
            "CHEAP_PORT": str(cheap.port),
            "EXPENSIVE_PORT": str(expensive.port),
            **dict.fromkeys(overrides, ""),
        },
    )


def _is_ready(router_url: str) -> bool:
    """Return whether the router is ready, not merely degraded for want of its classifier."""
    try:
        with urllib.request.urlopen(f"{router_url}/health/ready", timeout=2) as answer:  # noqa: S310 - loopback
            return bool(json.load(answer).get("status") == "ready")
    except (urllib.error.URLError, OSError, ValueError):
        return False
