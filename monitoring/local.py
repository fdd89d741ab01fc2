"""Run a real Prometheus with this project's configuration against the stack of `make serve`. Ctrl-C stops it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from monitoring.prometheus_server import HOST, PrometheusError, render, serve_command

RETENTION = "7d"
# The variable that moves each part, and where the part is without it.
PORTS = {
    "ADMIN_PORT": ("router-controller-metrics", 8085),
    "TRITON_METRICS_PORT": ("router-server-metrics", 8002),
    "EXPORTER_PORT": ("locust", 4000),
    "DCGM_PORT": ("dcgm", 9400),
}
PROMETHEUS_PORT = 9090
_DEFAULT_RUN_DIR = Path(__file__).parents[1] / ".run" / "prometheus"


def main(arguments: list[str] | None = None) -> int:
    """Become Prometheus; return 1 when that cannot be."""
    run_dir = _parser().parse_args(arguments).run_dir.resolve()
    try:
        targets = {job: f"{HOST}:{_port(os.environ, name, default)}" for name, (job, default) in PORTS.items()}
        port = _port(os.environ, "PROMETHEUS_PORT", PROMETHEUS_PORT)
        config = run_dir / "prometheus.yml"
        command = serve_command(config, run_dir / "data", port, retention=RETENTION)
    except PrometheusError as error:
        print(f"metrics: {error}", file=sys.stderr)
        return 1
    run_dir.mkdir(parents=True, exist_ok=True)
    config.write_text(render(targets))
    print(_welcome(port, targets, run_dir), flush=True)
    return os.execv(command[0], command)  # noqa: S606 - Prometheus takes our place and our Ctrl-C; no shell is wanted


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise PrometheusError(f"{name}={text!r} is not a port: a number from 1 to 65535")


def _welcome(port: int, targets: Mapping[str, str], run_dir: Path) -> str:
    scraped = "\n".join(f"  {job:<28}{address}" for job, address in targets.items())
    return (
        f"Prometheus on http://{HOST}:{port}\n"
        f"  targets                     http://{HOST}:{port}/targets\n"
        f"  alerts                      http://{HOST}:{port}/alerts\n"
        f"  data, kept for {RETENTION:<13}{run_dir}\n"
        f"It scrapes, as soon as they are there:\n{scraped}\n"
        "Start the stack with `make serve`. Ctrl-C stops Prometheus."
    )


def _parser() -> argparse.ArgumentParser:
    variables = {"PROMETHEUS_PORT": PROMETHEUS_PORT, **{name: default for name, (_, default) in PORTS.items()}}
    listed = "\n".join(f"  {name:<22} {default}" for name, default in variables.items())
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.local",
        description=__doc__,
        epilog=f"ports on {HOST}, changed by environment variables:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--run-dir", type=Path, default=_DEFAULT_RUN_DIR, help="for configuration and data (default: .run/prometheus)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
