"""Between Locust's events and our figures: recording, workers' reports, the exporter, the run's file."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Self

import gevent  # type: ignore[import-untyped] # has no types
import msgspec
from gevent.pywsgi import WSGIServer  # type: ignore[import-untyped] # has no types
from locust import events, runners
from prometheus_client import CollectorRegistry, make_wsgi_app

from loadtest.load.exporter import LoadCollector
from loadtest.load.locust_web import show_llm_tab
from loadtest.load.measure import WINDOW_S, Recorder
from loadtest.load.pricing import Catalogue
from loadtest.load.progress import progress_line
from loadtest.load.settings import LoadSettings
from loadtest.load.summary import summarize
from loadtest.load.tally import Answer, Tally

_ACTIVE = (runners.STATE_SPAWNING, runners.STATE_RUNNING)
_EVENTS = (
    "init",
    "test_start",
    "spawning_complete",
    "test_stopping",
    "test_stop",
    "report_to_master",
    "worker_report",
)
_LOOK_S = 0.05
_REPORT_KEY = "llm"

logger = logging.getLogger("loadtest")


class Measurement:
    """All that is measured in this process, and in a master what its workers report."""

    def __init__(self, settings: LoadSettings, run_file: Path | None) -> None:
        self.settings, self.recorder = settings, Recorder(perf_counter)
        self.catalogue: Catalogue | None = None
        self._run_file = run_file
        self._environment: Any = None
        self._started_at = datetime.now(UTC)

    @classmethod
    def install(cls, settings: LoadSettings, run_file: Path | None = None) -> Self:
        """Listen to Locust's events; at the end of a run `run_file` receives its figures as JSON."""
        measurement = cls(settings, run_file)
        for name in _EVENTS:
            getattr(events, name).add_listener(getattr(measurement, f"_on_{name}"))
        runners.WORKER_REPORT_INTERVAL = WINDOW_S / 2  # so that every window hears from every worker
        return measurement

    def answered(self, answer: Answer) -> None:
        """Record one complete answer."""
        self.recorder.current.answered(answer, self.settings.objective)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the present run or the last one."""
        processes = len(self._environment.runner.clients) if self._is_master else 1
        return summarize(self.recorder, self.settings, self.catalogue, self._started_at, processes)

    @property
    def _users(self) -> int:
        return self._environment.runner.user_count if self._environment and self._environment.runner else 0

    @property
    def _is_worker(self) -> bool:
        return isinstance(self._environment.runner, runners.WorkerRunner)

    @property
    def _is_master(self) -> bool:
        return isinstance(self._environment.runner, runners.MasterRunner)

    def _on_init(self, environment: Any, **_more: object) -> None:  # noqa: ANN401 - Locust's
        self._environment = environment
        if not self._is_master:  # a master sends nothing: its CPU and lag do not spoil a measurement
            gevent.spawn(self._watch_myself)
        if self._is_worker:
            return
        self._start_exporter()
        if environment.web_ui is not None:
            show_llm_tab(environment.web_ui, self.summary)

    def _start_exporter(self) -> None:
        settings = self.settings
        if not settings.exporter_port:
            return
        registry = CollectorRegistry()
        registry.register(LoadCollector(self.recorder.total, lambda: self._users, lambda: self.catalogue))
        address = (settings.exporter_host, settings.exporter_port)
        server = WSGIServer(address, make_wsgi_app(registry), log=None, error_log=logger)
        try:
            server.start()
        except OSError as error:
            print(
                f"EXPORTER_PORT={settings.exporter_port} cannot be used ({error.strerror}); name another, or 0 for none"
            )
            sys.exit(1)

    def _on_test_start(self, environment: Any, **_more: object) -> None:  # noqa: ANN401 - Locust's
        self.recorder.reset()
        self._started_at = datetime.now(UTC)
        if not self._is_worker:
            self._fetch_prices(environment.host or self.settings.host)
            gevent.spawn(self._cut_windows, environment.runner)

    def _fetch_prices(self, host: str) -> None:
        try:
            self.catalogue = Catalogue.fetch(host, self.settings.api_key, self.settings.model)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.catalogue = None
            logger.warning("No prices from %s/v1/models (%s): dollars stay unknown.", host, type(error).__name__)

    def _cut_windows(self, runner: Any) -> None:  # noqa: ANN401 - Locust's
        recorder, windows = self.recorder, self.recorder.windows
        while True:
            gevent.sleep(WINDOW_S)
            if windows is not recorder.windows or runner.state not in _ACTIVE:
                return
            self._cut(self._users)

    def _cut(self, users: int) -> None:
        window = self.recorder.cut(users)
        if window is not None and self._run_file is not None:
            print(progress_line(window), flush=True)

    def _on_spawning_complete(self, user_count: int, **_more: object) -> None:
        if not self._is_worker and self.recorder.warming_up:
            self._cut(user_count)
            self.recorder.all_users_there()

    def _on_test_stopping(self, **_more: object) -> None:
        if not self._is_worker:
            self._cut(self._users)
            self.recorder.stopping()

    def _on_test_stop(self, environment: Any, **_more: object) -> None:  # noqa: ANN401 - Locust's
        if self._run_file is not None and not self._is_worker:
            self._run_file.write_bytes(msgspec.json.format(msgspec.json.encode(self.summary()), indent=1))

    def _on_report_to_master(self, client_id: str, data: dict[str, Any]) -> None:
        data[_REPORT_KEY] = self.recorder.take().to_wire()

    def _on_worker_report(self, client_id: str, data: dict[str, Any]) -> None:
        if _REPORT_KEY in data:
            self.recorder.current.merge(Tally.from_wire(data[_REPORT_KEY]))

    def _watch_myself(self) -> None:
        """Note once a second how much of a core this process uses, and often how late a timer fires."""
        while True:
            wall, cpu = perf_counter(), process_time()
            while perf_counter() < wall + 1.0:
                before = perf_counter()
                gevent.sleep(_LOOK_S)
                self.recorder.current.observe("lag", perf_counter() - before - _LOOK_S)
            self.recorder.current.observe("cpu", (process_time() - cpu) / (perf_counter() - wall))
