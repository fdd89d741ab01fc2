"""The configuration file, read into frozen settings. No other room reads YAML or the environment.

`load_settings` takes this project's format and NVIDIA v1's `config.yaml`, and reports every problem at once:

    router.yaml:14: policies.default.tiers[1].model: "expnsive" is not a configured model; allowed: cheap, ...
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from router.settings import nvidia_v1
from router.settings.clients import needs_state_dir, read_clients
from router.settings.models import read_model, web_address
from router.settings.policies import read_policy
from router.settings.shares import check_shares, read_shares
from router.settings.types import (
    AdminSettings,
    DecisionLogSettings,
    ModelSettings,
    OnFailure,
    PolicySettings,
    Secret,
    ServerSettings,
    Settings,
    TracingSettings,
    TritonSettings,
    UpstreamSettings,
)
from router.settings.yaml_fields import Section, allowed_words
from router.settings.yaml_nodes import Node, Problems, read_yaml, shown

OVERRIDES = {
    "LLM_ROUTER_HOST": ("server", "host"),
    "LLM_ROUTER_PORT": ("server", "port"),
    "LLM_ROUTER_ADMIN_HOST": ("admin", "host"),
    "LLM_ROUTER_ADMIN_PORT": ("admin", "port"),
    "LLM_ROUTER_TRITON_URL": ("triton", "url"),
}
"""Environment variables that win over the file, in both formats."""

_TAKEN = {
    "auto": "clients say it for the default policy",
    "none": "answers and metrics say it where no policy or model was chosen",
}
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check the configuration at `path`.

    Raises ConfigurationError with every problem found: file, line, key, the value seen, and what is allowed.
    """
    problems = Problems()
    root = read_yaml(path, environ, problems)
    overrides = {at: environ[name] for name, at in OVERRIDES.items() if environ.get(name)}
    if nvidia_v1.recognises(root):
        root = nvidia_v1.translate(root, problems, triton_url_known=("triton", "url") in overrides)
        problems.raise_if_any()
    settings = _settings(Section(_with_overrides(root, environ), problems), path.name)
    problems.raise_if_any()
    return settings


def redacted(settings: Settings) -> dict[str, object]:
    """Return the settings as JSON-able data: keys "[REDACTED]", an unknown price and minus infinity null."""
    return cast("dict[str, object]", _plain(settings))


def _plain(value: object) -> object:
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        kind_of_policy = {"type": value.kind} if isinstance(value, PolicySettings) else {}
        return kind_of_policy | {name: _plain(getattr(value, name)) for name in names}
    return value


def _with_overrides(root: Node, environ: Mapping[str, str]) -> Node:
    for variable, (section, key) in OVERRIDES.items():
        value = environ.get(variable)
        if not value or not isinstance(root.value, dict):
            continue
        old = root.value.get(section)
        if old is None or old.value is None:
            old = Node({}, root.source, root.line, section)
        if isinstance(old.value, dict):
            node = Node(value, "environment", 0, variable, value)
            root = dataclasses.replace(
                root, value={**root.value, section: dataclasses.replace(old, value={**old.value, key: node})}
            )
    return root


def _settings(root: Section, source: str) -> Settings:
    server = _server(root.section("server"))
    admin = _admin(root.section("admin"), server)
    triton = _triton(root.section("triton"))
    tracing = _tracing(root.section("tracing"))
    upstreams = _upstreams(root.section("upstreams"))
    decision_log = _decision_log(root.section("decision_log"))
    models = _models(root)
    policies = _policies(root, models)
    default_policy = _default_policy(root, [name for name, _ in root.section("policies").names()])
    clients = read_clients(root, models, policies)
    _check_state_dir(root, server, needs_state_dir(clients))
    root.close()
    return Settings(
        server, admin, triton, models, policies, default_policy, source, tracing, upstreams, decision_log, clients
    )


