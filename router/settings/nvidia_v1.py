"""NVIDIA LLM Router v1's `config.yaml`, translated into this project's format before anything is checked.

    policies:
      - name: task_router
        url: http://router-server:8000/v2/models/task_router_ensemble/infer
        llms:                       # in the order of the Triton model's outputs
          - {name: Brainstorming, api_base: https://..., api_key: ..., model: meta/llama-3.1-70b-instruct}

Every policy becomes one of type `label`, every distinct llm a model named by its model id. The nodes keep
their lines and paths, so that a complaint points into the user's own file. `server`, `admin`, `triton`,
`tracing`, `upstreams`, `decision_log`, `clients`, and a model's other keys (such as `price`) may be added.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from router.settings.yaml_fields import Section, kind
from router.settings.yaml_nodes import Node, Problems, shown


def recognises(root: Node) -> bool:
    """Tell whether the file is v1's: there `policies` is a list, here a mapping."""
    policies = root.value.get("policies") if isinstance(root.value, dict) else None
    return policies is not None and isinstance(policies.value, tuple)


def translate(root: Node, problems: Problems, *, triton_url_known: bool) -> Node:
    """Return the same configuration in this project's format; structural mistakes are noted in `problems`.

    `triton_url_known` says that the environment names Triton's address, so that the file's may differ.
    """
    file = Section(root, problems)
    models = _Models(root)
    policies: dict[str, Node] = {}
    addresses: dict[str, Node] = {}
    for node in file.entries("policies"):
        section = Section(node, problems)
        name, url = section.text("name"), section.require("url")
        triton_model, address = _triton_model_and_address(url, problems)
        if name in policies:
            problems.add(node, f"the policy {shown(name)} is given twice; keep one")
        if url is not None and address:
            addresses.setdefault(address, url)
        llms = tuple(llm for entry in section.entries("llms") if (llm := models.llm(entry, problems)))
        section.close()
        policies[name] = replace(
            node,
            value={
                "type": _text(node, "label"),
                "triton_model": _text(url or node, triton_model),
                "llms": replace(section.get("llms") or node, value=llms),
            },
        )
    if not policies:
        problems.add(root, "policies: the list is empty; name at least one policy")
    triton = file.section("triton")
    added = ("server", "admin", "tracing", "upstreams", "decision_log", "clients")
    unchanged = {name: given for name in added if (given := file.get(name)) is not None}
    file.close()
    return replace(
        root,
        value={
            **unchanged,
            "triton": _with_address(triton, addresses, one_needed=not triton_url_known),
            "models": models.node(),
            "policies": replace(root, value=dict(policies), path="policies"),
            "default_policy": _text(root, next(iter(policies), "")),
        },
    )


def _with_address(triton: Section, addresses: dict[str, Node], *, one_needed: bool) -> Node:
    """Return the section `triton` with the address that the policies' URLs give, where it names none itself."""
    if not addresses or triton.get("url") is not None or not isinstance(triton.node.value, dict):
        return triton.node
    (address, url), *others = addresses.items()
    if others and one_needed:
        listed = ", ".join(sorted(addresses))
        advice = "set LLM_ROUTER_TRITON_URL to one"
        triton.problems.add(others[0][1], f"the policies name several Triton servers ({listed}); {advice}")
    return replace(triton.node, value={**triton.node.value, "url": _text(url, address)})


class _Models:
    """The distinct upstreams of all policies. Equal entries are one model; others with its id get `#2`."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._nodes: dict[str, Node] = {}
        self._names: dict[object, str] = {}
        self._uses: dict[str, int] = {}

    def llm(self, node: Node, problems: Problems) -> Node | None:
        """Return `{label, model}` for one entry of `llms`; its upstream becomes a model."""
        section = Section(node, problems)
        label, model = section.require("name"), section.require("model")
        if label is None or model is None or not isinstance(node.value, dict):
            return None
        if not isinstance(model.value, str):
            problems.add(model, f"must be text, not {kind(model)}")
            return None
        upstream = {key: value for key, value in node.value.items() if key != "name"}
        if "api_base" in upstream:
            upstream["api_base"] = _with_version(upstream["api_base"])
        name = self._name(model.value, _content(replace(node, value=upstream)))
        self._nodes.setdefault(name, replace(node, value=upstream))
        return replace(node, value={"label": label, "model": replace(model, value=name, written=name)})

    def node(self) -> Node:
        """Return the section `models`."""
        return replace(self._root, value=dict(self._nodes), path="models")

    def _name(self, model_id: str, content: object) -> str:
        if content not in self._names:
            base = re.sub(r"[^!-?A-~]", "-", model_id)[:120]
            base = "auto-model" if base == "auto" else base
            uses = self._uses[base] = self._uses.get(base, 0) + 1
            self._names[content] = base if uses == 1 else f"{base}#{uses}"
        return self._names[content]


def _content(node: Node) -> object:
    """What a node says, without its place, to compare and to hash."""
    if isinstance(node.value, dict):
        return tuple(sorted((key, _content(value)) for key, value in node.value.items()))
    if isinstance(node.value, tuple):
        return tuple(_content(value) for value in node.value)
    return node.value


def _with_version(node: Node) -> Node:
    """Append the `/v1` that v1 put between `api_base` and `/chat/completions`, unless it is there."""
    if not isinstance(node.value, str):
        return node
    base = node.value.rstrip("/")
    return node if re.search(r"/v[0-9]\w*$", base) else replace(node, value=base + "/v1")


def _triton_model_and_address(url: Node | None, problems: Problems) -> tuple[str, str]:
    """Read `http://host:8000/v2/models/NAME/infer` into NAME and `host:8001`, gRPC's port beside HTTP's."""
    if url is None:
        return "", ""
    text = url.value if isinstance(url.value, str) else ""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or 8000
    except ValueError:
        host, port = None, 0
    match = re.fullmatch(r"/v2/models/([^/]+)/infer/?", parts.path) if host else None
    if host is None or match is None or parts.scheme not in ("http", "https"):
        seen = shown(url.written) if text else kind(url)
        problems.add(
            url,
            f"{seen} must be a Triton infer URL: http://HOST:8000/v2/models/MODEL/infer, without a version",
        )
        return "", ""
    host = f"[{host}]" if ":" in host else host
    return match.group(1), f"{host}:{port + 1}"


def _text(place: Node, text: str) -> Node:
    return replace(place, value=text, written=text)
