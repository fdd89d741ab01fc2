"""`make demo` and `make serve` as a user runs them: real Triton, the router, two simulated LLMs."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid

import psutil
import pytest

from loadtest import demo
from loadtest.demo_client import Failure, Row, ask_all
from loadtest.demo_prompts import demo_prompts
from loadtest.processes import listen
from loadtest.simulated_llm import simulated_llm
from loadtest.stack import REPOSITORY, Ports

MARK = "LOADTEST_TEST_MARK"
ANY_PORTS = {name.upper(): "0" for name in Ports.__dataclass_fields__}
ESCAPE = "\x1b"


@pytest.fixture
def mark():
    """A value that every process of one test inherits in its environment."""
    return uuid.uuid4().hex


def environment(mark, **variables):
    return {**os.environ, **ANY_PORTS, MARK: mark, "FORCE_COLOR": "1", **variables}


def survivors(mark):
    """Return the names of living processes that this test's command started, itself included."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process.name())
    return found


def eventually(condition, what, deadline_s=20):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def assert_nothing_survives(mark, deadline_s=1):
    """A killed process may take a moment to be gone."""
    eventually(lambda: not survivors(mark), f"left behind: {survivors(mark)}", deadline_s)


def run(module, *arguments, mark, **variables):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment(mark, **variables),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


class Serve:
    """`python -m loadtest.serve` on a terminal 100 columns wide."""

    def __init__(self, mark, run_dir):
        self.mark, self.seen = mark, ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.serve", "--run-dir", str(run_dir)],
            cwd=REPOSITORY,
            env=environment(mark),
            stdout=slave,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(slave)

    def read(self):
        with contextlib.suppress(BlockingIOError, OSError):  # nothing now, or the other end has closed
            while data := os.read(self._master, 65536):
                self.seen += data.decode()
        return self.seen

    def wait_for(self, text):
        eventually(lambda: text in self.read() or self.process.poll() is not None, f"{text!r} never shown", 60)
        assert text in self.read(), f"{text!r} never shown; seen: {self.seen}"

    def wait(self):
        code = self.process.wait(timeout=30)
        self.read()
        return code

    def pid_of(self, part):
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if part in " ".join(child.cmdline()):
                return child.pid
        raise AssertionError(f"no child with {part!r} in its command")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def starting_serve(mark, tmp_path):
    with contextlib.closing(Serve(mark, tmp_path / "run")) as serving:
        yield serving


@pytest.fixture
def serve(starting_serve):
    starting_serve.wait_for("Ctrl-C stops everything.")
    return starting_serve


def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(mark, tmp_path):
    told = run("loadtest.demo", "--run-dir", str(tmp_path), mark=mark)
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    assert ESCAPE not in told.stdout
    lines = told.stdout.splitlines()
    rows = [
        line for line in lines if re.search(r" (cheap|expensive)-sim +[\d,]+¹? +\d+\.\d +0\.\d{6} +0\.\d{6}$", line)
    ]
    assert len(rows) == len(demo_prompts()) >= 24
    assert {line.split()[-5] for line in rows} == {"cheap-sim", "expensive-sim"}
    assert {line.split()[-6] for line in rows} == {"threshold"}
    scores = [float(line.split()[-7]) for line in rows]
    assert len(set(scores)) > 5
    assert all(0 <= score <= 1 for score in scores)
    summary = dict(re.findall(r"^(share|dollars|router|mean)\b.*?  +(.+)$", told.stdout, re.MULTILINE))
    assert 0.2 <= share(summary["share"]) <= 0.9
    assert re.fullmatch(r"\$0\.\d+ of \$0\.\d+ \(\d+%\) had expensive-sim answered all", summary["dollars"])
    assert re.fullmatch(r"p50 [\d.]+ ms, p95 [\d.]+ ms", summary["router"])
    size, turns, executions = map(float, re.findall(r"\d+(?:\.\d+)?", summary["mean"]))
    assert turns >= len(rows)
    assert size == pytest.approx(turns / executions, abs=0.06)
    assert size > 1, "prompts sent together should be scored together"
    assert_nothing_survives(mark)


