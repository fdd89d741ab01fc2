"""Traces with OpenTelemetry, when an OTLP endpoint is configured: request → decide → classify → upstream.

A batch serves several requests and has one parent: its `classify` span hangs under the request that opened its
window. Without an endpoint no span is made, and OpenTelemetry need not be installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from router import __version__
from router.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

R = TypeVar("R")

_OFF: AbstractContextManager[None] = nullcontext()
_PROPAGATED = (b"traceparent", b"tracestate")
# An exception's message could quote a prompt or a key; what went wrong is told by attributes.
_NO_MESSAGES: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}


class Tracing:
    """Opens spans with `provider`, or none without one."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("llm-router", __version__) if provider is not None else None

    @classmethod
    def to(cls, otlp_endpoint: str | None) -> Tracing:
        """Send spans to an OTLP/HTTP endpoint such as http://collector:4318, none without one.

        Raises ConfigurationError when OpenTelemetry is not installed.
        """
        if otlp_endpoint is None:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                [f"tracing.otlp_endpoint is set, but {error.name} is not installed: pip install 'llm-router[tracing]'"]
            ) from None
        provider = TracerProvider(resource=Resource.create({"service.name": "llm-router"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{otlp_endpoint.rstrip('/')}/v1/traces")))
        return cls(provider)

    def request(self, headers: Sequence[tuple[bytes, bytes]]) -> AbstractContextManager[object]:
        """Open the span of one request, under the caller's when its `traceparent` names one."""
        if self._tracer is None:
            return _OFF
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PROPAGATED}
        return self._tracer.start_as_current_span("request", extract(carrier), SpanKind.SERVER, **_NO_MESSAGES)

    def span(self, name: str, **attributes: str | int) -> AbstractContextManager[object]:
        """Open a span under the current one."""
        if self._tracer is None:
            return _OFF
        return self._tracer.start_as_current_span(name, attributes=attributes, **_NO_MESSAGES)

    def describe(self, **attributes: str | int | float) -> None:
        """Add to the current span what became known."""
        if self._tracer is not None:
            from opentelemetry.trace import get_current_span

            get_current_span().set_attributes(attributes)

    def trace_id(self) -> str | None:
        """Return the current trace's id when it is recorded, for exemplars."""
        if self._tracer is None:
            return None
        from opentelemetry.trace import format_trace_id, get_current_span

        context = get_current_span().get_span_context()
        return format_trace_id(context.trace_id) if context.trace_flags.sampled else None

    def onward(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Return the headers with the current span as the parent of what the upstream does."""
        if self._tracer is None:
            return headers
        from opentelemetry.propagate import inject

        carrier: dict[str, str] = {}
        inject(carrier)
        kept = [(name, value) for name, value in headers if name not in _PROPAGATED]
        return [*kept, *((name.encode(), value.encode()) for name, value in carrier.items())]

    def around_batches(
        self, send: Callable[[Sequence[str]], Awaitable[Sequence[R]]]
    ) -> Callable[[Sequence[str]], Awaitable[Sequence[R]]]:
        """Return `send` with a span around each call, or itself."""
        if self._tracer is None:
            return send

        async def traced(texts: Sequence[str]) -> Sequence[R]:
            with self.span("classify", rows=len(texts)):
                return await send(texts)

        return traced

    def close(self) -> None:
        """Send what is still held back."""
        if self._provider is not None:
            self._provider.shutdown()
