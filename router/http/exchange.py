"""One request's way through the router, filled in step by step and accounted once at its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import perf_counter

import msgspec
from msgspec.structs import replace

from router.decide.decider import Decision
from router.http.asgi import HeaderList
from router.settings import ClientSettings
from router.upstream.replicas import Endpoint
from router.upstream.sse import Usage


class Exchange(msgspec.Struct, eq=False):
    """What is known so far of one request and its answer. Moments are `perf_counter`, durations seconds."""

    request_id: bytes
    started: float  # the moment when the whole body was here
    queued_s: float = 0.0  # in line, before it was begun
    trace_id: str | None = None
    client: ClientSettings | None = None  # whose key came with it, when there are clients
    expected_cost: Callable[[str], float | None] | None = None  # dollars by model; dropped at the end with its prompt
    decision: Decision | None = None
    explanation: HeaderList = []
    fallback: str | None = None  # "cheap->expensive;reason=...", when another model than the chosen one was asked
    silent: Endpoint | None = None  # the server that was asked first, until something of its answer is here
    sent: float | None = None  # the moment when the request last left for an upstream
    waited_s: float = 0.0  # for attempts that failed before that
    ttft_s: float | None = None
    overhead_s: float | None = None
    usage: Usage | None = None
    billed: bool = False  # an upstream wants money for it, whether or not its answer reached its end
    dollars: float | None = None  # None while unknown: no answer yet, no usage told, no price known
    baseline_dollars: float | None = None  # the same tokens at the policy's dearest model
    withhold_usage: bool = False
    answered: bool = False  # an upstream's answer has begun to leave; an error of ours is none
    stream_open: bool = False  # it is a stream, whose end has not been sent
    broken: bool = False  # the upstream reported an error within its stream
    finished: bool = False  # a finish_reason or [DONE] has passed: what the model had to say is complete
    done: bool = False  # the stream's [DONE] has passed
    outcome: str = "internal_error"
    logged_prompt: str | None = None  # until the end, when the request is to be in the decision log

    def decided(self, decision: Decision) -> None:
        """Keep the decision, and the headers that explain it."""
        self.decision = decision
        self.explanation = decision_headers(decision)

    def fell_back(self, model: str, reason: str) -> None:
        """Note that another model is asked than the one that was decided on."""
        if self.decision is None:
            return
        chosen = self.decision.model if self.fallback is None else self.fallback.partition("->")[0]
        self.fallback = f"{chosen}->{model};reason={reason}"
        self.decided(replace(self.decision, model=model))
        self.explanation.append((b"x-router-fallback", self.fallback.encode("latin-1", "replace")))

    def asking(self) -> None:
        """Note that the request leaves for an upstream now; nothing is known of its answer yet."""
        now = perf_counter()
        if self.sent is not None:
            self.waited_s += now - self.sent
        self.sent, self.ttft_s, self.usage = now, None, None

    def heard_from_upstream(self) -> None:
        """Note that the upstream's answer, or the part of it that counts as the first token, is here."""
        self.silent = None
        if self.sent is not None:
            self.ttft_s = perf_counter() - self.sent

    def headers(self) -> HeaderList:
        """Return our headers and fix the overhead: the wait in line, and since the body came all but the upstream's."""
        now = perf_counter()
        waited = self.ttft_s
        if waited is None:  # an upstream that was asked and never answered gives no TTFT; the wait was still not ours
            waited = now - self.sent if self.sent is not None else 0.0
        self.overhead_s = self.queued_s + now - self.started - self.waited_s - waited
        overhead = b"%.3f" % (self.overhead_s * 1000)
        return [(b"x-request-id", self.request_id), *self.explanation, (b"x-router-overhead-ms", overhead)]


def decision_headers(decision: Decision) -> HeaderList:
    """Return a decision as headers; what does not apply says `none`."""
    source = decision.source
    if decision.fallback_reason:
        source = f"fallback;reason={decision.fallback_reason}"
    score = b"none" if decision.score is None else b"%.4f" % decision.score
    version = decision.classifier_version or "none"
    return [
        *_named(decision.model, decision.policy, decision.reason, source, version, decision.label),
        (b"x-router-score", score),
    ]


@lru_cache(maxsize=1024)  # of names that the configuration bounds: few, and the same for most requests
def _named(model: str, policy: str, reason: str, source: str, version: str, label: str) -> HeaderList:
    pairs = (
        ("x-router-model", model),
        ("x-router-policy", policy),
        ("x-router-reason", reason),
        ("x-router-decision", source),
        ("x-router-classifier-version", version),
        ("x-chosen-classifier", label),
    )
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in pairs]
