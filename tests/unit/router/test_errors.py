"""Every error: what a client sees of it, and that the tree at the top of the file tells the truth."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from router import errors
from router.errors import (
    CLASSIFIER_FAILURES,
    BudgetSpent,
    ClassifierError,
    ClientError,
    ConfigurationError,
    RateLimited,
    RouterError,
    UpstreamRateLimited,
    UpstreamRefused,
)

OPENAIS_OWN: dict[type[RouterError], str] = {RateLimited: "requests", BudgetSpent: "insufficient_quota"}
CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, RouterError) and value.__module__ == errors.__name__
]
OURS = [kind for kind in CLASSES if kind is not UpstreamRefused]  # that one holds a model's own words and status
# "│   ├── InvalidJSON                 400  the body ..."
BRANCH = re.compile(r"^(?P<indent>(?:[│ ] {3})*)[├└]── (?P<name>\w+) +(?:(?P<status>\d{3})  )?\S")


def made(kind: type[RouterError]) -> RouterError:
    """One error of this class that says `what went wrong`."""
    if issubclass(kind, ClassifierError):
        return kind("deadline", "what went wrong")
    if issubclass(kind, ConfigurationError):
        return kind(["what went wrong"])
    return kind("what went wrong", param="messages[0]")


def tree() -> list[tuple[str, str, int | None]]:
    """The docstring's tree as (class, its parent, its status where one is given)."""
    branches, above = [], ["RouterError"]
    for line in (errors.__doc__ or "").splitlines():
        match = BRANCH.match(line)
        if match:
            depth = len(match["indent"]) // 4 + 1
            above = [*above[:depth], match["name"]]
            branches.append((match["name"], above[depth - 1], int(match["status"]) if match["status"] else None))
    return branches


def test_the_tree_lists_every_class_once_under_its_parent() -> None:
    listed = [(name, parent) for name, parent, _ in tree()]
    expected = [(kind.__name__, kind.__mro__[1].__name__) for kind in CLASSES if kind is not RouterError]
    assert sorted(listed) == sorted(expected)


def test_the_tree_gives_the_status_that_is_sent() -> None:
    by_name = {kind.__name__: kind for kind in CLASSES}
    given = {name: status for name, _, status in tree() if status is not None}
    assert given == {name: by_name[name].status for name in given}
    leaves = {kind.__name__ for kind in CLASSES if not kind.__subclasses__()}
    assert leaves - set(given) == {"ClassifierError", "UpstreamRefused"}


@pytest.mark.parametrize("kind", OURS)
def test_a_client_sees_openai_s_error_object_with_the_status_inside(kind: type[RouterError]) -> None:
    error = made(kind)
    body: dict[str, Any] = json.loads(error.body())
    assert list(body) == ["error"]
    assert body["error"] == {
        "message": "what went wrong",
        "type": kind.type,
        "param": error.param,
        "code": kind.code,
        "status": kind.status,
    }


@pytest.mark.parametrize("kind", OURS)
def test_the_type_says_who_can_mend_it(kind: type[RouterError]) -> None:
    if issubclass(kind, ClientError | ConfigurationError):
        assert 400 <= kind.status < 500
        assert kind.type == OPENAIS_OWN.get(kind, "invalid_request_error")
    elif kind is UpstreamRateLimited:
        assert (kind.status, kind.type) == (429, "rate_limit_error")
    else:
        assert 500 <= kind.status < 600
        assert kind.type == "server_error"


def test_codes_are_as_the_fault_matrix_names_them_and_tell_leaves_apart() -> None:
    codes = {kind.__name__: kind.code for kind in CLASSES if not kind.__subclasses__()}
    assert len(set(codes.values())) == len(codes)
    expected = {
        "InvalidJSON": "invalid_json",
        "UpstreamConnect": "upstream_connect",
        "UpstreamTTFTTimeout": "upstream_ttft_timeout",
        "UpstreamProtocol": "upstream_protocol",
    }
    assert {name: codes[name] for name in expected} == expected


@pytest.mark.parametrize("reason", CLASSIFIER_FAILURES)
def test_a_classifier_error_has_a_reason_for_a_label_and_says_when_to_come_again(reason: str) -> None:
    error = ClassifierError(reason, "no score")
    assert (error.reason, error.retry_after_s, error.status) == (reason, 1, 503)
    assert re.fullmatch(r"[a-z_]+", reason)


def test_every_reason_that_the_code_gives_is_in_the_list() -> None:
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.rglob("*.py"))
    given = set(re.findall(r"ClassifierError\(\s*\"(\w+)\"", source))
    assert given <= set(CLASSIFIER_FAILURES)
    assert given >= {"unavailable", "invalid_output", "contract", "queue_full", "deadline"}


def test_a_configuration_error_keeps_its_problems_apart() -> None:
    error = ConfigurationError(["one", "two"])
    assert (error.problems, str(error)) == (("one", "two"), "one\ntwo")