def _server(section: Section) -> ServerSettings:
    default = ServerSettings()
    server = ServerSettings(
        host=section.text("host", default.host, check=_host),
        port=section.integer("port", default.port, least=0, most=65535),
        workers=section.integer("workers", default.workers, least=1, most=64),
        max_body_bytes=section.integer("max_body_bytes", default.max_body_bytes, least=1024, most=2**30),
        body_timeout_s=section.number("body_timeout_s", default.body_timeout_s, above=0, most=3600),
        max_in_flight=(section.integer("max_in_flight", least=1, most=10**6) if section.get("max_in_flight") else None),
        max_lag_ms=section.number("max_lag_ms", default.max_lag_ms, least=0, most=10_000),
        max_wait_ms=section.number("max_wait_ms", default.max_wait_ms, least=0, most=10_000),
        stop_delay_s=section.number("stop_delay_s", default.stop_delay_s, least=0, most=600),
        drain_s=section.number("drain_s", default.drain_s, least=0, most=86_400),
        log_level=section.choice("log_level", LOG_LEVELS, default.log_level),
        state_dir=section.text("state_dir") if section.get("state_dir") else None,
    )
    section.close()
    return server


def _check_state_dir(root: Section, server: ServerSettings, client: str | None) -> None:
    if client is not None and server.state_dir is None:
        node = dataclasses.replace(root.section("server").node, path="server.state_dir")
        root.problems.add(
            node, f"missing: the budget of client {shown(client)} must outlive a restart; name a directory"
        )


def _admin(section: Section, server: ServerSettings) -> AdminSettings:
    default = AdminSettings()
    admin = AdminSettings(
        enabled=section.flag("enabled", default=default.enabled),
        host=section.text("host", default.host, check=_host),
        port=section.integer("port", default.port, least=0, most=65535),
    )
    # The port tells the two listeners apart, so another host does not make an equal one right.
    if admin.enabled and admin.port and admin.port == server.port:
        taken = f"{admin.port} is server.port too; choose another, 0 for any free one, or enabled: false"
        section.problems.add(section.get("port") or dataclasses.replace(section.node, path="admin.port"), taken)
    section.close()
    return admin


def _triton(section: Section) -> TritonSettings:
    default = TritonSettings()
    url = section.text("url", default.url, check=_host_and_port)
    triton = TritonSettings(
        url=url,
        model=section.text("model", default.model),
        deadline_ms=section.number("deadline_ms", default.deadline_ms, above=0, most=60_000),
        max_batch_size=section.integer("max_batch_size", default.max_batch_size, least=1, most=64),
        max_queue_delay_ms=section.number("max_queue_delay_ms", default.max_queue_delay_ms, least=0, most=100),
        max_waiting=section.integer("max_waiting", default.max_waiting, least=1, most=1_000_000),
        max_batches_in_flight=section.integer(
            "max_batches_in_flight", default.max_batches_in_flight, least=1, most=256
        ),
        cache_entries=section.integer("cache_entries", default.cache_entries, least=0, most=10_000_000),
        max_text_chars=section.integer("max_text_chars", default.max_text_chars, least=1, most=1_000_000),
        on_failure=cast("OnFailure", section.choice("on_failure", ("default_model", "reject"), default.on_failure)),
        price_per_hour=section.number("price_per_hour", least=0) if section.get("price_per_hour") else None,
        metrics_url=section.text("metrics_url", f"http://{url.rpartition(':')[0]}:8002/metrics", check=_metrics_url),
        versions=read_shares(section.text("versions", check=check_shares)) if section.get("versions") else (),
    )
    section.close()
    return triton


def _tracing(section: Section) -> TracingSettings:
    endpoint = section.text("otlp_endpoint", check=web_address) if section.get("otlp_endpoint") else None
    section.close()
    return TracingSettings(endpoint)


