import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from loadtest.processes import Child, ChildError, PortTakenError, listen

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN_CODE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
ABANDONING_CODE = f"""
import subprocess
print(subprocess.Popen({SLEEP!r}).pid)
"""


def eventually(condition, deadline_s=10):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def start(tmp_path):
    children = []

    def start(command, name="child", **options):
        child = Child.start(name, command, log_path=tmp_path / f"{name}.log", **options)
        children.append(child)
        return child

    yield start
    for child in children:
        child.stop(grace_s=0)


def logged(child):
    return child.log_path.read_text()


def test_an_early_death_is_told_with_its_last_words(start):
    child = start([sys.executable, "-c", "import sys; print('no weights here'); sys.exit(3)"], name="triton")
    with pytest.raises(ChildError, match=r"(?s)triton ended with exit code 3 before.*triton\.log.*no weights here"):
        child.wait_until(lambda: False, deadline_s=20)


def test_a_signal_is_told_by_its_name(start):
    child = start(SLEEP)
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: child.poll() is not None)
    assert child.poll() == -signal.SIGKILL
    with pytest.raises(ChildError, match="was killed by SIGKILL"):
        child.wait_until(lambda: True, deadline_s=1)


def test_waiting_ends_at_its_deadline(start):
    with pytest.raises(ChildError, match="was not ready after 0 s"):
        start(SLEEP).wait_until(lambda: False, deadline_s=0.05)


def test_stop_kills_what_ignores_a_polite_request(start):
    child = start([sys.executable, "-c", STUBBORN_CODE])
    eventually(lambda: "deaf" in logged(child))
    child.stop(grace_s=0.1)
    assert child.poll() == -signal.SIGKILL
    child.stop()


def test_stop_reaches_grandchildren_also_when_the_child_is_already_dead(start):
    child = start([sys.executable, "-c", ABANDONING_CODE])
    eventually(lambda: child.poll() is not None)
    grandchild = int(logged(child))
    assert not gone(grandchild)
    child.stop()
    eventually(lambda: gone(grandchild))


def test_a_signal_during_the_start_waits_and_leaves_no_orphan(tmp_path, monkeypatch):
    started = []
    real = subprocess.Popen

    def interrupted(*arguments, **options):
        popen = real(*arguments, **options)
        started.append(popen.pid)
        os.kill(os.getpid(), signal.SIGINT)  # as if Ctrl-C came before Popen has returned
        return popen

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Child.start("child", SLEEP, log_path=tmp_path / "child.log")
    assert gone(started[0])


def test_a_signal_during_the_start_waits_also_when_another_thread_takes_it(tmp_path, monkeypatch):
    started = []
    asked = threading.Event()
    elsewhere = threading.Thread(target=asked.wait)
    elsewhere.start()
    thread_id = elsewhere.ident
    assert thread_id is not None
    real = subprocess.Popen

    def interrupted(*arguments, **options):
        popen = real(*arguments, **options)
        started.append(popen.pid)
        signal.pthread_kill(thread_id, signal.SIGINT)
        time.sleep(0.05)  # the handler runs at the main thread's next step
        return popen

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            Child.start("child", SLEEP, log_path=tmp_path / "child.log")
    finally:
        asked.set()
        elsewhere.join()
    assert gone(started[0])


def test_a_child_can_be_interrupted_though_signals_were_put_off_at_its_start(start):
    child = start(SLEEP)
    os.kill(child.pid, signal.SIGTERM)
    eventually(lambda: child.poll() == -signal.SIGTERM)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from loadtest.processes import Child;"
        f"child = Child.start('c', {SLEEP!r}, log_path=Path({str(tmp_path / 'c.log')!r}));"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    eventually(lambda: gone(child))


def test_a_taken_port_is_named_with_its_setting():
    with listen(0, "A") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} is already taken.*ROUTER_PORT=PORT"):
            listen(port, "ROUTER_PORT")
