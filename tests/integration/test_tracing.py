"""Spans reach an OTLP collector, hang together, continue the caller's trace and hold no prompt."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loadtest.local_triton import LocalTriton
from loadtest.simulated_llm import simulated_llm
from tests.integration.router_process import CANARY, RouterProcess, chat_body, tiers

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        payloads = self.payloads

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                payloads.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> dict[str, Span]:
        """Return the spans of the one request by name."""
        found: dict[str, Span] = {}
        for payload in self.payloads:
            for resource in ExportTraceServiceRequest.FromString(payload).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        assert span.name not in found
                        found[span.name] = span
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    thread = Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


def test_a_request_is_one_trace_from_the_caller_to_the_upstream(
    triton: LocalTriton, collector: Collector, tmp_path: Path
) -> None:
    with simulated_llm("cheap-sim") as llm:
        price = {"input": 1, "output": 1}
        model = {"api_base": llm.base_url, "model": "cheap-sim", "price": price}
        config = {
            "triton": {"url": triton.grpc_url, "deadline_ms": 5000},
            "tracing": {"otlp_endpoint": collector.url},
            "models": {"cheap": model, "dear": model},
            "policies": {"default": tiers("cheap", "dear", start=1)},
        }
        router = RouterProcess.start(config, tmp_path)
        answer = router.post(chat_body(f"What is it? {CANARY}"), headers={"traceparent": CALLER})
        assert answer.status == 200
        seen = dict(llm.requests()[-1].headers)
        metrics = router.get("/metrics", {"accept": "application/openmetrics-text; version=1.0.0"}).body.decode()
        router.stop()

    spans = collector.spans()
    assert set(spans) == {"request", "decide", "classify", "upstream"}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    assert spans["request"].parent_span_id.hex() == CALLER.split("-")[2]
    assert spans["decide"].parent_span_id == spans["upstream"].parent_span_id == spans["request"].span_id
    assert spans["classify"].parent_span_id == spans["decide"].span_id
    assert seen["traceparent"] == f"00-{TRACE_ID}-{spans['upstream'].span_id.hex()}-01"
    assert CANARY.encode() not in b"".join(collector.payloads)
    exemplars = [line for line in metrics.splitlines() if f'# {{trace_id="{TRACE_ID}"}}' in line]
    assert any(line.startswith("llm_router_overhead_seconds_bucket") for line in exemplars)
