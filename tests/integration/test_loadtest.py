"""The load test as a user runs it: real Locust against the real stack, and against simulated LLMs of known times."""

import contextlib
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest

from loadtest.processes import free_port
from loadtest.scrape import Page
from loadtest.simulated_llm import simulated_llm
from loadtest.stack import REPOSITORY, Ports, running_stack

QUICK = {"THINK_S": "0.2-0.6", "SPAWN_RATE": "20", "EXPORTER_PORT": "0"}


@pytest.fixture(scope="module")
def router_url(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("stack"), Ports.any_free(), lambda line: None) as stack:
        yield stack.router_url


def command(*arguments):
    return [sys.executable, "-m", "loadtest.run", *arguments]


def environment(host, report_dir, **variables):
    return {**os.environ, **QUICK, "HOST": host, "REPORT_DIR": str(report_dir), **variables}


def run(host, report_dir, *arguments, **variables):
    return subprocess.run(
        command("--no-floor", *arguments),
        cwd=REPOSITORY,
        env=environment(host, report_dir, **variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def report_of(done, report_dir):
    assert (report_dir / "report.json").exists(), done.stdout + done.stderr
    return json.loads((report_dir / "report.json").read_text())


def test_the_router_is_compared_with_always_the_dearest_model(router_url, tmp_path):
    done = run(router_url, tmp_path, "--users", "10", "--duration", "8s", "--compare-baseline")
    assert done.returncode == 0, done.stdout + done.stderr
    routed, baseline = report_of(done, tmp_path)["runs"]
    for one in (routed, baseline):
        assert one["errors"] == {}
        assert one["requests"] > 20
        assert one["peak_users"] == 10
        assert one["overhead_ms"]["count"] == one["latency_ms"]["e2e"]["all"]["count"]
        assert 0 < one["latency_ms"]["ttft"]["all"]["count"] < one["requests"]  # some stream, some do not
        assert one["latency_ms"]["itl"]["all"]["count"] > 10 * one["latency_ms"]["ttft"]["all"]["count"]
    assert set(routed["models"]) == {"cheap-sim", "expensive-sim"}
    assert set(baseline["models"]) == {"expensive-sim"}
    assert baseline["decisions"].keys() == {"manual"}
    assert 0.1 < routed["dollars"]["saved_share"] < 0.95
    assert baseline["dollars"]["saved"] == pytest.approx(0.0, abs=1e-12)
    assert routed["dollars"]["spent_per_1000_answers"] < baseline["dollars"]["spent_per_1000_answers"]
    page = (tmp_path / "report.html").read_text()
    assert "With the router against always expensive-sim" in page
    assert "Report:" in done.stdout
    assert "0 errors" in done.stdout


def test_times_are_those_of_the_server_less_the_generators_floor(tmp_path):
    with simulated_llm("known-sim", ttft_ms=120, tokens_per_s=40, answer_tokens=20, answer_sigma=0) as llm:
        variables = {"MODEL": "known-sim", "STREAM_SHARE": "1"}
        done = subprocess.run(
            command("--users", "5", "--duration", "6s"),
            cwd=REPOSITORY,
            env=environment(llm.url, tmp_path, **variables),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_of(done, tmp_path)
    latency = report["runs"][0]["latency_ms"]
    floor = report["floor"]["ttft_added_ms"]["p50"]
    assert "Floor: the generator adds" in done.stdout
    assert report["floor"]["answers"] > 10
    # generous above, for a busy machine; a client that waits for a full buffer would show more than 500
    assert 120 * 0.98 <= latency["ttft"]["all"]["p50"] <= 120 + floor + 60
    assert 25 * 0.9 <= latency["itl"]["all"]["p50"] <= 25 * 1.5
    assert latency["e2e"]["all"]["p50"] > latency["ttft"]["all"]["p50"] + 300
    assert report["runs"][0]["dollars"] is None
    assert "dollars unknown" in done.stdout


@pytest.mark.parametrize(
    ("fault", "kinds"), [("status=503", {"http_503"}), ("die_after_chunks=3", {"connection", "stream_cut", "bad_body"})]
)
def test_failures_are_counted_by_kind_and_make_the_run_fail(tmp_path, fault, kinds):
    with simulated_llm("failing-sim", fault=fault) as llm:
        done = run(llm.url, tmp_path, "--users", "3", "--duration", "3s", "--model", "failing-sim")
    assert done.returncode == 1, done.stdout + done.stderr
    [figures] = report_of(done, tmp_path)["runs"]
    assert figures["error_rate"] == 1.0
    assert set(figures["errors"]) <= kinds
    assert any(kind in done.stdout for kind in kinds)


class ForgetfulServer(socketserver.StreamRequestHandler):
    """Answers the first request of each connection; closes the connection when a second one comes."""

    def handle(self):
        for answered in (False, True):
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            if not answered:
                body = b'{"data": [], "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def test_a_connection_closed_while_idle_is_no_failure_of_the_server(tmp_path):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), ForgetfulServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        done = run(host, tmp_path, "--users", "2", "--duration", "4s", STREAM_SHARE="0")
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    [figures] = report_of(done, tmp_path)["runs"]
    assert figures["errors"] == {}
    assert 0 < figures["reconnects"] < figures["requests"]


def test_a_master_adds_up_what_its_processes_did(tmp_path):
    with simulated_llm("quick-sim", answer_tokens=10) as llm:
        done = run(llm.url, tmp_path, "--users", "6", "--duration", "7s", "--model", "quick-sim", "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    [figures] = report_of(done, tmp_path)["runs"]
    locusts = json.loads((tmp_path / "routed.run.locust.json").read_text())
    assert figures["settings"]["processes"] == 2
    # what the workers send with their last words can miss the figures
    assert figures["requests"] == pytest.approx(sum(one["num_requests"] for one in locusts), rel=0.2)
    assert figures["requests"] > 20


def test_open_arrivals_come_at_their_rate_however_slow_the_answers(tmp_path):
    with simulated_llm("slow-sim", ttft_ms=1500, answer_tokens=5) as llm:
        done = run(llm.url, tmp_path, "--users", "20", "--duration", "8s", "--model", "slow-sim", "--arrivals", "open")
    assert done.returncode == 0, done.stdout + done.stderr
    [figures] = report_of(done, tmp_path)["runs"]
    # 20 users that waited for answers of 1.5 s and then thought could send 10 a second at most
    assert 13 < figures["answers_per_s"] < 28
    assert figures["in_flight_mean"] > 15
    assert figures["generator"]["late_arrivals_ms"]["count"] > 80


def test_a_ramp_tells_how_far_it_went_well(tmp_path):
    with simulated_llm("ramp-sim", answer_tokens=5) as llm:
        arguments = ("--users", "8", "--duration", "8s", "--model", "ramp-sim", "--shape", "ramp")
        done = run(llm.url, tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    [figures] = report_of(done, tmp_path)["runs"]
    assert figures["knee"]["users"] >= 4
    assert figures["timeline"][0]["users"] < figures["timeline"][-1]["users"]


def test_without_a_router_it_says_how_to_start_one(tmp_path):
    done = run(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert done.returncode == 1
    assert "make serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_named(router_url, tmp_path):
    done = run(router_url, tmp_path, "--model", "gpt-17")
    assert done.returncode == 1
    assert "MODEL='gpt-17'" in done.stderr
    assert "cheap-sim" in done.stderr


def test_a_wrong_key_is_told(tmp_path):
    with simulated_llm("locked-sim", api_key="sk-right") as llm:
        done = run(llm.url, tmp_path, "--model", "locked-sim", "--users", "2", "--duration", "3s", API_KEY="sk-wrong")
        good = run(llm.url, tmp_path, "--model", "locked-sim", "--users", "2", "--duration", "3s", API_KEY="sk-right")
    assert done.returncode == 1
    assert "http_401" in done.stdout
    assert good.returncode == 0, good.stdout + good.stderr
    assert "sk-" not in done.stdout + done.stderr + (tmp_path / "report.json").read_text()


@contextlib.contextmanager
def web_ui(host, tmp_path):
    ports = {"WEB_PORT": str(free_port()), "EXPORTER_PORT": str(free_port())}
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(
            command("--web", "--no-floor", "--users", "12"),
            cwd=REPOSITORY,
            env=environment(host, tmp_path, **ports),
            stdout=log,
            stderr=log,
        )
    try:
        yield process, f"http://127.0.0.1:{ports['WEB_PORT']}", f"http://127.0.0.1:{ports['EXPORTER_PORT']}/metrics"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def get(url, form=None):
    data = None if form is None else urllib.parse.urlencode(form).encode()
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        return answer.read().decode()


def eventually(condition, what, deadline_s=30):
    deadline = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_the_web_ui_is_filled_in_and_begins(router_url, tmp_path):
    with web_ui(router_url, tmp_path) as (process, web, exporter):
        page = eventually(lambda: get(web), "no web UI")
        [filled_in] = re.findall(r"window\.templateArgs = (\{.*\})", page)
        form = json.loads(filled_in)
        assert (form["host"], form["num_users"], form["spawn_rate"]) == (router_url, 12, 20)
        assert Page.get(exporter).total("locust_requests_total") == 0

        begun = json.loads(get(f"{web}/swarm", {"user_count": 12, "spawn_rate": 20, "host": router_url}))
        assert begun["success"]
        eventually(lambda: Page.get(exporter).total("locust_requests_total") >= 20, "no answers")
        metrics = Page.get(exporter)
        assert metrics.total("locust_users") == 12
        assert metrics.total("locust_errors_total") == 0
        ttft = metrics.quantile("locust_ttft_seconds", 0.5)
        assert ttft is not None
        assert 0.02 < ttft < 2  # the cheap model takes 60 ms, half of the time more
        assert metrics.total("locust_cost_dollars_total") < metrics.total("locust_baseline_dollars_total")
        eventually(lambda: {row["name"] for row in rows(web)} >= {"cheap-sim", "(all)"}, "no rows in the LLM tab")
        assert "Load test of the LLM router" in get(f"{web}/llm-report")

        get(f"{web}/stop", {})
        eventually(lambda: json.loads(get(f"{web}/stats/requests"))["state"] == "stopped", "it does not stop")
        assert process.poll() is None
    with pytest.raises(OSError, match="refused"):
        get(web)


def rows(web):
    [table] = json.loads(get(f"{web}/stats/requests"))["extended_stats"]
    assert table["key"] == "llm"
    return table["data"]
