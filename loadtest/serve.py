"""Bring the whole stack up and keep it: real Triton, two simulated LLMs, the router. Ctrl-C stops it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import fields
from pathlib import Path

from loadtest.processes import interrupt_on_sigterm
from loadtest.scrape import Page
from loadtest.stack import CHEAP, EXPENSIVE, REPOSITORY, Ports, Stack, StartError, running_stack

_LOOK_S = 0.5
_LINE_EVERY_S = 10.0

_CURL = """\
  curl -i {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
"""
_SNIPPET = 'OpenAI(base_url="{url}/v1", api_key="none").chat.completions.create(model="auto", messages=[...])'


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C (0) or until a part dies (1)."""
    options = _parser().parse_args(arguments)
    interrupt_on_sigterm()
    try:
        ports = Ports.from_environment(os.environ)
        run_dir = options.run_dir or REPOSITORY / ".run" / f"serve-{ports.router_port}"
        with running_stack(run_dir, ports, lambda line: print(line, flush=True)) as stack:
            print(_welcome(stack, str(run_dir)), flush=True)
            failure = _watch(stack)
    except KeyboardInterrupt:
        print("\nstopped: the router, both simulated LLMs and Triton have ended", flush=True)
        return 0
    except StartError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    print(f"\nserve: {failure}\nserve: stopped the other parts", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    variables = "\n".join(f"  {field.name.upper():<20} {field.default}" for field in fields(Ports))
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.serve",
        description=__doc__,
        epilog=f"ports on 127.0.0.1, changed by environment variables (0 takes a free one):\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, help="for logs and working files (default: .run/serve-PORT)")
    return parser


def _welcome(stack: Stack, run_dir: str) -> str:
    rows = [
        ("router", f"{stack.router_url}/v1", f"docs at {stack.router_url}/docs"),
        ("router metrics", f"{stack.router_url}/metrics", ""),
        ("dashboard", f"{stack.admin_url}/dashboard", "open this in a browser"),
        ("Triton", stack.triton.http_url, f"gRPC {stack.triton.grpc_url}, real, on this CPU"),
        ("Triton metrics", stack.triton.metrics_url, ""),
        (CHEAP, stack.cheap.base_url, "simulated"),
        (EXPENSIVE, stack.expensive.base_url, "simulated"),
        ("logs", run_dir, ""),
    ]
    addresses = "\n".join(f"  {name:<15} {address:<32} {note}".rstrip() for name, address, note in rows)
    curl, snippet = _CURL.format(url=stack.router_url), _SNIPPET.format(url=stack.router_url)
    return f"\nReady.\n{addresses}\n\nTry it:\n{curl}\n  {snippet}\n\nCtrl-C stops everything.\n"


def _watch(stack: Stack) -> str:
    """Show the status until a part dies; return what happened."""
    live = sys.stdout.isatty()
    next_line = 0.0
    while True:
        failure = stack.failure()
        if failure is not None:
            return failure
        if live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{_status(stack)[:width]}", end="", flush=True)
        elif time.monotonic() >= next_line:
            print(_status(stack), flush=True)
            next_line = time.monotonic() + _LINE_EVERY_S
        time.sleep(_LOOK_S)


def _status(stack: Stack) -> str:
    try:
        page = Page.get(f"{stack.router_url}/metrics")
    except (OSError, ValueError) as error:
        return f"{time.strftime('%H:%M:%S')}  the router's metrics cannot be read: {error}"
    return f"{time.strftime('%H:%M:%S')}  {describe(page)}"


def describe(page: Page) -> str:
    """Return one line about the router's traffic since it started."""
    requests = page.total("llm_router_requests_total")
    cheap = page.total("llm_router_requests_total", model=CHEAP)
    in_flight = page.total("llm_router_in_flight_requests")
    p50, p95 = (page.quantile("llm_router_overhead_seconds", q) for q in (0.5, 0.95))
    if not requests or p50 is None or p95 is None:
        return f"no request answered yet · {in_flight:.0f} in flight"
    return (
        f"{requests:,.0f} request{'s' * (requests != 1)} · {cheap / requests:.0%} to {CHEAP} · "
        f"overhead p50 {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms · {in_flight:.0f} in flight"
    )


if __name__ == "__main__":
    sys.exit(main())
