"""Everything that is measured as a proxy, running: the router, its peers, and the two floors."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from loadtest.bench import nginx, peers
from loadtest.bench.lab import Lab
from loadtest.bench.machine import pinned_to
from loadtest.bench.peers import PeerUnavailableError
from loadtest.local_triton import LocalTriton
from loadtest.processes import Child, ChildError, free_port

REPOSITORY = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"
QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
START_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat requests. `pid` is the root of its processes; None for the upstream itself."""

    name: str
    url: str
    pid: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """What could be started, and why the rest could not: name → reason."""

    targets: tuple[Target, ...]
    absent: Mapping[str, str]


@contextlib.contextmanager
def running(lab: Lab, names: Sequence[str]) -> Iterator[Running]:
    """Start the named targets, each on the target's core; stop them at the end."""
    targets: list[Target] = []
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for name in names:
            lab.say(f"{name}: starting")
            try:
                with pinned_to(lab.cores.target):
                    targets.append(stack.enter_context(STARTERS[name](lab)))
            except (PeerUnavailableError, ChildError) as error:
                absent[name] = str(error).partition(";")[0]  # the log's place and end are for the terminal
                lab.say(f"{name}: left out: {error}")
        yield Running(tuple(targets), absent)


@contextlib.contextmanager
def _direct(lab: Lab) -> Iterator[Target]:
    yield Target("direct", f"http://127.0.0.1:{lab.upstream_port}{CHAT}", None)


@contextlib.contextmanager
def _nginx(lab: Lab) -> Iterator[Target]:
    child, port = nginx.start_proxy(lab.run_dir / "nginx", lab.upstream_port)
    with contextlib.closing(_Stop(child)):
        yield ready(child, "nginx", port)


@contextlib.contextmanager
def _router(lab: Lab) -> Iterator[Target]:
    """Policy, prices, accounting, metrics, the admin listener and the real Triton on: as a user would run it."""
    with pinned_to(lab.cores.load):
        triton = LocalTriton.start(lab.run_dir / "triton")
    with triton:
        child, port = start_router(lab, {"url": triton.grpc_url})
        with contextlib.closing(_Stop(child)):
            yield ready(child, "router", port)


def start_router(lab: Lab, triton: Mapping[str, object], **server: object) -> tuple[Child, int]:
    """Start our router with a threshold policy over two priced models. Returns its process and its port."""
    port = free_port()
    model = {"api_base": lab.upstream, "api_key": "simulated"}
    config = {
        "server": {"port": port, **server},
        "admin": {"port": free_port()},
        "triton": {"deadline_ms": 250, **triton},
        "models": {
            "cheap": {**model, "price": {"input": 0.15, "output": 0.60}},
            "expensive": {**model, "price": {"input": 2.50, "output": 10.00}},
        },
        "policies": {
            "default": {
                "type": "threshold",
                "score": "need_strong",
                "tiers": [{"model": "cheap"}, {"model": "expensive", "from": 0.32}],
            }
        },
    }
    file = lab.run_dir / f"router-{port}.yaml"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "router", "serve", "--config", str(file)]
    no_overrides = {name: "" for name in os.environ if name.startswith("LLM_ROUTER_")}
    return Child.start("router", command, log_path=file.with_suffix(".log"), cwd=REPOSITORY, env=no_overrides), port


_SWITCHYARD = """
import sys, threading
from switchyard_rust.server import Server
server = Server(sys.argv[1], int(sys.argv[2]))
threading.Event().wait()
"""
_SWITCHYARD_ROUTES = """
schema_version = 1
[llm_clients.up]
format = "openai_chat"
base_url = "{upstream}"
api_key_env = "UPSTREAM_KEY"
[targets.capable]
id = "expensive"
llm_client = "up"
[targets.efficient]
id = "cheap"
llm_client = "up"
[routes.switchyard]
id = "auto"
type = "stage_router"
capable_target = "capable"
efficient_target = "efficient"
picker = "efficient_first"
confidence_threshold = 0.5
"""


@contextlib.contextmanager
def _switchyard(lab: Lab) -> Iterator[Target]:
    home = peers.install(peers.SWITCHYARD, lab.environments)
    routes, port = lab.run_dir / "switchyard.toml", free_port()
    routes.write_text(_SWITCHYARD_ROUTES.format(upstream=lab.upstream))
    command = [str(home / "bin" / "python"), "-c", _SWITCHYARD, str(routes), str(port)]
    env = {"UPSTREAM_KEY": "simulated"}
    child = Child.start("switchyard", command, log_path=lab.run_dir / "switchyard.log", env=env)
    with contextlib.closing(_Stop(child)):
        yield ready(child, "switchyard", port)


