"""Clients: how they are configured, whose key it is, what it may name, how often, and what it has spent."""

from __future__ import annotations

import multiprocessing
import sqlite3
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from router.clients import spending
from router.clients.keys import KeyRing, bearer_key, digest_of, new_key
from router.clients.permission import Offers
from router.clients.rates import Rates, Standing, narrowest
from router.clients.spending import Ledger, Spending, seconds_to_tomorrow, today
from router.errors import ConfigurationError, ModelNotAllowed, PolicyNotAllowed
from router.metrics import Metrics
from router.settings import ClientSettings, Secret, changes, fingerprint, load_settings, redacted
from tests.unit.router.configuration import ENVIRON, GOOD, problems_of, write
from tests.unit.router.examples import settings

ONE, TWO = digest_of("one"), digest_of("two")


def client(name: str, *keys: str, policies: tuple[str, ...] = (), models: tuple[str, ...] = ()) -> ClientSettings:
    return ClientSettings(name, tuple(Secret(digest_of(key)) for key in keys), None, None, policies, models)


# --- configuration -----------------------------------------------------------------------------------------------


def read(directory: Path, clients: str) -> dict[str, ClientSettings]:
    return dict(load_settings(write(directory, f"{GOOD}clients:\n{clients}"), ENVIRON).clients)


def test_without_the_section_there_are_no_clients(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, GOOD), ENVIRON).clients == {}


def test_a_client_may_use_everything_unless_told_otherwise(tmp_path: Path) -> None:
    [one] = read(tmp_path, f"  one: {{key_sha256: {ONE.upper()}}}\n").values()
    assert (one.rate, one.budget_per_day) == (None, None)
    assert one.key_sha256 == (Secret(ONE),)
    assert one.policies == ("default", "mixed", "value", "task", "only", "nvidia")
    assert one.models == ("cheap", "expensive")


@pytest.mark.parametrize(
    ("given", "policies", "models"),
    [
        ("policies: [only]", ("only",), ()),
        ("policies: [only], models: [cheap]", ("only",), ("cheap",)),
        ("policies: []", (), ()),
        ("models: []", ("default", "mixed", "value", "task", "only", "nvidia"), ()),
    ],
)
def test_whoever_is_held_to_policies_cannot_step_around_them(
    tmp_path: Path, given: str, policies: tuple[str, ...], models: tuple[str, ...]
) -> None:
    [one] = read(tmp_path, f"  one: {{key_sha256: {ONE}, {given}}}\n").values()
    assert (one.policies, one.models) == (policies, models)


HOW = "`python -m router new-key` makes a key and prints this line"


@pytest.mark.parametrize(
    ("clients", "problem"),
    [
        ("clients:", "clients: is empty, which would let everybody in; name a client or remove the section"),
        ("clients: {}", "clients: is empty, which would let everybody in; name a client or remove the section"),
        ("clients: {a: {}}", "clients.a.key_sha256: missing; docs/configuration.md says what belongs here"),
        ("clients: {a: {key_sha256: []}}", f"clients.a.key_sha256: is empty; {HOW}"),
        (
            "clients: {a: {key_sha256: sk-canary-7f3a}}",
            f"clients.a.key_sha256: must be the SHA-256 of a key, 64 hexadecimal digits; {HOW}",
        ),
        (
            "clients: {a: {key_sha256: {b: c}}}",
            f"clients.a.key_sha256: is a mapping, but it must be the SHA-256 of a key, 64 hexadecimal digits; {HOW}",
        ),
        (
            f"clients: {{a: {{key_sha256: {sha256(b'').hexdigest()}}}}}",
            f"clients.a.key_sha256: is the SHA-256 of no text at all; {HOW}",
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}}}, b: {{key_sha256: [{TWO}, {ONE}]}}}}",
            "clients.b.key_sha256[1]: is given at clients.a.key_sha256 too; every client needs a key of its own",
        ),
        (
            f"clients: {{unknown: {{key_sha256: {ONE}}}}}",
            'clients.unknown: the name "unknown" is taken: metrics say it for wrong keys',
        ),
        (
            f"clients: {{a b: {{key_sha256: {ONE}}}}}",
            'clients["a b"]: the name "a b" must be 1 to 128 printable ASCII characters',
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}, rate: fast}}}}",
            'clients.a.rate: "fast" must be requests per time, such as "100/minute", "5/second; 1000/hour" '
            'or "10 per 2 minutes"',
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}, rate: 0/minute}}}}",
            'clients.a.rate: "0/minute" must be requests per time, such as "100/minute", "5/second; 1000/hour" '
            'or "10 per 2 minutes"',
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}, policies: [defualt]}}}}",
            'clients.a.policies[0]: "defualt" is not a configured policy; '
            'allowed: default, mixed, value, task, only, nvidia (did you mean "default"?)',
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}, models: [chaep]}}}}",
            'clients.a.models[0]: "chaep" is not a configured model; allowed: cheap, expensive (did you mean "cheap"?)',
        ),
        (
            f"clients: {{a: {{key_sha256: {ONE}, bugdet_per_day: 1}}}}",
            "clients.a.bugdet_per_day: unknown key; "
            'allowed: policies, models, key_sha256, rate, budget_per_day (did you mean "budget_per_day"?)',
        ),
    ],
)
def test_mistakes_are_told_with_their_place_and_never_show_a_key(tmp_path: Path, clients: str, problem: str) -> None:
    line = GOOD.count("\n") + 1
    assert problems_of(write(tmp_path, f"{GOOD}{clients}\n")) == [f"router.yaml:{line}: {problem}"]


