"""`python -m monitoring.local`: the same configuration for this machine, and clear words when it cannot start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from monitoring.local import main
from monitoring.prometheus_server import PrometheusError, render, serve_command
from tests.unit.monitoring.sources import needs_prometheus


def test_only_addresses_change(tmp_path: Path) -> None:
    config = yaml.safe_load(render({"router-controller-metrics": "127.0.0.1:1234", "locust": "127.0.0.1:4000"}))
    assert [(job["job_name"], job["static_configs"]) for job in config["scrape_configs"]] == [
        ("router-controller-metrics", [{"targets": ["127.0.0.1:1234"]}]),
        ("locust", [{"targets": ["127.0.0.1:4000"]}]),
    ]
    assert config["global"]["scrape_interval"] == "5s"
    [pattern] = config["rule_files"]
    assert Path(pattern).is_absolute()
    assert {path.name for path in Path(pattern).parent.glob("*.yml")} == {"alerts.yml", "nvidia_v1.yml", "slo.yml"}


def test_another_interval_is_for_everything() -> None:
    config = yaml.safe_load(render({"dcgm": "127.0.0.1:9400"}, interval="1s"))
    assert config["global"] == {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}


def test_a_job_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="grafana"):
        render({"grafana": "127.0.0.1:3000"})


@needs_prometheus
def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PrometheusError, match=f"port {port} is already taken; choose another with PROMETHEUS_PORT"):
            serve_command(tmp_path / "prometheus.yml", tmp_path, port, retention="1d")


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADMIN_PORT", text)
    assert main(["--run-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"metrics: ADMIN_PORT={text!r} is not a port: a number from 1 to 65535\n"


def test_a_missing_prometheus_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--run-dir", str(tmp_path / "run")]) == 1
    assert "apt install prometheus" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
