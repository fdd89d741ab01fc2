"""Fuzzing guided by coverage, with atheris: `python -m tests.fuzz body --seconds 60`.

Starts from the corpus beside this file. What broke a promise is kept as `crash-*` in the working directory; minimise
it, mend the router, and add it to the corpus, which the test suite replays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: `make fuzz` installs it where there is a wheel for this Python.")

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Fuzz one target for a while; the exit status says whether a promise broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(path.name for path in CORPUS.iterdir()))
    parser.add_argument("--seconds", type=int, default=60, help="how long (%(default)s)")
    options = parser.parse_args()
    with atheris.instrument_imports(include=["router", "json"]):
        from tests.fuzz.targets import TARGETS
    with TemporaryDirectory() as found:  # what libFuzzer finds on its way stays out of the kept corpus
        flags = [f"-max_total_time={options.seconds}", "-max_len=2048", "-timeout=20", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *flags, found, str(CORPUS / options.target)], TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