def _decision_log(section: Section) -> DecisionLogSettings:
    default = DecisionLogSettings()
    decision_log = DecisionLogSettings(
        path=section.text("path", check=_log_file) if section.get("path") else None,
        sample=section.number("sample", default.sample, above=0, most=1),
        max_bytes=section.integer("max_bytes", default.max_bytes, least=1024, most=2**40),
        keep=section.integer("keep", default.keep, least=1, most=1000),
    )
    section.close()
    return decision_log


def _upstreams(section: Section) -> UpstreamSettings:
    default = UpstreamSettings()
    upstreams = UpstreamSettings(
        retry_budget=section.number("retry_budget", default.retry_budget, least=0, most=1),
        failures_to_open=section.integer("failures_to_open", default.failures_to_open, least=1, most=1_000_000),
        cooldown_s=section.number("cooldown_s", default.cooldown_s, above=0, most=3600),
        max_cooldown_s=section.number("max_cooldown_s", default.max_cooldown_s, least=0, most=86_400),
    )
    section.close()
    return upstreams


def _named(root: Section, key: str) -> Iterator[tuple[str, Section]]:
    """Every entry of a required mapping of names, at least one; the names are checked."""
    node = root.require(key)
    if node is not None and not node.value:
        root.problems.add(node, "is empty; name at least one")
    for name, section in root.section(key).sections():
        _check_name(name, section.node, root.problems)
        yield name, section


def _models(root: Section) -> dict[str, ModelSettings]:
    names = [name for name, _ in root.section("models").names()]
    return {name: read_model(name, section, names) for name, section in _named(root, "models")}


def _policies(root: Section, models: Mapping[str, ModelSettings]) -> dict[str, PolicySettings]:
    policies: dict[str, PolicySettings] = {}
    for name, section in _named(root, "policies"):
        if name in models:
            root.problems.add(section.node, f"{shown(name)} is a model's name too; rename one of them")
        policy = read_policy(name, section, models)
        if policy is not None:
            policies[name] = policy
    return policies


def _default_policy(root: Section, names: list[str]) -> str:
    node = root.get("default_policy")
    if node is not None:
        known = f"is not a configured policy; {allowed_words(str(node.value), names)}"
        return root.text("default_policy", check=lambda name: None if name in names else known)
    if len(names) == 1:
        return names[0]
    if "default" not in names and names:
        missing = dataclasses.replace(root.node, path="default_policy")
        root.problems.add(missing, f'missing, and no policy is called "default"; {allowed_words("default", names)}')
    return "default"


def _check_name(name: str, node: Node, problems: Problems) -> None:
    if name in _TAKEN:
        problems.add(node, f"the name {shown(name)} is taken: {_TAKEN[name]}; choose another")
    elif not re.fullmatch(r"[!-?A-~]{1,128}", name):
        problems.add(node, f'the name {shown(name)} must be 1 to 128 printable ASCII characters, no space, no "@"')


def _log_file(value: str) -> str | None:
    if not value.startswith("/"):
        return "must be an absolute path, such as /var/log/llm-router/decisions.jsonl"
    if Path(value).is_dir():
        return "is a directory; name a file in it"
    folder = Path(value).parent
    return None if folder.is_dir() else f"must be in a directory that is there; {folder} is not: make it"


def _host(value: str) -> str | None:
    return None if re.fullmatch(r"[\w.:-]+", value) else "must be a host name or an IP address"


def _host_and_port(value: str) -> str | None:
    if "://" in value:
        return "must be host:port of Triton's gRPC listener, without http:// or any other scheme"
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", value)
    if match and 1 <= int(match.group(1)) <= 65535:
        return None
    return "must be host:port of Triton's gRPC listener, for example 127.0.0.1:8001"


def _metrics_url(value: str) -> str | None:
    if re.fullmatch(r"http://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/[^\s?#]*", value):
        return None
    return "must be the http:// URL of Triton's metrics, for example http://127.0.0.1:8002/metrics"
