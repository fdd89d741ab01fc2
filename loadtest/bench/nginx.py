"""nginx in two roles: the upstream that answers every request at once, and a reverse proxy as the floor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from loadtest.processes import Child, free_port, responds

ANSWER = "Paris is the capital of France."
"""What the upstream's completion says; whoever passes it on must not lose it."""

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}

_FRAME = """
worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {run}/pid; error_log {run}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; client_max_body_size 64m;
  client_body_buffer_size 8m;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  {servers}
}}
"""
_UPSTREAM = """
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{completion}'; }} }}
"""
_PROXY = """
  upstream llm {{ server {upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location = /bench/ready {{ return 200; }}
    location / {{ proxy_pass http://llm; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; }} }}
"""


def missing() -> str | None:
    """Return what to install when nginx is not there."""
    return None if _binary() else "nginx is not installed: apt install nginx-light"


def _binary() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def start_upstream(run_dir: Path) -> tuple[Child, int]:
    """Start the simulated LLM: one completion for every request. Returns its process and its port."""
    port = free_port()
    return _start("upstream", run_dir, port, _UPSTREAM.format(port=port, completion=json.dumps(COMPLETION))), port


def start_proxy(run_dir: Path, upstream_port: int) -> tuple[Child, int]:
    """Start the reverse proxy in front of a port. Returns its process and its port."""
    port = free_port()
    servers = _PROXY.format(port=port, upstream=f"127.0.0.1:{upstream_port}")
    return _start("nginx", run_dir, port, servers), port


def _start(name: str, run_dir: Path, port: int, servers: str) -> Child:
    run_dir.mkdir(parents=True, exist_ok=True)  # the section before may have had one here
    config = run_dir / "nginx.conf"
    config.write_text(_FRAME.format(run=run_dir, servers=servers))
    command = [_binary() or "nginx", "-p", str(run_dir), "-e", str(run_dir / "error.log"), "-c", str(config)]
    child = Child.start(name, command, log_path=run_dir / "log")
    try:
        child.wait_until(lambda: responds(f"http://127.0.0.1:{port}/bench/ready"), deadline_s=10)
    except BaseException:
        child.stop()
        raise
    return child
