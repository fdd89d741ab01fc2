"""Write the dashboards' JSON for Grafana; with --check, only say whether the files are up to date."""

from __future__ import annotations

import argparse
import sys

from monitoring.dashboards import render


def main(arguments: list[str] | None = None) -> int:
    """Return 1 when --check finds a file that differs from its code."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a file is out of date")
    options = parser.parse_args(arguments)
    stale = [(path, text) for path, text in render().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(f"{path.name} {'is out of date; run python -m monitoring.dashboards' if options.check else 'written'}")
    if not stale:
        print("every dashboard is up to date")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
