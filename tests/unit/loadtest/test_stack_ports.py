import pytest

from loadtest.local_triton import MODELS
from loadtest.processes import PortTakenError, free_port, listen
from loadtest.stack import Ports, SettingError, classifier_config


def test_ports_come_from_the_environment():
    ports = Ports.from_environment({"ROUTER_PORT": "9000", "CHEAP_PORT": "0", "TRITON_GRPC_PORT": "", "PATH": "/bin"})
    assert (ports.router_port, ports.cheap_port, ports.triton_grpc_port) == (9000, 0, 8001)


@pytest.mark.parametrize("text", ["http", "-1", "70000", "80.5", "٣"])
def test_what_is_not_a_port_is_named(text):
    with pytest.raises(SettingError, match=r"ROUTER_PORT=.* is not a port: a number from 1 to 65535"):
        Ports.from_environment({"ROUTER_PORT": text})


def test_free_ports_need_no_check():
    Ports.any_free().check()


def test_a_taken_port_is_refused_with_its_setting():
    with listen(0, "") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} is already taken.*EXPENSIVE_PORT=PORT"):
            Ports(0, 0, 0, 0, 0, port, 0).check()


def test_the_same_port_twice_is_refused():
    port = free_port()
    with pytest.raises(PortTakenError, match="EXPENSIVE_PORT"):
        Ports(0, 0, 0, 0, port, port, 0).check()


def test_the_classifier_comes_from_the_environment():
    assert classifier_config({}) == classifier_config({"CLASSIFIER": "static"}) == "cpu"
    assert (MODELS / "prompt_classifier" / "configs" / "cpu.pbtxt").is_file()
    assert classifier_config({"CLASSIFIER": "minilm"}) == "cpu-minilm"
    with pytest.raises(SettingError, match="CLASSIFIER='bert' is not a classifier: one of static, minilm"):
        classifier_config({"CLASSIFIER": "bert"})
