"""docs/reliability.md shows the fault suite as it is."""

from __future__ import annotations

import subprocess
import sys

from tests.docs.snippets import REPOSITORY


def test_the_table_of_faults_is_current() -> None:
    command = [sys.executable, "-m", "tests.faults.table", "--check"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