def share(text):
    matched = re.match(r"(\d+) of (\d+)", text)
    assert matched
    return int(matched[1]) / int(matched[2])


def test_serve_answers_its_own_curl_and_stops_on_ctrl_c(serve, mark):
    if shutil.which("curl") is None:
        pytest.skip("no curl to paste into")
    serve.wait_for("no request answered yet")
    (command,) = re.findall(r"curl -i .*?\n.*?(?=\r?\n)", serve.seen.replace("\r\n", "\n"))
    pasted = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert "x-router-model: " in pasted.stdout.lower()
    assert "Simulated answer of" in pasted.stdout
    serve.wait_for("1 request · ")
    last = serve.seen.rsplit("\r\x1b[K", 1)[-1]
    assert re.search(r"\d+% to cheap-sim · overhead p50 [\d.]+ ms, p95 [\d.]+ ms · 0 in flight", last)
    assert len(last) < 100
    serve.process.send_signal(signal.SIGINT)
    assert serve.wait() == 0
    assert "stopped: the router, both simulated LLMs and Triton have ended" in serve.seen
    assert "Traceback" not in serve.seen
    assert_nothing_survives(mark)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_can_be_interrupted(starting_serve, mark, number):
    starting_serve.wait_for("triton: starting")
    starting_serve.process.send_signal(number)
    assert starting_serve.wait() == 0
    assert "Traceback" not in starting_serve.seen
    assert_nothing_survives(mark)


@pytest.mark.parametrize(("part", "name"), [("router serve", "router"), ("bin/tritonserver", "Triton")])
def test_serve_says_which_part_died_and_stops_the_rest(serve, mark, part, name):
    os.kill(serve.pid_of(part), signal.SIGKILL)
    assert serve.wait() == 1
    assert f"serve: {name} was killed by SIGKILL; the end of" in serve.seen
    assert "Traceback" not in serve.seen
    assert_nothing_survives(mark)


def test_nothing_outlives_a_killed_serve(serve, mark):
    assert len(survivors(mark)) >= 5
    serve.process.kill()
    assert_nothing_survives(mark, deadline_s=20)  # here nobody waits for them: they end by themselves


@pytest.mark.parametrize("setting", list(ANY_PORTS))
def test_a_taken_port_is_named_before_anything_starts(mark, tmp_path, setting):
    with listen(0, "") as taken:
        port = str(taken.getsockname()[1])
        ended = run("loadtest.serve", "--run-dir", str(tmp_path / "run"), mark=mark, **{setting: port})
    assert ended.returncode == 1
    assert ended.stderr == f"serve: port {port} is already taken; choose another with {setting}=PORT\n"
    assert ended.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_none_is_named(mark):
    ended = run("loadtest.serve", mark=mark, ROUTER_PORT="http")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("serve: ROUTER_PORT='http' is not a port")


def test_help_lists_every_port(mark):
    told = run("loadtest.serve", "--help", mark=mark)
    assert told.returncode == 0
    for setting in ANY_PORTS:
        assert setting in told.stdout


async def test_the_demo_keeps_order_and_knows_which_prompt_failed():
    prompts = demo_prompts()[:6]
    done: list[int] = []
    with simulated_llm("sim", any_model=True, fault="status=500;times=1") as llm:
        results = await ask_all(llm.base_url, prompts, at_once=1, on_answer=done.append)
    assert [result.shown for result in results] == [prompt.shown for prompt in prompts]
    failures = [result for result in results[:1] if isinstance(result, Failure)]
    rows = [result for result in results[1:] if isinstance(result, Row)]
    assert (len(failures), len(rows)) == (1, 5)
    assert "told to answer 500" in failures[0].why
    assert all(row.usage is not None and row.usage.completion > 0 for row in rows)
    assert done == [1, 2, 3, 4, 5, 6]


def test_a_demo_with_a_failure_says_so_and_exits_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "_run", lambda *_: [Failure("Hi there", "InternalServerError: 500")])
    monkeypatch.setattr(demo, "interrupt_on_sigterm", lambda: None)
    assert demo.main(["--run-dir", str(tmp_path)]) == 1
    assert "no answer to 'Hi there': InternalServerError: 500" in capsys.readouterr().err
