"""What a reload says has changed: keys, never values."""

from __future__ import annotations

import dataclasses

from router.settings import ModelSettings, Secret, ServerSettings, changes, fingerprint, needs_restart, with_fixed_of
from tests.unit.router.examples import settings

BEFORE = settings()


def test_nothing_changed() -> None:
    assert changes(BEFORE, settings()) == []
    assert fingerprint(BEFORE) == fingerprint(settings())


def test_every_changed_key_is_named_by_its_path() -> None:
    after = dataclasses.replace(
        BEFORE,
        triton=dataclasses.replace(BEFORE.triton, deadline_ms=7.0),
        models={**BEFORE.models, "new": next(iter(BEFORE.models.values()))},
    )
    assert changes(BEFORE, after) == ["triton.deadline_ms", "models.new"]
    assert changes(after, BEFORE) == ["triton.deadline_ms", "models.new"]
    assert fingerprint(BEFORE) != fingerprint(after)


def test_a_new_key_is_a_change_that_the_fingerprint_does_not_give_away() -> None:
    name, model = next(iter(BEFORE.models.items()))
    one, other = (
        dataclasses.replace(BEFORE, models={**BEFORE.models, name: with_key(model, Secret(key))})
        for key in ("sk-one", "sk-other")
    )
    assert changes(one, other) == [f"models.{name}.replicas[0].api_key"]
    assert fingerprint(one) == fingerprint(other)


def with_key(model: ModelSettings, key: Secret) -> ModelSettings:
    [replica] = model.replicas
    return dataclasses.replace(model, replicas=(dataclasses.replace(replica, api_key=key),))


def test_another_kind_of_policy_is_one_change() -> None:
    name = BEFORE.default_policy
    other = next(policy for policy in BEFORE.policies.values() if type(policy) is not type(BEFORE.policies[name]))
    after = dataclasses.replace(BEFORE, policies={**BEFORE.policies, name: other})
    assert changes(BEFORE, after) == [f"policies.{name}"]


def test_what_only_a_start_reads() -> None:
    after = dataclasses.replace(
        BEFORE,
        server=dataclasses.replace(BEFORE.server, port=1, workers=9, drain_s=1.0),
        admin=dataclasses.replace(BEFORE.admin, port=2),
    )
    changed = changes(BEFORE, after)
    assert needs_restart(changed) == ["server.port", "server.workers", "admin.port"]
    taken = with_fixed_of(BEFORE, after)
    assert taken.admin == BEFORE.admin
    assert taken.server == dataclasses.replace(BEFORE.server, drain_s=1.0)
    assert needs_restart(["server.max_in_flight", "administration"]) == []


def test_the_fixed_keys_are_keys() -> None:
    names = {field.name for field in dataclasses.fields(ServerSettings)}
    assert {"host", "port", "workers"} <= names
