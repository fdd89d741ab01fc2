"""Every error of the router, and what a client sees of it.

RouterError
├── ConfigurationError         400  stops the start, or a reload; only the admin listener shows it
├── Overloaded                 503  refused before its body was read; nothing is wrong with it
├── Stopping                   503  cut off because the router stops
├── ClientError                     the request is at fault (4xx)
│   ├── MalformedRequest            400  not HTTP, or readable in two ways
│   ├── InvalidJSON                 400  the body is not strict JSON
│   ├── InvalidRequest              400  a field is missing, of a wrong type, or conflicts with another
│   ├── ContextLengthExceeded       400  no model that may answer holds so many tokens
│   ├── UnsupportedCapability       400  no model that may answer can do what the request asks for
│   ├── InvalidAPIKey               401  no key, or none of a configured client
│   ├── NotAllowed                       the key is good, but not for this
│   │   ├── PolicyNotAllowed        403  the client may not use this policy
│   │   ├── ModelNotAllowed         403  the client may not name this model
│   │   ├── OperatorsOnly           403  the page is on the admin listener only
│   │   └── ForeignSite             403  another site's page asks the admin listener to do something
│   ├── PolicyNotFound              404  no policy has that name
│   ├── ModelNotFound               404  neither a policy nor a model has that name
│   ├── HeadTimeout                 408  the request's head came too slowly
│   ├── BodyTimeout                 408  the body came too slowly
│   ├── BodyTooLarge                413  the body is over `server.max_body_bytes`
│   ├── UnsupportedMediaType        415  not JSON, or compressed
│   ├── RateLimited                 429  the client has sent as many requests as its `rate` allows
│   ├── BudgetSpent                 429  the client has spent its `budget_per_day`
│   └── HeadTooLarge                431  the request's head has no end
├── ClassifierError                 no usable score: the default model answers, or 503 by `triton.on_failure: reject`
└── UpstreamError                   no model that may answer did (502, 503, 504, or the model's own status)
    ├── UpstreamRefused             the status and error that the model answered with
    ├── UpstreamRateLimited         429  every server of the model asked for a pause
    ├── UpstreamUnavailable         503  every server of the model keeps failing; none is asked for a while
    ├── UpstreamConnect             502  refused, unreachable, DNS, TLS
    ├── UpstreamTimeout             504  silence for longer than the model's `timeouts` allow
    │   └── UpstreamTTFTTimeout     504  no first byte in time
    └── UpstreamProtocol            502  cut short, oversized, or not what HTTP or SSE allow
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar


class RouterError(Exception):
    """An error with an HTTP status, and OpenAI's `type` and `code`; `str()` is safe to show to a client.

    `closes_connection`: what the client still sends is not worth waiting for.
    """

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    closes_connection: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that belong to the body: its type, and when to come again."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        return headers

    def body(self) -> bytes:
        """Return OpenAI's error object, with the `status` that clients of NVIDIA's router read, as JSON."""
        return error_body(str(self), self.status, self.type, self.code, self.param)


def error_body(message: str, status: int, type_: str, code: str, param: str | None = None) -> bytes:
    """Return `{"error": {message, type, param, code, status}}` as JSON bytes."""
    error = {"message": message, "type": type_, "param": param, "code": code, "status": status}
    return json.dumps({"error": error}).encode()


class ConfigurationError(RouterError):
    """The configuration is unusable; `problems` has one sentence each, with file and line where there is one."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_configuration"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Overloaded(RouterError):
    """The router has as much to do as it can answer in time."""

    status = 503
    code = "overloaded"


class Stopping(RouterError):
    """The router stops, and the request was not over when its patience was."""

    status = 503
    code = "stopping"


class ClientError(RouterError):
    """The client can mend this request."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class MalformedRequest(ClientError):
    """What came over the connection is not an HTTP request."""

    code = "malformed_request"


class InvalidJSON(ClientError):
    """The body is not one strict JSON object: syntax, UTF-8, NaN, range, surrogates, depth or equal keys."""

    code = "invalid_json"


class InvalidRequest(ClientError):
    """A field is missing, has the wrong type, or contradicts another."""


class ContextLengthExceeded(ClientError):
    """The prompt, with the answer that it asks for, is longer than any model that may answer can hold."""

    code = "context_length_exceeded"


class UnsupportedCapability(ClientError):
    """The request asks for images, tools or a JSON schema, and no model that may answer is configured for it."""

    code = "unsupported_capability"


class InvalidAPIKey(ClientError):
    """The request has no key, or one that belongs to no client."""

    status = 401
    code = "invalid_api_key"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return also what HTTP wants to be said with a 401."""
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class NotAllowed(ClientError):
    """The client is known, and may not have what it asks for."""

    status = 403
    code = "not_allowed"


class PolicyNotAllowed(NotAllowed):
    """The policy is not among the client's `policies`."""

    code = "policy_not_allowed"