def test_a_budget_needs_a_directory_and_prices(tmp_path: Path) -> None:
    unneeded = [line for line in GOOD.splitlines() if "price: {input: 2.5" not in line and "expected_value" not in line]
    text = "\n".join([*unneeded, ""])
    found = problems_of(write(tmp_path, f"{text}clients: {{a: {{key_sha256: {ONE}, budget_per_day: 1}}}}\n"))
    assert found == [
        'router.yaml:1: server.state_dir: missing: the budget of client "a" must outlive a restart; name a directory',
        f"router.yaml:{text.count(chr(10)) + 1}: clients.a.budget_per_day: needs the price of every model; "
        "set models.expensive.price",
    ]


def test_a_digest_is_shown_nowhere_and_a_new_one_is_a_change(tmp_path: Path) -> None:
    old = load_settings(write(tmp_path, f"{GOOD}clients: {{a: {{key_sha256: {ONE}}}}}\n"), ENVIRON)
    new = load_settings(write(tmp_path, f"{GOOD}clients: {{a: {{key_sha256: {TWO}}}}}\n"), ENVIRON)
    assert ONE not in str(redacted(old)) + repr(old)
    assert changes(old, new) == ["clients.a.key_sha256[0]"]
    assert fingerprint(old) == fingerprint(new)


# --- keys --------------------------------------------------------------------------------------------------------


def test_new_keys_differ_and_have_256_random_bits() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("sk-router-") and len(key) == len("sk-router-") + 43 for key in keys)


def test_a_key_is_its_clients_and_nobody_elses() -> None:
    one, two = client("one", "k1", "k2"), client("two", "k3")
    ring = KeyRing([one, two])
    assert [ring.owner_of(key) for key in (b"k1", b"k2", b"k3")] == [one, one, two]
    for wrong in (b"", b"k", b"k4", b"k1 ", b"K1", digest_of("k1").encode()):
        assert ring.owner_of(wrong) is None


def test_an_equal_beginning_of_the_digest_is_not_enough() -> None:
    right = bytearray.fromhex(digest_of("k1"))
    right[-1] ^= 1
    ring = KeyRing([ClientSettings("one", (Secret(right.hex()),), None, None, (), ())])
    assert ring.owner_of(b"k1") is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Basic abc", None),
        (b"abc", None),
        (b"", None),
        (b"Bearer ", b""),
    ],
)
def test_the_key_comes_as_openai_s_clients_send_it(value: bytes, key: bytes | None) -> None:
    assert bearer_key([(b"accept", b"*/*"), (b"authorization", value)]) == key
    assert bearer_key([(b"accept", b"*/*")]) is None


# --- permissions -------------------------------------------------------------------------------------------------


def offers(*clients: ClientSettings) -> Offers:
    return Offers(replace(settings(), clients={one.name: one for one in clients}))


def test_without_clients_everything_is_on_offer() -> None:
    everything = offers().to(None)
    assert set(everything.policies) == {"auto", *settings().policies}
    assert set(everything.models) == set(settings().models)


def test_a_client_is_offered_what_it_may_name() -> None:
    one, none = client("one", policies=("fixed",), models=("cheap",)), client("none")
    offer = offers(one, none).to(one)
    offer.check_policy("fixed")
    offer.check_model("cheap")
    with pytest.raises(PolicyNotAllowed, match=r"may not use the policy 'tiers'. It may use: fixed\."):
        offer.check_policy("tiers")
    with pytest.raises(ModelNotAllowed, match=r"may not use the model 'dear'. It may use: cheap\."):
        offer.check_model("dear")
    with pytest.raises(ModelNotAllowed, match=r"It may use: none\."):
        offers(one, none).to(none).check_model("dear")


def test_auto_is_on_offer_where_its_policy_is() -> None:
    default = client("one", policies=(settings().default_policy,))
    assert offers(default).to(default).policies == ("auto", settings().default_policy)


# --- rates -------------------------------------------------------------------------------------------------------


