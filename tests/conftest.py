"""Fixtures that every suite shares."""

import os
import signal
from collections.abc import Iterator

import pytest

from loadtest.local_triton import LocalTriton

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for tests that import a version's own code
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job and its children ignore it


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """The real Triton with the model repository as committed, one for the whole session: leave it healthy."""
    with LocalTriton.start(tmp_path_factory.mktemp("triton")) as running:
        yield running
