"""What must hold after every fault, whatever it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.integration.router_process import CANARY, RouterProcess, chat_body, wait_until

HEALTHY_S = 10.0
"""A healthy request succeeds once the fault is over; two seconds are promised, a busy test machine gets more."""

PATIENCE_S = 10.0
"""What comes within this time has come: less than any limit that no test sets, enough when it is busy."""

HEALTHY_MODEL = "cheap"
"""Every router of the fault suite has a model of this name, and a test leaves it healthy."""


def hold(router: RouterProcess) -> None:
    """Hold a running router to the invariants; its fault must be over.

    Nothing waits or is under way, what was accepted has ended with one outcome each, none of them a bug of ours;
    a healthy request succeeds and is counted once; no prompt, key or traceback is in its log or its metrics.
    """
    router.settles()
    accepted = router.metrics().total("llm_router_requests_total")
    attempts = succeeds(router)
    router.settles()
    page = router.metrics()
    assert page.total("llm_router_requests_total") == accepted + attempts
    assert page.total("llm_router_requests_total", outcome="internal_error") == 0
    for where, text in (("log", router.log()), ("/metrics", router.metrics_text())):
        assert CANARY not in text, f"{where}: {text}"
        assert "Traceback" not in text, f"{where}: {text}"


def succeeds(router: RouterProcess) -> int:
    """Ask until a healthy request succeeds, for at most `HEALTHY_S`; return how many were answered for that."""
    answered = 0

    def healthy() -> bool:
        nonlocal answered
        try:
            status = router.post(chat_body("Are you still there?", model=HEALTHY_MODEL)).status
        except (OSError, HTTPException):  # refused, or cut short: a worker may be on its way back
            return False
        answered += 1
        return status == 200

    wait_until(healthy, deadline_s=HEALTHY_S)
    return answered


@contextmanager
def counted(router: RouterProcess, outcome: str, requests: int = 1) -> Iterator[None]:
    """Hold the block to its accounts: exactly so many requests end during it, all with this outcome."""
    before = _ended(router, outcome)
    yield
    expected = tuple(count + requests for count in before)
    deadline = time.monotonic() + HEALTHY_S
    while (now := _ended(router, outcome)) != expected and time.monotonic() < deadline:
        time.sleep(0.02)  # an outcome is counted just after its answer
    gained = [after - count for after, count in zip(now, before, strict=True)]
    all_now = router.metrics().by_label("llm_router_requests_total", "outcome")
    assert now == expected, f"{gained[0]:g} of {gained[1]:g} ended as {outcome!r}, expected {requests}; now {all_now}"


def _ended(router: RouterProcess, outcome: str) -> tuple[float, float]:
    page, name = router.metrics(), "llm_router_requests_total"
    return page.total(name, outcome=outcome), page.total(name)
