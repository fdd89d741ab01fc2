"""A fake of Triton's metrics port: what it says with a GPU, on machines that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

PAGE = """\
# TYPE nv_inference_count counter
nv_inference_count{model="prompt_classifier",version="1"} 70
nv_inference_count{model="prompt_classifier",version="2"} 30
nv_inference_count{model="other",version="1"} 5
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="prompt_classifier",version="1"} 20
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="prompt_classifier",reason="REJECTED",version="1"} 2
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="prompt_classifier",version="1"} 4
"""
GPU_PAGE = """\
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 85899345920
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 21474836480
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="GPU-1"} 300
"""


@contextmanager
def fake_metrics(status: int, body: bytes) -> Iterator[tuple[str, Callable[[], int]]]:
    """Serve one body; yields its URL and how often it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics", lambda: len(asked)
        finally:
            server.shutdown()
            thread.join()
