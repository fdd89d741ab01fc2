"""Check the classifier on a GPU: right numbers, rows per second, latency, utilisation, energy, dollars.

    python -m loadtest.gpu_check --triton HOST:8001 --metrics http://HOST:8002/metrics [--json FILE]

Needs a Triton with explicit model control that serves prompt_classifier: each setting of the sweep is a reload, and at
the end the model has its own configuration back. Don't run it under live traffic. Without --triton it starts the local
one on the CPU, which tries the check itself. The last line on stdout is one JSON document; docs/gpu.md tells how to
read it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritonclient.utils import InferenceServerException

from loadtest.bench_classifier import load_scorer
from loadtest.gpu_check.compare import Comparison, compare, eager_times, mixed_batches
from loadtest.gpu_check.figures import Measured, Parity, Sweep, best, dollars_per_1k, parity, problems
from loadtest.gpu_check.served import MODEL, Address, Served, rows_of
from loadtest.local_triton import MODELS, LocalTriton, LocalTritonError
from loadtest.stack import SettingError, classifier_config

PARITY_LENGTHS = (4, 16, 17, 60, 128, 200, 400, 512)
PARITY_ROWS = 8  # of each length
TRAIN_PYTHON = Path(".venv-train/bin/python")
Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print; return 0, or 1 when the check failed or could not run."""
    options = _parser().parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        with contextlib.ExitStack() as running:
            address = _address(options, running, say)
            document = check(running.enter_context(Served(address)), options, say)
    except (InferenceServerException, LocalTritonError, SettingError, OSError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    print(report(document))
    print(json.dumps(document))
    return 1 if document["problems"] else 0


def check(served: Served, options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Run the whole check; return the JSON document."""
    version, nodes = served.version, served.nodes()
    say(f"{MODEL} version {version}, {served.kind}, nodes by provider: {nodes}")
    compared = check_parity(served, options.models / MODEL / version, options.tolerance)
    say(f"greatest difference from the CPU over {compared.prompts} prompts: {compared.max_difference}")
    batches = mixed_batches()
    rate = served.rate_of(batches, options.seconds)
    eager = eager_times(options.train_python, batches, options.seconds, say)
    comparison = compare(rate, eager)
    measured = run_sweep(served, _sweep(options), options.seconds, options.dollars_per_hour, say)
    return {
        "check": "gpu",
        "gpu": gpu_name(),
        "kind": served.kind,
        "version": version,
        "nodes_by_provider": nodes,
        "dollars_per_hour": options.dollars_per_hour,
        "seconds_per_point": options.seconds,
        "parity": asdict(compared),
        "mixed_traffic": asdict(comparison),
        "mixed_traffic_dollars_per_1k": dollars_per_1k(rate, options.dollars_per_hour),
        "sweep": [asdict(one) for one in measured],
        "problems": problems(served.kind, nodes, compared),
    }


def check_parity(served: Served, version_dir: Path, tolerance: float) -> Parity:
    """Compare with the same version on this machine's CPU, its weights as they are."""
    prompts = [row for tokens in PARITY_LENGTHS for row in rows_of(tokens, PARITY_ROWS, seed=1)]
    expected = load_scorer(version_dir).score(prompts).outcome
    return parity(served.outcome(prompts), expected, tolerance)


def run_sweep(served: Served, sweep: Sweep, seconds: float, dollars_per_hour: float, say: Say) -> list[Measured]:
    """Measure every point under every setting."""
    measured = []
    for setting in sweep.settings():
        say(f"loading the model with {setting.instances} instances, queue delay {setting.queue_delay_us} us")
        served.apply(setting)
        for point in sweep.points(setting):
            one = served.measure(point, seconds, dollars_per_hour)
            say(f"  {point.batch} rows of {point.tokens} tokens: {one.rows_per_s:,.0f} rows/s, p99 {one.p99_ms:.1f} ms")
            measured.append(one)
    return measured


def report(document: dict[str, Any]) -> str:
    """Return the figures as text: the best setting for each length, then the comparison."""
    measured = [Measured(**one) for one in document["sweep"]]
    lines = [
        f"{document['gpu'] or 'no GPU'}, {document['kind']}, version {document['version']}; the best of each length:",
        f"{'tokens':>7}{'batch':>7}{'instances':>11}{'delay us':>10}{'rows/s':>11}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'GPU':>6}{'J / 1k':>9}{'$ / 1k':>12}",
    ]
    for tokens in sorted({one.tokens for one in measured}):
        if one := best(measured, tokens):
            gpu = "-" if one.gpu_utilisation is None else f"{one.gpu_utilisation:.0%}"
            joules = "-" if one.joules_per_1k is None else f"{one.joules_per_1k:.1f}"
            lines.append(
                f"{tokens:>7}{one.batch:>7}{one.instances:>11}{one.queue_delay_us:>10}{one.rows_per_s:>11,.0f}"
                f"{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{gpu:>6}{joules:>9}{one.dollars_per_1k:>12.8f}"
            )
    comparison = Comparison(**document["mixed_traffic"])
    lines.append(f"mixed lengths, batches of 32: {comparison.served_rows_per_s:,.0f} rows/s served")
    for name, rate, times in (
        ("PyTorch eager, padded to the longest", comparison.eager_rows_per_s, comparison.times_eager),
        ("PyTorch eager, padded to 512", comparison.padded_rows_per_s, comparison.times_padded),
    ):
        lines.append(
            f"  {name}: " + ("not measured" if rate is None else f"{rate:,.0f} rows/s; served is {times} times")
        )
    compared = document["parity"]
    lines.append(f"parity with the CPU: {compared['max_difference']} at most, allowed {compared['tolerance']}")
    return "\n".join([*lines, *(f"FAILED: {problem}" for problem in document["problems"])])


def gpu_name() -> str | None:
    """Return the first GPU's name, if nvidia-smi knows one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return names[0].strip() if names else None


def _address(options: argparse.Namespace, running: contextlib.ExitStack, say: Say) -> Address:
    if options.triton:
        key = options.admin_key_file.read_text().strip() if options.admin_key_file else None
        return Address(options.triton, options.metrics, key)
    run_dir = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="gpu-check-")))
    config = classifier_config(os.environ)
    triton = running.enter_context(LocalTriton.start(run_dir, models=options.models, config=config, on_progress=say))
    return Address(triton.grpc_url, triton.metrics_url)


def _sweep(options: argparse.Namespace) -> Sweep:
    return Sweep(tuple(options.batch), tuple(options.tokens), tuple(options.instances), tuple(options.queue_delay_us))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triton", help="gRPC address of a running Triton, HOST:PORT (default: a local one, CPU)")
    parser.add_argument("--metrics", default="http://127.0.0.1:8002/metrics", help="its metrics page (%(default)s)")
    parser.add_argument("--admin-key-file", type=Path, help="the key of its model control, where it wants one")
    parser.add_argument("--models", type=Path, default=MODELS, help="the repository that it serves (%(default)s)")
    default = Sweep()
    for flag, values in (
        ("--batch", default.batches),
        ("--tokens", default.tokens),
        ("--instances", default.instances),
        ("--queue-delay-us", default.queue_delays_us),
    ):
        parser.add_argument(flag, type=int, nargs="+", default=values, help="values to sweep (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of an outcome probability (%(default)s)")
    parser.add_argument("--dollars-per-hour", type=float, default=0.70, help="of this machine (%(default)s)")
    parser.add_argument(
        "--train-python", type=Path, default=TRAIN_PYTHON, help="a Python with torch, for the comparison (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the document to this file too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
