"""`make gpu-check` against the real Triton on this CPU: all that it does, without the GPU."""

import json
from pathlib import Path

import pytest

from loadtest.gpu_check.__main__ import main
from loadtest.gpu_check.served import Address, Served, rows_of
from loadtest.local_triton import MODELS, LocalTriton
from tests.fake_gpu_metrics import GPU_PAGE, fake_metrics
from tests.tiny_classifier import write_tiny_repository
from tests.triton_client import CLASSIFIER, classify, connect

QUICK = ["--batch", "1", "8", "--tokens", "16", "--instances", "1", "2", "--queue-delay-us", "200", "--seconds", "0.1"]
NO_TORCH = ["--train-python", "/nonexistent/python"]


@pytest.fixture(scope="module")
def own_triton(tmp_path_factory):
    with LocalTriton.start(tmp_path_factory.mktemp("triton")) as running:
        yield running


def configuration(triton):
    with connect(triton) as client:
        return client.get_model_config(CLASSIFIER).config


def test_the_check_sweeps_and_leaves_the_model_as_it_was(own_triton, tmp_path, capsys):
    before = configuration(own_triton)
    report = tmp_path / "report.json"
    address = ["--triton", own_triton.grpc_url, "--metrics", own_triton.metrics_url]
    assert main([*address, *QUICK, *NO_TORCH, "--json", str(report)]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out.splitlines()[-1])
    assert document == json.loads(report.read_text())
    assert {(one["instances"], one["batch"], one["tokens"]) for one in document["sweep"]} == {
        (instances, batch, 16) for instances in (1, 2) for batch in (1, 8)
    }
    assert all(one["rows_per_s"] > 0 and one["dollars_per_1k"] > 0 for one in document["sweep"])
    assert document["parity"]["prompts"] == 64
    assert document["parity"]["max_difference"] < 1e-4
    assert document["nodes_by_provider"]["CPUExecutionProvider"] > 0
    assert "no comparison with PyTorch" in printed.err
    assert configuration(own_triton) == before


def test_other_numbers_than_the_cpus_fail_the_check(tmp_path, capsys):
    served = write_tiny_repository(tmp_path / "models")
    with LocalTriton.start(tmp_path / "run", models=served) as triton:
        address = ["--triton", triton.grpc_url, "--metrics", triton.metrics_url, "--models", str(MODELS)]
        assert main([*address, *QUICK, *NO_TORCH]) == 1
    assert "FAILED: an outcome probability differs from the CPU's by" in capsys.readouterr().out


def test_a_triton_that_is_not_there_is_one_line(capsys):
    assert main(["--triton", "127.0.0.1:9", *QUICK]) == 1
    assert capsys.readouterr().err.startswith("gpu_check: ")


def test_a_gpus_metrics_are_read(own_triton):
    page = GPU_PAGE + "# TYPE nv_energy_consumption counter\n" + 'nv_energy_consumption{gpu_uuid="GPU-1"} 1234.5\n'
    with fake_metrics(200, page.encode()) as (url, _), Served(Address(own_triton.grpc_url, url)) as served:
        gpu = served.gpu()
    assert (gpu.utilisation, gpu.energy_j) == (0.5, 1234.5)


def test_rows_have_the_tokens_that_were_asked_for(own_triton):
    for tokens in (3, 16, 128, 512):
        assert set(classify(own_triton, rows_of(tokens, 4, seed=3))["TOKENS"][:, 0].tolist()) == {tokens}


def test_the_comparison_says_why_there_is_none(tmp_path: Path):
    from loadtest.gpu_check.compare import eager_times

    said: list[str] = []
    assert eager_times(tmp_path / "python", [[3]], 0.1, said.append) == []
    assert "No such file" in said[0]