def test_so_many_requests_and_then_no_more_until_the_window_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("router.clients.rates.monotonic", lambda: now)
    rates = Rates(tmp_path)
    assert [rates.take("a", "2/minute") for _ in range(2)] == [
        Standing(2, 1, 60.0, exceeded=False),
        Standing(2, 0, 60.0, exceeded=False),
    ]
    now = 1059.5
    assert rates.take("a", "2/minute") == Standing(2, 0, 0.5, exceeded=True)
    assert rates.take("b", "2/minute") == Standing(2, 1, 60.0, exceeded=False)
    now = 1060.0
    assert rates.take("a", "2/minute") == Standing(2, 1, 60.0, exceeded=False)


def test_of_several_limits_the_narrowest_is_told(tmp_path: Path) -> None:
    assert Rates(tmp_path).take("a", "5/second; 1000/hour").limit == 5
    wide, near = Standing(100, 50, 10, exceeded=False), Standing(10, 1, 5, exceeded=False)
    short, long = Standing(5, 0, 0.2, exceeded=True), Standing(10, 0, 3000.0, exceeded=True)
    assert narrowest([wide, near]) == near
    assert narrowest([wide, short, long]) == long


def test_a_standing_in_openai_s_headers() -> None:
    assert Standing(5, 0, 0.01, exceeded=True).headers() == [
        (b"x-ratelimit-limit-requests", b"5"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1s"),
    ]


def _take(directory: Path, times: int) -> int:
    rates = Rates(directory)
    return sum(not rates.take("a", "500/hour").exceeded for _ in range(times))


def test_processes_count_together_and_lose_nothing(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.starmap(_take, [(tmp_path, 200)] * 4)
    assert sum(taken) == 500


# --- spending ----------------------------------------------------------------------------------------------------


def test_the_ledger_adds_by_day_and_client_and_is_read_by_whoever_opens_it(tmp_path: Path) -> None:
    directory = str(tmp_path / "new" / "state")
    Ledger(directory).check()
    assert Ledger(directory).add({("d1", "a"): 0.25, ("d1", "b"): 1.0, ("d2", "a"): 4.0}, "d1") == {"a": 0.25, "b": 1.0}
    assert Ledger(directory).add({("d1", "a"): 0.5}, "d1") == {"a": 0.75, "b": 1.0}
    assert Ledger(directory).add({}, "d3") == {}


def test_a_directory_that_cannot_be_used_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"server\.state_dir: .* cannot be used .* may write to"):
        Ledger(str(tmp_path / "file" / "state")).check()
    (tmp_path / "spending.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigurationError, match=r"server\.state_dir: .* cannot be used"):
        Ledger(str(tmp_path)).check()


def keeping(directory: Path) -> Spending:
    spent = Spending(Metrics())
    budget = f"clients: {{a: {{key_sha256: {ONE}, budget_per_day: 10}}}}\n"
    text = GOOD.replace("server: {", f"server: {{state_dir: {directory / 'state'}, ")
    settings = load_settings(write(directory, text + budget), ENVIRON)
    Ledger(str(directory / "state")).check()
    spent.keep(settings)
    return spent


async def test_workers_learn_of_each_other_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    one, other = keeping(tmp_path), keeping(tmp_path)
    one.add("a", 0.25)
    other.add("a", 0.5)
    assert (one.of_today("a"), other.of_today("a")) == (0.25, 0.5)
    for worker in (one, other, one, one):
        await worker.tell()
    assert (one.of_today("a"), other.of_today("a")) == (0.75, 0.75)
    other.add("a", 1.0)
    assert other.of_today("a") == 1.75
    await other.close()
    await one.close()
    assert one.of_today("a") == 1.75


async def test_a_new_day_begins_at_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = keeping(tmp_path)
    spent.add("a", 1.0)
    await spent.tell()
    spent.add("a", 2.0)
    monkeypatch.setattr(spending, "today", lambda: "2999-01-01")
    assert spent.of_today("a") == 0.0
    await spent.close()
    monkeypatch.undo()
    assert Ledger(str(tmp_path / "state")).add({}, today()) == {"a": 3.0}  # counted for the day on which it was spent


async def test_a_file_that_cannot_be_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spent = keeping(tmp_path)
    monkeypatch.setattr(spending, "_PATIENCE_S", 0.01)
    spent.add("a", 1.0)
    holder = sqlite3.connect(tmp_path / "state" / "spending.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for _ in range(3):
        await spent.tell()
    assert spent.of_today("a") == 1.0
    assert [record.message for record in caplog.records] == [
        "spending cannot be written (database is locked); until it can, each worker counts its own"
    ]
    holder.execute("ROLLBACK")
    holder.close()
    await spent.close()
    assert Ledger(str(tmp_path / "state")).add({}, today()) == {"a": 1.0}


def test_budgets_begin_anew_at_midnight_utc() -> None:
    assert 1 <= seconds_to_tomorrow() <= 86_400
