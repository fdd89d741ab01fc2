"""promote and rollback: which version of the classifier a running Triton and its routers serve."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from classifier.canary import Limits
from classifier.command import Add, number_from, progress_on_stderr
from classifier.errors import ClassifierError, PromotionError
from classifier.gate import Verdict, compare, lost_heads
from classifier.promote import Plan, Progress, Routers, Triton, promote, rollback, serving_version
from classifier.repository import Repository
from classifier.scored import scored_by_version

HISTORY = "promotions.jsonl"


def add_commands(add: Add) -> None:
    """Add the commands to the command line."""
    promoting = add("promote", promote_command)
    promoting.add_argument("--candidate", type=Path, required=True, help="version directory, as `export` writes it")
    _add_place(promoting)
    promoting.add_argument("--data", type=Path, nargs="+", required=True, help="held-out outcomes: files")
    promoting.add_argument("--triton", default="127.0.0.1:8001", help="Triton's gRPC listener")
    promoting.add_argument("--admin-key-file", type=Path, help="the key of Triton's model control, where it wants one")
    promoting.add_argument(
        "--steps", type=_percent, nargs="+", default=[5.0, 25.0, 50.0, 100.0], help="percents of conversations"
    )
    promoting.add_argument(
        "--step-seconds", type=number_from(0, kind=float), default=60.0, help="how long each step lasts, at least"
    )
    promoting.add_argument(
        "--step-timeout", type=number_from(0, kind=float), default=1800.0, help="seconds to wait for --min-decisions"
    )
    limits = Limits()
    promoting.add_argument(
        "--max-errors", type=number_from(0, 1, float), default=limits.errors, help="failed share of its prompts"
    )
    promoting.add_argument(
        "--max-latency", type=number_from(0, kind=float), default=limits.latency, help="p95 of its calls, as a multiple"
    )
    promoting.add_argument(
        "--max-drift", type=number_from(0, 1, float), default=limits.drift, help="share of decisions that move"
    )
    promoting.add_argument("--min-decisions", type=number_from(0), default=limits.decisions, help="in each step")
    promoting.add_argument(
        "--margin", type=number_from(0, 1, float), default=0.02, help="APGR that it may lose to the serving version"
    )
    promoting.add_argument("--bootstrap", type=number_from(1), default=500, help="resamples for the intervals")
    promoting.add_argument("--force", action="store_true", help="promote in spite of objections; the log says so")

    _add_place(add("rollback", rollback_command))


def promote_command(arguments: argparse.Namespace) -> None:
    """Judge a new version, and bring it into a running Triton share by share.

    On the held-out rows of --data it must beat prompt length, and not be worse than the version that serves. Then
    Triton loads it under the next number beside the old one, and the routers send it --steps percent of their
    conversations. It goes back by itself when its errors, latency or decisions pass the limits. The old version stays
    loaded, for `rollback`. Each router's configuration needs `triton: {versions: "${file:/…/shares}"}`, the file in
    the model's directory, and Triton --model-control-mode=explicit. The last line of stdout is one JSON document.
    """
    if sorted({*arguments.steps}) != arguments.steps or arguments.steps[-1] != 100:
        raise PromotionError(f"--steps {arguments.steps}: percents must rise and end with 100")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that a canary goes back, as at Ctrl-C
    progress = progress_on_stderr()
    repository = Repository(arguments.model, arguments.config_name)
    serving = serving_version(repository)
    verdict = _judge(arguments, repository, serving, progress)
    if verdict.objections and not arguments.force:
        raise PromotionError(f"not promoted, version {serving} serves: {'; '.join(verdict.objections)}")
    if verdict.objections:
        progress(f"forced in spite of: {'; '.join(verdict.objections)}")
    routers = Routers(arguments.router, repository)
    triton = Triton(arguments.triton, arguments.model.resolve().name, _admin_key(arguments.admin_key_file))
    limits = Limits(arguments.max_errors, arguments.max_latency, arguments.max_drift, arguments.min_decisions)
    plan = Plan(arguments.steps, arguments.step_seconds, arguments.step_timeout, limits)
    candidate = repository.add(arguments.candidate)
    record: dict[str, Any] = {"from": serving, "to": candidate, "forced": arguments.force, **verdict.document()}
    try:
        promote(repository, serving, candidate, triton, routers, plan, progress)
    except ClassifierError as error:
        _remember(repository, {**record, "promoted": False, "reason": str(error)})
        raise
    _remember(repository, {**record, "promoted": True})
    progress(f"version {candidate} serves; version {serving} stays loaded for `rollback`")
    print(json.dumps({**record, "promoted": True}))


def rollback_command(arguments: argparse.Namespace) -> None:
    """Give all conversations back to the version before, at once; also ends a canary that was left under way."""
    repository = Repository(arguments.model, arguments.config_name)
    version = rollback(repository, Routers(arguments.router, repository))
    _remember(repository, {"rolled_back_to": version})
    print(f"version {version} serves")


def _judge(arguments: argparse.Namespace, repository: Repository, serving: str, progress: Progress) -> Verdict:
    """Compare both versions, each with its own scoring code, on the same rows."""
    current = repository.model / serving
    progress(f"judging the candidate beside version {serving}")
    ours, theirs = (scored_by_version(version, arguments.data, progress) for version in (arguments.candidate, current))
    verdict = compare(ours, theirs, margin=arguments.margin, rounds=arguments.bootstrap)
    for name, one in verdict.differences.items():
        progress(f"APGR less that of {name}: {one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]")
    specs = (
        json.loads((version / "spec.json").read_text(encoding="utf-8")) for version in (arguments.candidate, current)
    )
    missing = tuple(f"it lacks the head {head}, which version {serving} has" for head in lost_heads(*specs))
    return Verdict((*verdict.objections, *missing), verdict.differences)


def _admin_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise PromotionError(
            f"--admin-key-file {path} cannot be read ({error}): give the key of Triton's model control"
        ) from None


def _remember(repository: Repository, record: dict[str, Any]) -> None:
    """Append to the model's history."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (repository.model / HISTORY).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": now, **record}) + "\n")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="the model's directory in Triton's repository")
    parser.add_argument("--config-name", default="", help="as Triton's --model-config-name, such as cpu")
    parser.add_argument("--router", nargs="+", required=True, metavar="URL", help="admin listener of every router")


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percent above 0, up to 100")
    return percent
