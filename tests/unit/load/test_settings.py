"""Environment variables of the load test, and the commands they lead to."""

import itertools
from pathlib import Path

import pytest

from loadtest.load.locust_command import headless_command, web_command
from loadtest.load.settings import LoadSettings, SettingError, variables


def read(**environment):
    return LoadSettings.from_environment(environment)


def test_everything_has_a_default():
    settings = read()
    assert (settings.host, settings.model, settings.users) == ("http://127.0.0.1:8084", "auto", 100)
    assert read(USERS="", THINK_S="  ") == settings


def test_values_are_read_in_their_units():
    settings = read(DURATION="5m", THINK_S="2", SLO_TTFT_MS="250", SLO_E2E_MS="4000", PROMPTS="a.jsonl")
    assert (settings.duration, settings.think_s, settings.prompts) == (300.0, (2.0, 2.0), Path("a.jsonl"))
    assert (settings.objective.ttft_s, settings.objective.e2e_s) == (0.25, 4.0)
    assert read(DURATION="90").duration == 90.0
    assert read(THINK_S="0.5-3").think_s == (0.5, 3.0)


@pytest.mark.parametrize("url", ["http://x:1/v1", "http://x:1/", "http://x:1"])
def test_a_base_url_as_openai_clients_want_it_will_do(url):
    assert read(HOST=url).host == "http://x:1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "mybox"),
        ("USERS", "0"),
        ("USERS", "ten"),
        ("DURATION", "soon"),
        ("DURATION", "0s"),
        ("STREAM_SHARE", "1.5"),
        ("STREAM_SHARE", "nan"),
        ("THINK_S", "5-2"),
        ("THINK_S", "x"),
        ("SHAPE", "zigzag"),
        ("ARRIVALS", "ajar"),
        ("EXPORTER_PORT", "70000"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(name, value):
    with pytest.raises(SettingError, match=f"{name}='{value}' cannot be used: it must be ."):
        read(**{name: value})


def test_a_key_is_never_shown():
    with pytest.raises(SettingError) as caught:
        read(API_KEY="sk-secret\x00")
    assert "API_KEY" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_every_variable_is_in_the_documentation_with_its_default():
    page = (Path(__file__).parents[3] / "docs" / "loadtest.md").read_text()
    for name, default, about in variables():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.replace("`", "") == f"| {name} | {default} | {about} |"


@pytest.mark.parametrize(("users", "rate"), [("1", 1.0), ("100", 20.0), ("5000", 100.0)])
def test_users_come_within_seconds_but_not_at_once(users, rate):
    assert read(USERS=users).users_per_s == rate
    assert read(USERS=users, SPAWN_RATE="7").users_per_s == 7


def options(command):
    return dict(itertools.pairwise(command))


def test_the_web_form_is_filled_in():
    found = options(web_command(read(USERS="30", HOST="http://h:1", WEB_PORT="81")))
    assert (found["--users"], found["--spawn-rate"], found["--host"]) == ("30", "6", "http://h:1")
    assert (found["--web-host"], found["--web-port"]) == ("127.0.0.1", "81")


def test_a_shape_decides_users_and_time_itself():
    command = headless_command(read(SHAPE="ramp", PROCESSES="2"), Path("x.json"))
    assert {"--users", "--run-time", "--spawn-rate"} & set(command) == set()
    assert options(command)["--processes"] == "2"
    assert options(headless_command(read(DURATION="2m"), Path("x.json")))["--run-time"] == "120s"
