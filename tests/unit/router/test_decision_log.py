"""The decision log's lines, its file and what happens when it cannot be written."""

from __future__ import annotations

import json
import threading
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import pytest

from router.decide.decider import Decision
from router.decide.prompt import Prompt
from router.http.decision_log import DecisionLog, append, described
from router.http.exchange import Exchange
from router.metrics import Metrics
from router.settings import DecisionLogSettings
from router.upstream.sse import Usage
from tests.unit.router.examples import classification


def exchange() -> Exchange:
    one = Exchange(b"r-1", perf_counter())
    one.decided(Decision("dear", "threshold", "tiers", "dear", 0.4, "classifier", None, (classification(0.3, 0.8),)))
    one.outcome, one.usage, one.dollars = "ok", Usage(10, 20), 0.001
    return one


def counted(metrics: Metrics, result: str) -> float:
    return sum(
        s.value for s in metrics.samples() if s.name.endswith("log_lines_total") and s.labels["result"] == result
    )


def test_a_line_says_what_was_decided_why_and_what_it_cost() -> None:
    line = described(exchange(), "Why?", 1000.0)
    assert line == {
        "time": 1000.0,
        "request_id": "r-1",
        "policy": "tiers",
        "model": "dear",
        "reason": "threshold",
        "source": "classifier",
        "score": 0.4,
        "classifier_version": "1",
        "p_weak": pytest.approx(0.3),
        "p_strong": pytest.approx(0.8),
        "gain": pytest.approx(0.5),
        "need_strong": pytest.approx(0.55),
        "task_type": "Chatbot",
        "turns": 1,
        "outcome": "ok",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "dollars": 0.001,
        "prompt": "Why?",
    }


def test_a_request_that_ended_before_its_decision_has_a_line_too() -> None:
    line = described(Exchange(b"r-2", 0.0), "Why?", 1.0)
    assert (line["model"], line["p_weak"], line["prompt"]) == (None, None, "Why?")


def test_everything_handed_over_is_written_before_the_log_is_closed(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "decisions.jsonl"
    log = DecisionLog(str(path), DecisionLogSettings(), 100, metrics)
    log.open()
    for number in range(1200):
        log.add(exchange(), f"prompt {number}")
    log.close()
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == [
        f"prompt {n}" for n in range(1200)
    ]
    assert counted(metrics, "written") == 1200


def test_a_sample_is_a_share_and_texts_are_cut_as_they_are_scored(tmp_path: Path) -> None:
    log = DecisionLog(str(tmp_path / "x"), DecisionLogSettings(sample=0.3), 4, Metrics())
    texts = [log.text_of(Prompt.of_text("a long prompt")) for _ in range(2000)]
    assert set(texts) == {None, "a lo"}
    assert 500 < sum(text is not None for text in texts) < 700


def test_a_disk_that_cannot_be_written_costs_lines_and_nothing_else(tmp_path: Path, caplog) -> None:
    metrics = Metrics()
    log = DecisionLog(str(tmp_path / "gone" / "x"), DecisionLogSettings(), 100, metrics)
    log.open()
    for _ in range(3):
        log.add(exchange(), "a secret")
    log.close()
    assert counted(metrics, "dropped") == 3
    assert "No such file" in caplog.text
    assert "secret" not in caplog.text


def test_lines_that_do_not_fit_into_the_queue_are_dropped_and_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    log = DecisionLog(str(tmp_path / "x"), DecisionLogSettings(), 100, metrics)  # not opened: nobody takes them out
    for _ in range(10_003):
        log.add(exchange(), "p")
    assert counted(metrics, "dropped") == 3


def append_lines(path: str, name: str) -> None:
    settings = DecisionLogSettings(max_bytes=2000, keep=100)
    for number in range(100):
        append(Path(path), settings, f"{name} {number:03} {'x' * 50}\n".encode())


def test_workers_that_write_at_once_lose_and_mix_nothing_while_files_rotate(tmp_path: Path) -> None:
    path = tmp_path / "log"
    workers = [get_context("spawn").Process(target=append_lines, args=(str(path), name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    files = [file for file in tmp_path.iterdir() if file.suffix != ".lock"]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(line[:5] for line in lines) == [f"{name} {number:03}" for name in "abc" for number in range(100)]
    assert len(files) > 5
    assert all(file.stat().st_size < 2100 for file in files)


def test_only_so_many_files_are_kept_the_newest(tmp_path: Path) -> None:
    settings = DecisionLogSettings(max_bytes=1, keep=2)
    for number in range(6):
        append(tmp_path / "log", settings, f"{number}\n".encode())
    assert {file.name: file.read_text() for file in tmp_path.iterdir() if file.suffix != ".lock"} == {
        "log": "5\n",
        "log.1": "4\n",
        "log.2": "3\n",
    }


def test_no_thread_is_left(tmp_path: Path) -> None:
    log = DecisionLog(str(tmp_path / "x"), DecisionLogSettings(), 100, Metrics())
    log.open()
    log.close()
    assert "decision log" not in {thread.name for thread in threading.enumerate()}


def test_only_the_router_s_user_can_read_what_people_wrote(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    for number in range(3):
        append(path, DecisionLogSettings(str(path), max_bytes=1, keep=2), b"%d\n" % number)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    names = ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2", "decisions.jsonl.lock"]
    assert modes == dict.fromkeys(names, 0o600)
