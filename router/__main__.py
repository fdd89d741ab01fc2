"""The router's command line: serve, check-config, classify, new-key."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from router.errors import ClassifierError, ConfigurationError
from router.settings import Settings, load_settings

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (0 done, 1 failed with the reason on stderr, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the router", description=run_serve.__doc__)
    _add_config_option(serve)
    serve.add_argument("--host", help="listen here instead of server.host")
    serve.add_argument("--port", type=int, help="listen here instead of server.port")
    serve.add_argument("--admin-port", type=int, help="show the dashboard here instead of at admin.port")
    serve.add_argument("--workers", type=int, help="processes instead of server.workers")
    serve.set_defaults(run=run_serve)

    check = commands.add_parser("check-config", help="say what a configuration means, or what is wrong with it")
    check.add_argument("file", type=Path, help="a router.yaml, or NVIDIA v1's config.yaml")
    check.set_defaults(run=run_check_config)

    classify = commands.add_parser("classify", help="score prompts", description=run_classify.__doc__)
    _add_config_option(classify)
    classify.add_argument("input", type=Path, nargs="?", help="one prompt a line (default: standard input)")
    classify.set_defaults(run=run_classify)

    key = commands.add_parser("new-key", help="make a key for a client", description=run_new_key.__doc__)
    key.set_defaults(run=run_new_key)

    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    except ClassifierError as error:
        print(f"{error} Is Triton running there? It is `triton.url` in the configuration.", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # `classify | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130


def _add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("LLM_ROUTER_CONFIG", "router.yaml")),
        help="the configuration (default: $LLM_ROUTER_CONFIG, else router.yaml)",
    )


def run_check_config(arguments: argparse.Namespace) -> int:
    """Print the configuration's meaning, or every problem with file and line."""
    from router.check_config import check, print_report

    return print_report(check(arguments.file, os.environ))


def run_new_key(_: argparse.Namespace) -> int:
    """Make a key for a client, and the line by which the configuration knows it. Nothing keeps the key itself."""
    from router.clients.keys import digest_of, new_key

    key = new_key()
    print(f"For the client; it is not shown again:\n\n  {key}\n")
    print(f"For the configuration, under clients and a name:\n\n  key_sha256: {digest_of(key)}")
    return EXIT_OK


def run_serve(arguments: argparse.Namespace) -> int:
    """Run the router until SIGTERM or Ctrl-C. A configuration that cannot work stops the start with one message."""
    load = partial(load_settings, arguments.config.absolute(), dict(os.environ))
    written = load()
    settings = _with_options(written, arguments)
    with _shared_directory(settings.server.workers) as shared:
        # Imported late: prometheus_client looks for the workers' shared directory when it is imported.
        from router.server import log_to_stderr, serve

        log_to_stderr(settings)
        return serve(settings, written, load, shared)


def _with_options(settings: Settings, arguments: argparse.Namespace) -> Settings:
    given = {name: getattr(arguments, name) for name in ("host", "port", "workers")}
    server = dataclasses.replace(settings.server, **{name: value for name, value in given.items() if value is not None})
    if not 1 <= server.workers <= 64 or not 0 <= server.port <= 65535:
        raise ConfigurationError([f"--workers {server.workers}, --port {server.port}: 1 to 64, and 0 to 65535."])
    admin = settings.admin
    if arguments.admin_port is not None:
        admin = dataclasses.replace(admin, port=arguments.admin_port)
    if not 0 <= admin.port <= 65535 or (admin.enabled and server.port == admin.port != 0):
        raise ConfigurationError([f"--port {server.port}, --admin-port {admin.port}: two different ports up to 65535."])
    return dataclasses.replace(settings, server=server, admin=admin)


@contextmanager
def _shared_directory(workers: int) -> Iterator[Path]:
    """Give all workers one directory, gone at the end; when there are several, another below it for their metrics."""
    with tempfile.TemporaryDirectory(prefix="llm-router-") as directory:
        if workers > 1:
            metrics = Path(directory, "metrics")
            metrics.mkdir()
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        yield Path(directory)


def _read_prompts(file: Path | None) -> list[str]:
    """Return the lines that are not blank, of standard input when `file` is None."""
    try:
        text = (file.read_bytes() if file else sys.stdin.buffer.read()).decode()
    except OSError as error:
        raise ConfigurationError([f"{file}: {error.strerror}; give a text file with one prompt a line."]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{file or 'standard input'}: byte {error.start} is not UTF-8."]) from None
    return [line for line in text.splitlines() if line.strip()]


def run_classify(arguments: argparse.Namespace) -> int:
    """Score prompts with the served classifier: one prompt a line in, one JSON object a line out, in order."""
    from router.app import triton_connection
    from router.decide.triton import TritonClassifier

    settings = load_settings(arguments.config, os.environ)
    prompts = _read_prompts(arguments.input)

    async def run() -> int:
        failed = 0
        async with triton_connection(settings) as triton:
            classifier = TritonClassifier(triton, settings.triton.model)
            size = settings.triton.max_batch_size
            for start in range(0, len(prompts), size):
                batch = prompts[start : start + size]
                for prompt, result in zip(batch, await classifier.classify(batch), strict=True):
                    if isinstance(result, ClassifierError):
                        failed += 1
                        print(json.dumps({"prompt": prompt, "error": result.reason}))
                    else:
                        print(json.dumps({"prompt": prompt, **result.described(), "version": result.version}))
                done = min(start + size, len(prompts))
                print(f"\rclassified {done}/{len(prompts)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return EXIT_FAILED if failed else EXIT_OK

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
