"""The clients of the configuration file: who may ask for what, how often, and for how many dollars a day."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import limits

from router.settings.types import ClientSettings, ModelSettings, PolicySettings, Secret
from router.settings.yaml_fields import Check, Section, allowed_words, kind
from router.settings.yaml_nodes import Node, Problems, shown

NOBODY = "unknown"
"""What metrics call a caller without a valid key."""

_HOW = "`python -m router new-key` makes a key and prints this line"
_OF_NOTHING = sha256(b"").hexdigest()


def read_clients(
    root: Section, models: Mapping[str, ModelSettings], policies: Mapping[str, PolicySettings]
) -> dict[str, ClientSettings]:
    """Read `clients`; empty when there is no such section, which lets everybody in."""
    written = root.node.value.get("clients") if isinstance(root.node.value, dict) else None
    if written is not None and not written.value:  # null too, as when every client was commented out
        root.problems.add(written, "is empty, which would let everybody in; name a client or remove the section")
    owners: dict[str, str] = {}
    clients: dict[str, ClientSettings] = {}
    for name, section in root.section("clients").sections():
        _check_name(name, section)
        clients[name] = _client(name, section, list(models), list(policies), owners)
        if clients[name].budget_per_day is not None:
            _check_prices(section, models)
    return clients


def needs_state_dir(clients: Mapping[str, ClientSettings]) -> str | None:
    """Return the name of a client whose spending must outlive a restart, None when nobody's must."""
    return next((client.name for client in clients.values() if client.budget_per_day is not None), None)


def _client(
    name: str, section: Section, models: Sequence[str], policies: Sequence[str], owners: dict[str, str]
) -> ClientSettings:
    restricted = section.get("policies") is not None
    # Whoever is held to some policies could step around them by naming a model.
    named = section.get("models") is not None or restricted
    client = ClientSettings(
        name=name,
        key_sha256=_digests(section, owners),
        rate=section.text("rate", check=_rate) if section.get("rate") else None,
        budget_per_day=section.number("budget_per_day", above=0) if section.get("budget_per_day") else None,
        policies=section.words("policies", check=_one_of(policies, "policy")) if restricted else tuple(policies),
        models=section.words("models", check=_one_of(models, "model")) if named else tuple(models),
    )
    section.close()
    return client


def _digests(section: Section, owners: dict[str, str]) -> tuple[Secret, ...]:
    """Read one digest or a list of them. No message shows the value: it may be the key itself, put there by mistake."""
    node = section.require("key_sha256")
    if node is None:
        return ()
    nodes = node.value if isinstance(node.value, tuple) else (node,)
    if not nodes:
        section.problems.add(node, f"is empty; {_HOW}")
    return tuple(Secret(digest) for one in nodes if (digest := _digest(one, section.problems, owners)))


def _digest(node: Node, problems: Problems, owners: dict[str, str]) -> str | None:
    digest = node.value.lower() if isinstance(node.value, str) else ""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        what = "must be" if isinstance(node.value, str) else f"is {kind(node)}, but it must be"
        problems.add(node, f"{what} the SHA-256 of a key, 64 hexadecimal digits; {_HOW}")
        return None
    if digest == _OF_NOTHING:
        problems.add(node, f"is the SHA-256 of no text at all; {_HOW}")
    if digest in owners:
        problems.add(node, f"is given at {owners[digest]} too; every client needs a key of its own")
    owners[digest] = node.path
    return digest


def _check_name(name: str, section: Section) -> None:
    if name == NOBODY:
        section.problems.add(section.node, f"the name {shown(name)} is taken: metrics say it for wrong keys")
    elif not re.fullmatch(r"[!-~]{1,128}", name):
        section.problems.add(section.node, f"the name {shown(name)} must be 1 to 128 printable ASCII characters")


def _check_prices(section: Section, models: Mapping[str, ModelSettings]) -> None:
    """A budget counts dollars, so what any model costs must be known."""
    unknown = [model.name for model in models.values() if model.price is None]
    node = section.get("budget_per_day")
    if unknown and node is not None:
        section.problems.add(node, f"needs the price of every model; set models.{unknown[0]}.price")


def _rate(value: str) -> str | None:
    try:
        rates = limits.parse_many(value)
    except ValueError:
        rates = []
    if rates and all(0 < rate.amount < 10**9 and 0 < rate.get_expiry() < 10**9 for rate in rates):
        return None
    return 'must be requests per time, such as "100/minute", "5/second; 1000/hour" or "10 per 2 minutes"'


def _one_of(names: Sequence[str], what: str) -> Check:
    def check(value: str) -> str | None:
        return None if value in names else f"is not a configured {what}; {allowed_words(value, names)}"

    return check
