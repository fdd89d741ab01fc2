"""Score a log on a running Triton: JSON lines with a `prompt` in, the same lines with its scores out.

    logs/a.jsonl.gz -> 64 prompts in a call, several calls under way -> scores/a.jsonl

A file is done when its output is there, so a run that was stopped goes on where it was. This is one file on one
machine; `score_log_ray` does many on many.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from classifier.data import Line
from classifier.errors import DataError, TritonError
from classifier.predict import Predictions, described, with_prompt
from classifier.rows import json_lines

FIRST_PAUSE_S: Final = 0.5  # before a call is repeated; then twice as long each time
OUTPUTS: Final = ("OUTCOME", "TASK_TYPE", "DIMENSIONS", "TOKENS")
# A name may have several addresses, the replicas of Triton; a prompt goes to them and to nobody in between.
CHANNEL: Final = [("grpc.lb_policy_name", "round_robin"), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True, slots=True)
class Service:
    """The classifier that is asked, and how hard."""

    url: str  # Triton's gRPC listener
    model: str = "prompt_classifier"
    version: str = ""  # the newest
    rows_per_call: int = 64
    calls: int = 4  # under way at one time
    attempts: int = 4
    deadline_s: float = 30.0


@dataclass(frozen=True, slots=True)
class FileScored:
    """What became of a file: its lines, those of them without a prompt, and why it has no output, else ""."""

    source: str
    rows: int = 0
    unreadable: int = 0
    error: str = ""


def output_of(source: Path, out: Path) -> Path:
    """Where the scores of a file go: its name without .gz, in the directory `out`."""
    return out / source.name.removesuffix(".gz")


async def score_file(source: Path, out: Path, service: Service) -> FileScored:
    """Score one file; its output appears at once, when it is complete.

    A line that cannot be read becomes a line with `error`. A call that fails again and again ends the file without an
    output: the next run does it again.
    """
    from tritonclient.grpc.aio import InferenceServerClient

    target = output_of(source, out)
    unfinished = target.with_name(f"{target.name}.part")
    try:
        async with InferenceServerClient(service.url, channel_args=CHANNEL) as client:
            rows, unreadable = await _score_into(unfinished, source, _Classifier(client, service), service)
    except (TritonError, DataError, OSError) as error:
        return FileScored(str(source), error=str(error))
    unfinished.replace(target)
    return FileScored(str(source), rows, unreadable)


async def _score_into(target: Path, source: Path, classifier: "_Classifier", service: Service) -> tuple[int, int]:
    """Write the scores of `source` in its order; returns its lines, and those that cannot be read."""
    rows = unreadable = 0
    names = await classifier.names()
    under_way: deque[asyncio.Task[list[str]]] = deque()
    try:
        with target.open("w", encoding="utf-8") as stream:
            for chunk in _chunks(json_lines(source), service.rows_per_call):
                rows += len(chunk)
                unreadable += sum(isinstance(line, DataError) for line in chunk)
                under_way.append(asyncio.create_task(classifier.score(chunk, names)))
                if len(under_way) >= service.calls:
                    _write(stream, await under_way.popleft())
            while under_way:
                _write(stream, await under_way.popleft())
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return rows, unreadable


def _chunks(lines: Iterator[Line | DataError], size: int) -> Iterator[list[Line | DataError]]:
    """So many lines at a time, each with a prompt or as what is wrong with it."""
    checked = (_checked(line) for line in lines)
    while chunk := list(islice(checked, size)):
        yield chunk


def _checked(line: Line | DataError) -> Line | DataError:
    if isinstance(line, DataError):
        return line
    try:
        return with_prompt(line)
    except DataError as error:
        return error


def _write(stream: TextIO, lines: Sequence[str]) -> None:
    stream.writelines(f"{line}\n" for line in lines)


class _Classifier:
    """A model on Triton, over one connection."""

    def __init__(self, client: Any, service: Service) -> None:  # noqa: ANN401 - the library has no types
        self._client = client
        self._service = service

    async def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of task types and dimensions, from the spec of the version that serves."""
        config = await self._asked(
            lambda: self._client.get_model_config(self._service.model, self._service.version, as_json=True)
        )
        parameters = config["config"].get("parameters", {})
        own = parameters.get(f"spec_{self._service.version}") or parameters.get("spec")  # while two versions are served
        if own is None:
            raise TritonError(f"model {self._service.model} has no parameter `spec`: it is none of this project's")
        spec = json.loads(own["string_value"])
        return tuple(spec["task_types"] or ()), tuple(spec["dimensions"] or ())

    async def score(
        self, chunk: Sequence[Line | DataError], names: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> list[str]:
        """One line of output for each line of input, in order."""
        good = [line for line in chunk if isinstance(line, Line)]
        scored = iter(await self._described(good, names) if good else ())
        return [json.dumps({"error": str(line)} if isinstance(line, DataError) else next(scored)) for line in chunk]

    async def _described(
        self, lines: Sequence[Line], names: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> list[dict[str, Any]]:
        from tritonclient.grpc import InferInput, InferRequestedOutput

        text = InferInput("TEXT", [len(lines), 1], "BYTES")
        text.set_data_from_numpy(np.array([[line.text("prompt").encode()] for line in lines], dtype=np.object_))
        answer = await self._asked(
            lambda: self._client.infer(
                self._service.model,
                [text],
                self._service.version,
                [InferRequestedOutput(name) for name in OUTPUTS],
                client_timeout=self._service.deadline_s,
            )
        )
        outcome, task_type, dimensions, tokens = (answer.as_numpy(name).astype(np.float64) for name in OUTPUTS)
        if len(outcome) != len(lines):
            raise TritonError(f"Triton at {self._service.url} answered {len(outcome)} rows to {len(lines)}")
        predictions = Predictions(outcome, task_type, dimensions, tokens.sum(axis=1), *names)
        return [described(line, predictions, row) for row, line in enumerate(lines)]

    async def _asked(self, call: Any) -> Any:  # noqa: ANN401 - a call of the library, which has no types
        """The answer to a call that is repeated when it fails; raises TritonError after the last attempt."""
        from tritonclient.utils import InferenceServerException

        for attempt in range(1, self._service.attempts + 1):
            try:
                return await call()
            except InferenceServerException as error:
                if attempt == self._service.attempts:
                    told = " ".join(str(error.message()).split())
                    raise TritonError(f"Triton at {self._service.url}, {attempt} attempts: {told}") from None
            await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("attempts is at least 1")
