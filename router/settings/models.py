"""The models of the configuration file: where each is served, what it costs, what it can, who stands in for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from router.settings.prices import price_of
from router.settings.types import CAPABILITIES, ModelSettings, Price, Replica, Secret, Timeouts
from router.settings.yaml_fields import Check, Section, allowed_words, kind


def read_model(name: str, section: Section, names: Sequence[str]) -> ModelSettings:
    """Read one model; `names` are all that are configured, of which any other may stand in for it."""
    replicas = _replicas(section)
    model_id = section.text("model", name)
    model = ModelSettings(
        name=name,
        replicas=replicas,
        model=model_id,
        price=_price(section.section("price")) if section.get("price") else price_of(model_id, replicas[0].api_base),
        context_limit=(section.integer("context_limit", least=1, most=10**9) if section.get("context_limit") else None),
        timeouts=_timeouts(section.section("timeouts")),
        stream_usage=section.flag("stream_usage", default=True),
        expected_output_tokens=section.integer("expected_output_tokens", 256, least=1, most=1_000_000),
        fallbacks=section.words("fallbacks", check=_another_of(names, name)),
        supports=section.words("supports", check=_capability) if section.get("supports") else None,
    )
    section.close()
    return model


def _replicas(section: Section) -> tuple[Replica, ...]:
    """Read `replicas`, or the one of `api_base`; a replica without a key of its own has the model's. Never empty."""
    one, several = section.get("api_base"), section.get("replicas")
    key = _secret(section, "api_key")
    if several is None:
        return (Replica(_address(section), key),)
    if one is not None:
        section.problems.add(one, "is given beside replicas; keep one of them")
    nodes = section.entries("replicas")
    if several.value == ():
        section.problems.add(several, "is empty; name at least one")
    replicas = []
    for node in nodes:
        entry = Section(node, section.problems)
        replicas.append(Replica(_address(entry), _secret(entry, "api_key") or key))
        entry.close()
    return tuple(replicas) or (Replica(""),)


def _address(section: Section) -> str:
    return section.text("api_base", check=_api_base).rstrip("/")


def _price(section: Section) -> Price:
    price = Price(section.number("input", least=0), section.number("output", least=0), "configuration")
    section.close()
    return price


def _timeouts(section: Section) -> Timeouts:
    default = Timeouts()
    total_s = section.number("total_s", default.total_s, above=0, most=86_400)
    # A default gives way to a short total; a number that the user wrote does not.
    timeouts = Timeouts(
        connect_s=section.number("connect_s", min(default.connect_s, total_s), above=0, most=total_s),
        first_byte_s=section.number("first_byte_s", min(default.first_byte_s, total_s), above=0, most=total_s),
        idle_s=section.number("idle_s", min(default.idle_s, total_s), above=0, most=total_s),
        total_s=total_s,
    )
    section.close()
    return timeouts


def _secret(section: Section, key: str) -> Secret | None:
    node = section.get(key)
    if node is None or node.value == "":
        return None
    if not isinstance(node.value, str):
        section.problems.add(node, f"must be text, not {kind(node)}")
        return None
    if not re.fullmatch(r"[!-~]+", node.value):  # the value itself must not be shown
        section.problems.add(node, "must be ASCII without spaces or line breaks, as an HTTP header needs it")
    return Secret(node.value)


def web_address(value: str) -> str | None:
    """Say what is wrong with an http(s) URL, None when nothing is."""
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if valid and not value.isascii():
        return "must be ASCII: write an international host in its xn-- form and percent-encode the path"
    if not valid or " " in value:
        return "must be an http:// or https:// URL, for example https://api.openai.com/v1"
    if "@" in url.netloc:
        return "must not hold a user or password; use api_key"
    if "?" in value or "#" in value:
        return "must not have a query or a fragment"
    return None


def _api_base(value: str) -> str | None:
    if value.rstrip("/").endswith("/completions"):
        return "must be the base only, without /chat/completions"
    return web_address(value)


def _another_of(names: Sequence[str], own: str) -> Check:
    def check(value: str) -> str | None:
        if value == own:
            return "is the model itself; name others"
        others = [name for name in names if name != own]
        return None if value in others else f"is not a configured model; {allowed_words(value, others)}"

    return check


def _capability(value: str) -> str | None:
    return None if value in CAPABILITIES else f"is not a capability; {allowed_words(value, CAPABILITIES)}"
