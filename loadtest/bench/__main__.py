"""The router side by side with its peers, and its cost as work grows.

    python -m loadtest.bench [--quick] [--only proxy,streams] [--rounds 5] [--seconds 2] [--report docs/reports/bench]

Everything runs on this machine: the measured server on one core, load and upstream on the others, targets in turns.
Peers are installed once into .run/bench. The report is REPORT.json, REPORT.md and a few plots.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from loadtest.bench import classification, classifier, growth, memory, nginx, overload, proxy, streams, wrk
from loadtest.bench.lab import Lab, Outcome
from loadtest.bench.machine import Cores, busy_share_of_others, describe, pinned_to
from loadtest.bench.wrk import WrkError
from loadtest.local_triton import LocalTritonError
from loadtest.processes import ChildError, interrupt_on_sigterm

REPOSITORY = Path(__file__).resolve().parents[2]
SECTIONS: Mapping[str, Callable[[Lab], Outcome]] = {
    "proxy": proxy.section,
    "streams": streams.section,
    "memory": memory.section,
    "classification": classification.section,
    "classifier": classifier.section,
    "overload": overload.section,
    "growth": growth.section,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write the report; return the exit status."""
    options = _parser().parse_args(arguments)
    if lacking := [what for what in (wrk.missing(), nginx.missing()) if what]:
        print("\n".join(f"bench: {what}" for what in lacking), file=sys.stderr)
        return 2
    interrupt_on_sigterm()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of connections, here and in every child
    try:
        document, text, plots = _run(options)
    except (ChildError, LocalTritonError, WrkError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report: Path = options.report
    report.parent.mkdir(parents=True, exist_ok=True)
    report.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    report.with_suffix(".md").write_text(text)
    for name, picture in plots.items():
        report.with_name(f"{report.name}-{name}.svg").write_text(picture)
    print(f"\n{text}\nWritten: {report.with_suffix('.md')}, .json, {len(plots)} plots")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="without peers, and shorter")
    parser.add_argument("--only", type=_sections, default=tuple(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="turns of each target (5; quick: 3)")
    parser.add_argument("--seconds", type=int, help="length of a turn (2; quick: 1)")
    parser.add_argument("--report", type=Path, default=REPOSITORY / ".run" / "bench" / "report", help="%(default)s")
    return parser


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a section: {', '.join(SECTIONS)}")
    return names


def _run(options: argparse.Namespace) -> tuple[dict[str, object], str, dict[str, str]]:
    """Run the sections; return the document, the report for people and the plots."""
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 2)
    machine = {**describe(), "busy_before": round(busy_share_of_others(), 3)}
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        cores = Cores.of_this_machine()
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        stack.enter_context(pinned_to(cores.load))
        upstream, port = nginx.start_upstream(run_dir / "upstream")
        stack.callback(upstream.stop)
        environments = REPOSITORY / ".run" / "bench" / "peers"
        lab = Lab(run_dir, environments, cores, port, rounds, seconds, options.quick, _say)
        for name in options.only:
            _say(f"== {name}")
            outcomes[name] = SECTIONS[name](lab)
    document = {
        "machine": machine,
        "rounds": rounds,
        "seconds_per_turn": seconds,
        **{name: outcome.figures for name, outcome in outcomes.items()},
    }
    plots = {name: picture for outcome in outcomes.values() for name, picture in outcome.plots.items()}
    return document, _text(machine, rounds, seconds, outcomes, options.report.name), plots


def _text(
    machine: Mapping[str, object], rounds: int, seconds: int, outcomes: Mapping[str, Outcome], report: str
) -> str:
    lines = [
        "# Bench",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Python {machine['python']};"
        f" {machine['busy_before']:.0%} busy with other work before the run. {rounds} rounds of {seconds} s.",
    ]
    for outcome in outcomes.values():
        lines += ["", f"## {outcome.title}", "", outcome.text, *(f"\n{note}" for note in outcome.notes)]
        lines += [f"\n![{name}]({report}-{name}.svg)" for name in outcome.plots]
    return "\n".join([*lines, ""])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
