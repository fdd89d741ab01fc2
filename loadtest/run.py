"""Run the load test: with Locust's web UI, or headless with a report, or twice to compare with the dearest model.

Exit status: 0 done, 1 requests failed or nothing could be sent, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.load.floor import floor_in_words, measure_floor
from loadtest.load.locust_command import headless_command, run_variables, web_command
from loadtest.load.pricing import Catalogue
from loadtest.load.prompts import PromptError, load_prompts
from loadtest.load.report import in_words, make_report
from loadtest.load.report_html import render
from loadtest.load.settings import LoadSettings, SettingError, variables
from loadtest.processes import ChildError, interrupt_on_sigterm
from loadtest.stack import REPOSITORY

Figures = dict[str, Any]

_PATIENCE_S = 10  # for open answers, once we were interrupted


class RunError(RuntimeError):
    """The load test cannot run; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the options ask for."""
    options = _parser().parse_args(arguments)
    interrupt_on_sigterm()
    flags = {name.upper(): value for name, value in vars(options).items() if isinstance(value, str)}
    try:
        settings = LoadSettings.from_environment({**os.environ, **flags})
        if settings.prompts is not None:
            load_prompts(settings.prompts)
        catalogue = _look(settings)
        run_dir = REPOSITORY / settings.report_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        floor = None if options.no_floor else _floor(settings, flags, run_dir)
        if options.web:
            return _web(settings, flags)
        return _headless(settings, catalogue, flags, run_dir, floor, compare=options.compare_baseline)
    except (SettingError, PromptError, RunError, ChildError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nloadtest: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<14} {about} ({default})" for name, default, about in variables())
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.run",
        description=__doc__,
        epilog=f"environment variables (default); a flag wins over its variable:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--web", action="store_true", help="start Locust's web UI and wait for 'begin'")
    parser.add_argument("--compare-baseline", action="store_true", help="run again with the dearest model alone")
    parser.add_argument("--no-floor", action="store_true", help="do not measure the generator's floor first")
    for name in ("host", "model", "users", "duration", "processes", "shape", "arrivals"):
        parser.add_argument(f"--{name}", metavar=name.upper(), help=f"like {name.upper()} below")
    return parser


def _look(settings: LoadSettings) -> Catalogue:
    """Return the models that the server lists, none when it has no list. Raises `RunError` when it is not there."""
    host = settings.host
    try:
        catalogue = Catalogue.fetch(host, settings.api_key, settings.model)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise RunError(f"{host} refuses the key ({error.code}); set API_KEY") from error
        print(f"{host}/v1/models answers {error.code}: prices stay unknown, the test goes on")
        return Catalogue({})
    except (OSError, ValueError) as error:
        raise RunError(
            f"no router answers at {host} ({error}).\n"
            "  Start one in another terminal with `make serve`, or name yours: HOST=http://... (and API_KEY=...)"
        ) from error
    if catalogue.names and settings.model.partition("@")[0] not in catalogue.names:
        raise RunError(f"MODEL={settings.model!r} is not at {host}; it lists: {', '.join(catalogue.names)}")
    return catalogue


def _floor(settings: LoadSettings, flags: Mapping[str, str], run_dir: Path) -> Figures:
    print(f"Measuring the generator's own floor with {settings.users:,} users before a server that does nothing ...")
    floor = measure_floor(
        settings, lambda changed: _run({**flags, **changed}, run_dir / "floor.run.json"), run_dir / "null-server.log"
    )
    print(f"{floor_in_words(floor)}\n", flush=True)
    return floor


def _web(settings: LoadSettings, flags: Mapping[str, str]) -> int:
    print(f"Open http://{settings.web_host}:{settings.web_port} and press START. Target: {settings.host}")
    print(f"Prometheus metrics: http://{settings.exporter_host}:{settings.exporter_port}/metrics. Ctrl-C ends it.")
    return _wait(web_command(settings), {**os.environ, **flags})


def _headless(
    settings: LoadSettings,
    catalogue: Catalogue,
    flags: Mapping[str, str],
    run_dir: Path,
    floor: Figures | None,
    *,
    compare: bool,
) -> int:
    if compare and catalogue.dearest is None:
        raise RunError(f"--compare-baseline needs the prices of all models; {settings.host}/v1/models lacks some")
    print(f"{settings.users:,} users, {settings.duration:.0f} s, model {settings.model} at {settings.host}")
    runs = [("With the router", _run(flags, run_dir / "routed.run.json"))]
    if compare:
        print(f"\nOnce more, everything to {catalogue.dearest}")
        figures = _run({**flags, "MODEL": str(catalogue.dearest)}, run_dir / "baseline.run.json")
        runs.append((f"Always {catalogue.dearest}", figures))
    report = make_report(runs, floor)
    (run_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (run_dir / "report.html").write_text(render(report))
    print("\n" + "\n".join(in_words(report)))
    print(f"\nReport: {settings.report_dir / 'report.html'} and report.json")
    return 1 if any(run["errors"] or not run["requests"] for _title, run in runs) else 0


def _run(changed: Mapping[str, str], run_file: Path) -> Figures:
    """Run Locust headless and return its figures. Raises `RunError` when it left none."""
    run_file.unlink(missing_ok=True)
    environment = {**os.environ, **changed, **run_variables(run_file)}
    status = _wait(headless_command(LoadSettings.from_environment(environment), run_file), environment)
    try:
        figures: Figures = json.loads(run_file.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"Locust ended with status {status} and left no figures") from error
    return figures


def _wait(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command, its output being ours, and return its status.

    It leads its own process group: Ctrl-C reaches us, we ask it once to end, and nothing of it stays.
    """
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(_PATIENCE_S)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
