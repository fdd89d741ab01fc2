"""Run one simulated LLM in the foreground; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from typing import get_type_hints

import uvicorn

from loadtest.processes import PortTakenError, listen
from loadtest.simulated_llm.answer import Profile
from loadtest.simulated_llm.app import Settings, SimulatedLLMApp
from loadtest.simulated_llm.faults import HELP, Fault, FaultSyntaxError, parse_fault

_PROFILE_HELP = {
    "ttft_ms": "median milliseconds to the first token",
    "ttft_sigma": "spread of the first token's time (sigma of a lognormal; 0: always the median)",
    "tokens_per_s": "median tokens per second (0: no pause)",
    "tokens_per_s_sigma": "spread of the tokens per second",
    "answer_tokens": "median length of an answer in tokens",
    "answer_sigma": "spread of the answers' lengths",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; return the exit code."""
    options = _parser().parse_args(arguments)
    settings = Settings(
        name=options.name,
        profile=Profile(**{name: getattr(options, name) for name in _PROFILE_HELP}),
        api_key=options.api_key,
        any_model=options.any_model,
        fault=options.fault,
        keep_requests=options.keep_requests,
    )
    try:
        inherited = options.fd is not None
        listener = socket.socket(fileno=options.fd) if inherited else listen(options.port, "--port", options.host)
    except PortTakenError as error:
        print(error, file=sys.stderr)
        return 1
    host, port = listener.getsockname()[:2]
    print(f"{settings.name}: a simulated LLM at http://{host}:{port}/v1", flush=True)
    serve(SimulatedLLMApp(settings), listener)
    return 0


def serve(app: SimulatedLLMApp, listener: socket.socket) -> None:
    """Serve `app` on a listening socket until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="critical",  # a socket closed on purpose is not an error to report
        timeout_graceful_shutdown=1,
        backlog=1024,
        server_header=False,
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
        server.run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.simulated_llm",
        description="An OpenAI-compatible server with realistic timing and no model behind it.",
        epilog=f"faults, joined by ';' (--fault, header x-simulated-fault, PUT /_simulated/fault):\n\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="the model's name; say that it is simulated")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=9101, help="0 takes a free one (default 9101)")
    parser.add_argument("--fd", type=int, help="serve on this inherited listening socket instead of --port")
    parser.add_argument("--api-key", help="refuse requests without this key")
    parser.add_argument("--any-model", action="store_true", help="answer for every model name, not only --name")
    parser.add_argument("--fault", type=_fault, default=Fault(), metavar="FAULT", help="misbehave, see below")
    parser.add_argument(
        "--keep-requests",
        type=int,
        default=32,
        help="requests shown by GET /_simulated/requests (default 32)",
    )
    for name, kind in get_type_hints(Profile).items():
        default = Profile.__dataclass_fields__[name].default
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, type=kind, default=default, metavar="X", help=f"{_PROFILE_HELP[name]} (default {default:g})"
        )
    return parser


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except FaultSyntaxError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