@contextlib.contextmanager
def _litellm(lab: Lab) -> Iterator[Target]:
    """One model, passed on to: no choice, no metrics."""
    with _serve_litellm(lab, "litellm", [_litellm_model(lab, "auto")]) as target:
        yield target


@contextlib.contextmanager
def _litellm_routing(lab: Lab) -> Iterator[Target]:
    """The router's own work: each prompt scored, by its rules, for one of two priced models; Prometheus metrics."""
    tiers = {"SIMPLE": "cheap", "MEDIUM": "cheap", "COMPLEX": "expensive", "REASONING": "expensive"}
    auto = {"model": "auto_router/complexity_router", "complexity_router_config": {"tiers": tiers}}
    models: list[Mapping[str, object]] = [
        _litellm_model(lab, "cheap", input_cost_per_token=0.15e-6, output_cost_per_token=0.60e-6),
        _litellm_model(lab, "expensive", input_cost_per_token=2.50e-6, output_cost_per_token=10.00e-6),
        {"model_name": "auto", "litellm_params": {**auto, "complexity_router_default_model": "expensive"}},
    ]
    with _serve_litellm(lab, "litellm-routing", models, callbacks=["prometheus"]) as target:
        yield target


def _litellm_model(lab: Lab, name: str, **params: object) -> Mapping[str, object]:
    params |= {"model": "openai/m", "api_base": lab.upstream, "api_key": "simulated"}
    return {"model_name": name, "litellm_params": params}


@contextlib.contextmanager
def _serve_litellm(lab: Lab, name: str, models: Sequence[Mapping[str, object]], **settings: object) -> Iterator[Target]:
    home = peers.install(peers.LITELLM, lab.environments)
    config, port = lab.run_dir / f"{name}.yaml", free_port()
    general = {"dangerously_permit_weak_or_unset_master_key": True}  # nobody has keys here
    config.write_text(json.dumps({"model_list": models, "litellm_settings": settings, "general_settings": general}))
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_DOCS": "True"}
    command = [str(home / "bin" / "litellm"), *options]
    child = Child.start(name, command, log_path=lab.run_dir / f"{name}.log", cwd=lab.run_dir, env=env)
    with contextlib.closing(_Stop(child)):
        yield ready(child, name, port, is_slow=True)


@contextlib.contextmanager
def _portkey(lab: Lab) -> Iterator[Target]:
    home = peers.install(peers.PORTKEY, lab.environments)
    port = free_port()
    server = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(server), "--headless", f"--port={port}"]
    child = Child.start("portkey", command, log_path=lab.run_dir / "portkey.log", env={"NODE_ENV": "production"})
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": lab.upstream,
        "authorization": "Bearer simulated",
    }
    with contextlib.closing(_Stop(child)):
        yield ready(child, "portkey", port, headers=headers, is_slow=True)


STARTERS: Mapping[str, Callable[[Lab], contextlib.AbstractContextManager[Target]]] = {
    "direct": _direct,
    "nginx": _nginx,
    "router": _router,
    "switchyard": _switchyard,
    "portkey": _portkey,
    "litellm": _litellm,
    "litellm-routing": _litellm_routing,
}
FLOORS = ("direct", "nginx")
PEERS = ("switchyard", "portkey", "litellm")


@dataclass(frozen=True, slots=True)
class _Stop:
    """A child as `contextlib.closing` wants it."""

    child: Child

    def close(self) -> None:
        self.child.stop()


def ready(
    child: Child, name: str, port: int, *, headers: Mapping[str, str] | None = None, is_slow: bool = False
) -> Target:
    """Wait until a chat request is answered as it should be."""
    target = Target(name, f"http://127.0.0.1:{port}{CHAT}", child.pid, headers or {}, is_slow)
    child.wait_until(lambda: answers(target), deadline_s=START_DEADLINE_S)
    return target


def answers(target: Target) -> bool:
    """Return whether one chat request gets the upstream's answer."""
    url = urlsplit(target.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    try:
        headers = {"content-type": "application/json", **target.headers}
        connection.request("POST", url.path, json.dumps(QUESTION), headers)
        answer = connection.getresponse()
        return answer.status == 200 and nginx.ANSWER.encode() in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
