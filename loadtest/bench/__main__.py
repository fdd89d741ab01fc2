"""The router side by side with its peers, and its cost as work grows.

    python -m loadtest.bench [--quick] [--only proxy,streams] [--rounds 5] [--seconds 2] [--report FILE]

Everything runs on this machine: the measured server on one core, load and upstream on the others, targets in turns.
Peers are installed once into .run/bench. The report is REPORT.json, REPORT.md and a few plots; sections that are not
run again stay in it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from loadtest.bench import (
    classification,
    classifier,
    growth,
    memory,
    nginx,
    overload,
    proxy,
    report,
    streams,
    workers,
    wrk,
)
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
    "workers": workers.section,
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
        sections, plots = _run(options)
    except (ChildError, LocalTritonError, WrkError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{report.markdown_of(sections, options.report.name)}")
    report.write(options.report, sections, plots, tuple(SECTIONS))
    print(f"Written: {options.report}.md, .json and plots")
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


def _run(options: argparse.Namespace) -> tuple[report.Document, dict[str, str]]:
    """Run the sections; return them as the document has them, and the plots."""
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 2)
    sections: report.Document = {}
    plots: dict[str, str] = {}
    with ExitStack() as stack:
        cores = Cores.of_this_machine()
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        stack.enter_context(pinned_to(cores.load))
        upstream, port = nginx.start_upstream(run_dir / "upstream")
        stack.callback(upstream.stop)
        environments = REPOSITORY / ".run" / "bench" / "peers"
        lab = Lab(run_dir, environments, cores, port, rounds, seconds, options.quick, _say)
        machine = describe(len(cores.target | cores.load))
        for name in options.only:
            _say(f"== {name}")
            conditions = {
                "machine": machine,
                "busy_before": round(busy_share_of_others(), 3),
                "rounds": rounds,
                "seconds": seconds,
            }
            outcome = SECTIONS[name](lab)
            sections[name] = report.section_of(outcome, conditions)
            plots |= outcome.plots
    return sections, plots


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
