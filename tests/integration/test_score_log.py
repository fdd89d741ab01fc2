"""`python -m classifier score-log`: a log through a real Triton, file by file, and again after a failure."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from classifier.predict import predict
from classifier.score_log import FileScored, Service, score_file
from loadtest.local_triton import MODELS, LocalTriton

ROOT = Path(__file__).parents[2]
RAY_PYTHON = ROOT / ".venv-batch" / "bin" / "python"
PROMPTS = [f"What is {number} plus {number}? {'Explain it, step by step. ' * (number % 9)}" for number in range(150)]


def write_log(path: Path, prompts: list[str], *bad: str) -> Path:
    """Write the prompts as a log, with `bad` lines after the third."""
    lines = [json.dumps({"id": number, "prompt": prompt}) for number, prompt in enumerate(prompts)]
    text = "".join(f"{line}\n" for line in [*lines[:3], *bad, *lines[3:]]).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def score(source: Path, out: Path, service: Service) -> FileScored:
    out.mkdir(exist_ok=True)
    return asyncio.run(score_file(source, out, service))


def test_scores_are_those_of_the_version_in_the_logs_order(triton: LocalTriton, tmp_path: Path) -> None:
    source = write_log(tmp_path / "log.jsonl", PROMPTS)
    done = score(source, tmp_path / "out", Service(triton.grpc_url, rows_per_call=16, calls=3))
    assert done == FileScored(str(source), rows=150)
    scored = read(tmp_path / "out" / "log.jsonl")
    assert [row["id"] for row in scored] == list(range(150))
    offline = predict(MODELS / "prompt_classifier" / "1", PROMPTS, lambda _: None)
    for number, row in enumerate(scored):
        wanted = offline.described(number)
        assert row["need_strong"] == pytest.approx(wanted["need_strong"], abs=1e-3)
        assert (row["task_type"], row["length"]) == (wanted["task_type"], wanted["length"])


def test_lines_that_cannot_be_read_stay_in_their_place(triton: LocalTriton, tmp_path: Path) -> None:
    source = write_log(tmp_path / "log.jsonl.gz", PROMPTS[:10], "{not json", '{"text": "no prompt"}', '{"prompt": 7}')
    assert score(source, tmp_path, Service(triton.grpc_url)) == FileScored(str(source), rows=13, unreadable=3)
    scored = read(tmp_path / "log.jsonl")
    assert ["error" in row for row in scored] == [False] * 3 + [True] * 3 + [False] * 7
    assert "line 5: `prompt` is NoneType" in scored[4]["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "127.0.0.1:1", "attempts": 2}, "Triton at 127.0.0.1:1, 2 attempts"),
        ({"model": "no_such_model", "attempts": 1}, "no_such_model"),
        ({"model": "task_router_ensemble"}, "has no parameter `spec`"),
        ({"version": "9", "attempts": 1}, "version 9"),
    ],
)
def test_a_file_that_could_not_be_scored_has_no_output(
    change: dict[str, Any], message: str, triton: LocalTriton, tmp_path: Path
) -> None:
    source = write_log(tmp_path / "log.jsonl", PROMPTS)
    done = score(source, tmp_path / "out", Service(**{"url": triton.grpc_url, **change}))
    assert (done.rows, message in done.error) == (0, True), done.error
    assert not (tmp_path / "out" / "log.jsonl").exists()


@pytest.mark.skipif(not RAY_PYTHON.exists(), reason="needs Ray: make batch-env")
@pytest.mark.timeout(180)
def test_ray_scores_what_has_no_output_yet(triton: LocalTriton, tmp_path: Path) -> None:
    files = [write_log(tmp_path / f"{name}.jsonl.gz", PROMPTS, "{not json") for name in "abc"]
    out = tmp_path / "out"

    def run(url: str) -> tuple[int, dict[str, Any], str]:
        options = [f"--out={out}", f"--triton={url}", "--actors=2", "--input", *map(str, files)]
        command = [str(RAY_PYTHON), "-m", "classifier", "score-log", *options]
        environment = {**os.environ, "HOME": str(tmp_path)}  # Ray keeps a token there
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        return result.returncode, json.loads(result.stdout.splitlines()[-1]), result.stderr

    out.mkdir()
    (out / "b.jsonl").write_text("done before\n")
    status, told, errors = run(triton.grpc_url)
    assert status == 0, errors
    assert told.pop("seconds") > 0
    assert told == {"files": 2, "skipped_files": 1, "failed_files": 0, "rows": 302, "unreadable_rows": 2}
    assert (out / "b.jsonl").read_text() == "done before\n"
    assert [row.get("id") for row in read(out / "c.jsonl") if "error" not in row] == list(range(150))

    (out / "a.jsonl").unlink()
    status, told, errors = run("127.0.0.1:1")
    assert (status, told["failed_files"], told["skipped_files"]) == (1, 1, 2)
    assert "1 of 1 files have no scores, run the command again" in errors