class ModelNotAllowed(NotAllowed):
    """The model is not among the client's `models`."""

    code = "model_not_allowed"


class OperatorsOnly(NotAllowed):
    """The page tells of all clients, so none of them sees it."""

    code = "operators_only"


class ForeignSite(NotAllowed):
    """A browser says that another site's page has sent this to the admin listener."""

    code = "foreign_site"


class PolicyNotFound(ClientError):
    """The request names a policy that is not configured."""

    status = 404
    code = "policy_not_found"


class ModelNotFound(ClientError):
    """The request names a model that is neither a policy nor a configured model."""

    status = 404
    code = "model_not_found"


class HeadTimeout(ClientError):
    """The client took too long to send its request's head."""

    status = 408
    code = "head_timeout"


class BodyTimeout(ClientError):
    """The client took longer than `server.body_timeout_s` to send its body."""

    status = 408
    code = "request_timeout"
    closes_connection = True

    @classmethod
    def after(cls, seconds: float) -> BodyTimeout:
        """Return the error for this limit."""
        return cls(f"The body did not arrive within {seconds:g} s.")


class BodyTooLarge(ClientError):
    """The body is larger than `server.max_body_bytes`; it was not read to its end."""

    status = 413
    code = "body_too_large"
    closes_connection = True


class UnsupportedMediaType(ClientError):
    """The body is not announced as JSON, or is compressed."""

    status = 415
    code = "unsupported_media_type"


class HeadTooLarge(ClientError):
    """The request's head is larger than any that a client has reason to send."""

    status = 431
    code = "head_too_large"


class RateLimited(ClientError):
    """The client has sent as many requests as it may; `retry_after_s` is when it may send the next."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"


class BudgetSpent(ClientError):
    """The client has spent what it may spend in a day. OpenAI's clients would retry any other 429."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return also the word by which OpenAI's clients leave off."""
        return [*super().headers(), (b"x-should-retry", b"false")]


class ClassifierError(RouterError):
    """The classifier gave no usable score. `reason` is a short label from `CLASSIFIER_FAILURES`."""

    status = 503
    code = "classifier_unavailable"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, retry_after_s=1)
        self.reason = reason


CLASSIFIER_FAILURES = (
    "unavailable",  # Triton cannot be reached
    "deadline",  # no answer within `triton.deadline_ms`
    "queue_full",  # `triton.max_waiting` prompts are waiting already, or Triton's own queue is full
    "not_found",  # the model is not loaded
    "unhealthy",  # Triton answers, the model does not (a dead python stub, an exception)
    "invalid_output",  # NaN, a wrong shape or a wrong count
    "contract",  # the served model lacks a label or a head that the policy needs
)


class UpstreamError(RouterError):
    """The model that was chosen did not give an answer."""

    status = 502
    code = "upstream_error"


class UpstreamRefused(UpstreamError):
    """The model answered with an error of its own, which is passed on when nobody else answers.

    `pause_s` is what its `Retry-After` asks for. `answer` is in OpenAI's shape.
    """

    def __init__(
        self,
        message: str,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        answer: bytes,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = "upstream_429" if status == 429 else f"upstream_{status // 100}xx"
        self.pause_s = pause_s
        self._headers = list(headers)
        self.answer = answer

    @property
    def is_failure(self) -> bool:
        """Whether the model is at fault, rather than the request or the rate of requests."""
        return self.status >= 500 or self.status in (408, 409)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the model's own headers, as far as they are for the client."""
        return self._headers

    def body(self) -> bytes:
        """Return the model's own error."""
        return self.answer


class UpstreamRateLimited(UpstreamError):
    """The model has asked for a pause which is not over."""

    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"


class UpstreamUnavailable(UpstreamError):
    """The model has failed so often that it is left alone for a moment."""

    status = 503
    code = "upstream_unavailable"


class UpstreamConnect(UpstreamError):
    """No connection to the upstream: refused, unreachable, DNS or TLS."""

    code = "upstream_connect"


class UpstreamTimeout(UpstreamError):
    """The upstream was silent for longer than the model's `timeouts` allow."""

    status = 504
    code = "upstream_timeout"

    @classmethod
    def after(cls, model: str, seconds: float) -> UpstreamTimeout:
        """Return the error for a whole answer's limit."""
        return cls(f"Model '{model}' took longer than {seconds:g} s.")


class UpstreamTTFTTimeout(UpstreamTimeout):
    """No first byte within `timeouts.first_byte_s`."""

    code = "upstream_ttft_timeout"


class UpstreamProtocol(UpstreamError):
    """The upstream's answer was cut short, too large, or malformed."""

    code = "upstream_protocol"


def without_values(error: Exception) -> str:
    """Name an exception and the line that raised it; its message could hold a prompt or a key."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    return f"{type(error).__name__} at {where}"
