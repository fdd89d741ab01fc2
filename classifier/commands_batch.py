"""score-log: the scores of a log that is too long for one machine."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Final

from classifier.command import Add, number_from, progress_on_stderr
from classifier.errors import ClassifierError, DataError, TritonError
from classifier.score_log import Service, output_of

SHOWN_ERRORS: Final = 5


def add_commands(add: Add) -> None:
    """Add the command to the command line."""
    scoring = add("score-log", score_log)
    scoring.add_argument("--input", type=Path, nargs="+", required=True, help="JSON lines with a `prompt`, or .gz")
    scoring.add_argument("--out", type=Path, required=True, help="directory for the scores, a file for each")
    service = Service("127.0.0.1:8001")
    scoring.add_argument("--triton", default=service.url, help="Triton's gRPC listener")
    scoring.add_argument("--model", default=service.model, help="the classifier's name on Triton")
    scoring.add_argument("--version", default=service.version, help="its version (default: the newest)")
    scoring.add_argument(
        "--rows-per-call", type=number_from(1), default=service.rows_per_call, help="prompts in one call"
    )
    scoring.add_argument(
        "--calls", type=number_from(1), default=service.calls, help="calls that an actor has under way"
    )
    scoring.add_argument("--actors", type=number_from(1), default=os.cpu_count() or 1, help="processes, a core each")
    scoring.add_argument("--ray", help="Ray's address, such as auto (default: a Ray of its own on this machine)")


def score_log(arguments: argparse.Namespace) -> None:
    """Score a log's files on a running Triton, with Ray Data on one machine or a cluster.

    Each file of --input has one of the same name in --out: its lines with scores, or with `error` where there is no
    prompt. A file that has its output is skipped, so the same command goes on after a stop; cut a log into files of
    about a million lines. Needs the environment of `make batch-env`. The last line of stdout is one JSON document.
    """
    progress = progress_on_stderr()
    targets = [output_of(path, arguments.out) for path in arguments.input]
    for path in arguments.input:
        if not path.is_file():
            raise DataError(f"--input: {path} is no file: give JSON lines, gzipped or not")
    if len(set(targets)) < len(targets):
        raise DataError(
            "--input has two files of one name, which would have one output: score them one after the other"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    to_do = [path.absolute() for path, target in zip(arguments.input, targets, strict=True) if not target.exists()]
    progress(f"{len(to_do)} of {len(targets)} files to score")
    service = Service(arguments.triton, arguments.model, arguments.version, arguments.rows_per_call, arguments.calls)
    started = time.monotonic()
    rows = unreadable = 0
    errors: list[str] = []
    if to_do:
        try:
            from classifier.score_log_ray import score_files
        except ModuleNotFoundError as error:
            raise ClassifierError(
                f"{error.name} is not installed: `make batch-env`, then .venv-batch/bin/python"
            ) from None
        for done in score_files(
            to_do, arguments.out.absolute(), service, actors=arguments.actors, cluster=arguments.ray
        ):
            rows, unreadable = rows + done.rows, unreadable + done.unreadable
            if done.error:
                errors.append(f"{done.source}: {done.error}")
            progress(
                errors[-1] if done.error else f"{done.source}: {done.rows:,} lines, {done.unreadable:,} unreadable"
            )
    print(
        json.dumps(
            {
                "files": len(to_do) - len(errors),
                "skipped_files": len(targets) - len(to_do),
                "failed_files": len(errors),
                "rows": rows,
                "unreadable_rows": unreadable,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    )
    if errors:
        shown = "; ".join(errors[:SHOWN_ERRORS])
        raise TritonError(f"{len(errors)} of {len(to_do)} files have no scores, run the command again: {shown}")
