import json
from pathlib import Path

import pytest

from classifier.errors import VersionError
from classifier.render_config import render_config, spec_line

AWKWARD = {"name": 'quo"te \\ back\nline é', "metrics": {"apgr": 0.65}}


def version(tmp_path: Path, config: str) -> Path:
    directory = tmp_path / "model" / "1"
    directory.mkdir(parents=True)
    (directory / "spec.json").write_text(json.dumps(AWKWARD, indent=2))
    (tmp_path / "model" / "config.pbtxt").write_text(config)
    return directory


def test_the_line_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    directory = version(tmp_path, f'name: "m"\n{spec_line({"old": 1})}\ndynamic_batching {{ }}\n')
    config = tmp_path / "model" / "config.pbtxt"
    assert render_config(directory) == [config]
    assert config.read_text() == f'name: "m"\n{spec_line(AWKWARD)}\ndynamic_batching {{ }}\n'
    render_config(directory)
    assert config.read_text().count('key: "spec"') == 1


def test_protobuf_reads_back_what_was_written() -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = text_format.Parse(spec_line(AWKWARD), model_config_pb2.ModelConfig())
    assert json.loads(config.parameters["spec"].string_value) == AWKWARD


def test_a_config_without_the_line_is_refused(tmp_path: Path) -> None:
    directory = version(tmp_path, 'name: "m"\n')
    with pytest.raises(VersionError, match="found 0 lines"):
        render_config(directory)


def test_a_version_without_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match=r"spec\.json is missing"):
        render_config(tmp_path)


def test_only_the_configs_that_serve_the_version_are_written(tmp_path: Path) -> None:
    directory = version(tmp_path, f"version_policy {{ specific {{ versions: [ 2 ] }} }}\n{spec_line({})}\n")
    configs = tmp_path / "model" / "configs"
    configs.mkdir()
    for name, policy in (("cpu", "version_policy { specific { versions: [ 1 ] } }"), ("all", "")):
        (configs / f"{name}.pbtxt").write_text(f"{policy}\n{spec_line({})}\n")
    assert render_config(directory) == [configs / "all.pbtxt", configs / "cpu.pbtxt"]
    assert spec_line({}) in (tmp_path / "model" / "config.pbtxt").read_text()
