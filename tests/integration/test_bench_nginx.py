"""The benches' nginx, which several sections start one after the other in one directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.bench import nginx
from loadtest.processes import responds


@pytest.mark.skipif(nginx.missing() is not None, reason="needs nginx (Debian: apt install nginx-light)")
def test_a_second_section_may_start_it_where_the_first_did(tmp_path: Path) -> None:
    upstream, upstream_port = nginx.start_upstream(tmp_path / "upstream")
    try:
        for _ in range(2):
            proxy, port = nginx.start_proxy(tmp_path / "nginx", upstream_port)
            try:
                assert responds(f"http://127.0.0.1:{port}/bench/ready")
            finally:
                proxy.stop()
    finally:
        upstream.stop()
