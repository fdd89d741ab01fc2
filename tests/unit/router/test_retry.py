"""When a failed request may be sent again, how often, and what `Retry-After` asks for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from router.errors import (
    UpstreamConnect,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTTFTTimeout,
)
from router.upstream.retry import Again, RetryBudget, pause_s, where


def refused(status: int) -> UpstreamRefused:
    return UpstreamRefused("refused", status, [], b"{}")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UpstreamConnect("refused"), Again.ANYWHERE),
        (UpstreamProtocol("broke off"), Again.ANYWHERE),
        (UpstreamError("a stream that began with an error"), Again.ANYWHERE),
        *((refused(status), Again.ANYWHERE) for status in (408, 409, 500, 502, 503, 529, 599)),
        (UpstreamTTFTTimeout("no first byte"), Again.ELSEWHERE),
        (UpstreamTimeout("silent"), Again.ELSEWHERE),
        (refused(429), Again.ELSEWHERE),
        *((refused(status), Again.NOWHERE) for status in (400, 401, 403, 404, 413, 422, 451)),
    ],
    ids=lambda value: getattr(value, "code", None) or str(value),
)
def test_where_a_request_may_go_after_a_failure(error: UpstreamError, again: Again) -> None:
    assert where(error) is again


@pytest.mark.parametrize(("ratio", "requests", "retries"), [(0.2, 1, 1), (0.2, 100, 20), (0, 100, 0), (1, 50, 50)])
def test_the_budget_is_a_share_of_the_requests(ratio: float, requests: int, retries: int) -> None:
    budget, spent = RetryBudget(ratio), 0
    for _ in range(requests):
        budget.earn()
        spent += budget.spend()
    assert spent == retries


def test_what_is_not_used_is_kept_for_ten_retries_at_most() -> None:
    budget = RetryBudget(0.2)
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(1000)) == 10


NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"Retry-After": b"7"}, 7),
        ({b"retry-after": b" 0 "}, 0),
        ({b"retry-after": b"Wed, 01 May 2024 12:00:30 GMT"}, 30),
        ({b"retry-after": b"Wed, 01 May 2024 11:00:00 GMT"}, 0),
        # The server's clock is a day ahead: its own date says how long it means.
        ({b"retry-after": b"Thu, 02 May 2024 12:00:05 GMT", b"date": b"Thu, 02 May 2024 12:00:00 GMT"}, 5),
        ({b"retry-after": b"Thu, 02 May 2024 12:00:05 -0000", b"date": b"nonsense"}, 24 * 3600 + 5),
        *(({b"retry-after": text}, None) for text in (b"", b"soon", b"-1", b"1e3", b"\xff", b"9" * 400, b"1, 2")),
    ],
)
def test_the_pause_that_retry_after_asks_for(headers: dict[bytes, bytes], seconds: float | None) -> None:
    assert pause_s(list(headers.items()), NOW) == seconds
