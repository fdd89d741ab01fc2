"""Score the files of a log with Ray Data: an actor takes a file, asks Triton, writes the file's output.

The prompts stay out of Ray's object store: what goes through it is a file's name in, and its counts out.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: it would report its use

import ray
import ray.data

from classifier.score_log import FileScored, Service, score_file


class _Actor:
    """Scores files, one at a time, with several calls to Triton under way."""

    def __init__(self, out: Path, service: Service) -> None:
        self._out = out
        self._service = service

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        done = [asyncio.run(score_file(Path(source), self._out, self._service)) for source in batch["source"]]
        return {
            "source": [one.source for one in done],
            "rows": [one.rows for one in done],
            "unreadable": [one.unreadable for one in done],
            "error": [one.error for one in done],
        }


def score_files(
    files: Sequence[Path], out: Path, service: Service, *, actors: int, cluster: str | None
) -> Iterator[FileScored]:
    """Yield what became of each file, as it is done.

    `cluster` is Ray's address, None for a Ray of our own on this machine. All machines see `files` and `out` at the
    same paths. A file whose actor or machine is lost is given to another.
    """
    if cluster is None:
        ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=actors, log_to_driver=False)
    else:
        ray.init(cluster)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        names = ray.data.from_items([{"source": str(path)} for path in files], override_num_blocks=len(files))
        scored = names.map_batches(
            _Actor,
            fn_constructor_args=(out, service),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(files))),
            num_cpus=1,
        )
        for row in scored.iter_rows():
            yield FileScored(**row)
    finally:
        ray.shutdown()
