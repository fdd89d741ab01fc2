"""check-config's report, and docs/configuration.md held to what the parser takes."""

from __future__ import annotations

import dataclasses
import io
import re
import socket
from pathlib import Path

import pytest

from router.check_config import Report, check, print_report
from router.errors import ConfigurationError
from router.settings import (
    SCORE_NAMES,
    TASK_TYPES,
    AdminSettings,
    DecisionLogSettings,
    ServerSettings,
    Timeouts,
    TritonSettings,
    UpstreamSettings,
    load_settings,
)
from router.settings import __all__ as public_names
from router.settings.load import OVERRIDES
from router.settings.policies import score_range
from tests.unit.router.configuration import DATA

CONFIG = """\
server: {workers: 2}
models:
  cheap: {api_base: "https://api.openai.com/v1", api_key: sk-canary, model: gpt-4o-mini}
  big: {api_base: "http://127.0.0.1:9/v1", price: {input: 2, output: 8}, context_limit: 8192, fallbacks: [cheap, local], supports: []}
  local: {api_base: "http://127.0.0.1:9/v1"}
policies:
  default: {type: threshold, score: {gain: 0.5, reasoning: 1}, tiers: [{model: cheap}, {model: big, from: 0.25}]}
  value: {type: expected_value, weak: cheap, strong: big, value: 0.02}
  task: {type: task_map, models: {Code Generation: big}, default_model: cheap, min_probability: 0.4}
  only: {type: fixed, model: local, fallbacks: []}
  v1: {type: label, triton_model: ens, llms: [{label: Hard, model: big}, {label: Other, model: cheap}]}
clients:
  team:
    key_sha256: "1111111111111111111111111111111111111111111111111111111111111111"
    rate: 100/minute
    policies: [only]
  ops:
    key_sha256:
      - "2222222222222222222222222222222222222222222222222222222222222222"
      - "3333333333333333333333333333333333333333333333333333333333333333"
"""  # noqa: E501

OPEN = "clients  none: everybody who reaches the listener is let in"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG)
    return path


def printed(report: Report) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return print_report(report, out, err), out.getvalue(), err.getvalue()


def test_the_summary_says_what_the_file_means(config: Path) -> None:
    code, out, err = printed(check(config, {}))
    out = re.sub(r"genai-prices [0-9.]+", "PACKAGE", out)
    assert (code, err) == (0, "")
    squeezed = re.compile(r" +(?=\$|context|price|\n)")  # the price's column depends on the package's version
    assert squeezed.sub(" ", out) == squeezed.sub(" ", (DATA / "check_config.txt").read_text())


def test_a_task_that_only_another_classifier_can_have_is_pointed_out(config: Path) -> None:
    config.write_text(CONFIG.replace("{Code Generation: big}", "{Code Generation: big, card_lost: big}"))
    code, out, _ = printed(check(config, {}))
    assert code == 0
    assert '"card_lost" is no task of the shipped classifier; the served version must have it' in out
    assert '"Code Generation" is no task' not in out


def test_the_summary_says_when_everybody_is_let_in(config: Path) -> None:
    config.write_text(CONFIG.partition("clients:")[0])
    assert OPEN in printed(check(config, {}))[1].splitlines()


def test_problems_go_to_stderr_one_a_line(config: Path) -> None:
    config.write_text(CONFIG.replace("workers: 2", "workers: 0").replace("0.25", "x"))
    code, out, err = printed(check(config, {}))
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert [line.split(":")[1] for line in lines[:2]] == ["1", "7"]
    assert lines[2:] == ["2 problems; nothing was started"]


def test_one_problem_is_singular(tmp_path: Path) -> None:
    assert printed(check(tmp_path / "none.yaml", {}))[2].endswith("1 problem; nothing was started\n")


def test_it_prints_to_the_real_streams(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(check(config, {}))
    print_report(check(config.parent / "none.yaml", {}))
    captured = capsys.readouterr()
    assert captured.out.startswith("router.yaml: ok\n")
    assert "there is no such file" in captured.err


def test_it_contacts_nothing_and_shows_no_key(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("check-config opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    _, out, _ = printed(check(config, {}))
    assert "sk-canary" not in out


# --- the documentation -------------------------------------------------------------------------------------------

DOCS = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()


def documented(heading: str) -> dict[str, list[str]]:
    """Rows of the first table below `heading`, by key: type, default, allowed, meaning."""
    section = re.split(rf"^#+ {re.escape(heading)}$", DOCS, flags=re.MULTILINE)[1]
    table = re.search(r"^\| key .*\n\|[-|]+\n((?:\|.*\n)+)", section, flags=re.MULTILINE)
    assert table is not None
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.group(1).splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows}


PROBE = """\
zzz: 1
server: {zzz: 1}
admin: {zzz: 1}
triton: {zzz: 1}
upstreams: {zzz: 1}
decision_log: {zzz: 1}
clients: {c: {key_sha256: "0000000000000000000000000000000000000000000000000000000000000001", zzz: 1}}
models:
  r: {replicas: [{api_base: "http://x/v1", zzz: 1}]}
  m: {api_base: "http://x/v1", price: {input: 1, output: 1, zzz: 1}, timeouts: {zzz: 1}, zzz: 1}
policies:
  threshold: {type: threshold, score: gain, tiers: [{model: m, zzz: 1}, {model: m, from: 0}], zzz: 1}
  expected_value: {type: expected_value, weak: m, strong: m, value: 1, zzz: 1}
  task_map: {type: task_map, models: {Other: m}, default_model: m, zzz: 1}
  fixed: {type: fixed, model: m, zzz: 1}
  label: {type: label, triton_model: t, llms: [{label: a, model: m, zzz: 1}], zzz: 1}
default_policy: fixed
"""
HEADINGS = {
    "zzz": "Top level",
    "server.zzz": "server",
    "admin.zzz": "admin",
    "decision_log.zzz": "decision_log",
    "triton.zzz": "triton",
    "upstreams.zzz": "upstreams",
    "clients.c.zzz": "clients",
    "models.m.zzz": "models",
    "models.r.replicas[0].zzz": "replicas",
    "models.m.price.zzz": "price",
    "models.m.timeouts.zzz": "timeouts",
    "policies.threshold.zzz": "threshold",
    "policies.threshold.tiers[0].zzz": "tiers",
    "policies.expected_value.zzz": "expected_value",
    "policies.task_map.zzz": "task_map",
    "policies.fixed.zzz": "fixed",
    "policies.label.zzz": "label",
    "policies.label.llms[0].zzz": "llms",
}


def test_every_key_that_the_parser_takes_is_documented_and_no_other(tmp_path: Path) -> None:
    """The parser names its keys itself, when it meets one that it does not know."""
    path = tmp_path / "router.yaml"
    path.write_text(PROBE)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {})
    found = re.findall(r"yaml:\d+: (\S+): unknown key; allowed: (.*)", str(caught.value))
    taken = {HEADINGS[place]: set(keys.split(", ")) for place, keys in found}
    # The first tier has no `from` of its own accord, but the parser asks for it, to refuse it.
    assert taken == {heading: set(documented(heading)) for heading in HEADINGS.values()}


@pytest.mark.parametrize(
    ("heading", "defaults"),
    [
        ("server", ServerSettings()),
        ("admin", AdminSettings()),
        ("triton", TritonSettings()),
        ("timeouts", Timeouts()),
        ("upstreams", UpstreamSettings()),
        ("decision_log", DecisionLogSettings()),
    ],
)
def test_documented_defaults_are_the_real_ones(
    heading: str,
    defaults: ServerSettings | AdminSettings | TritonSettings | Timeouts | UpstreamSettings | DecisionLogSettings,
) -> None:
    rows = documented(heading)
    for field in dataclasses.fields(defaults):
        assert rows[field.name][1] == as_documented(getattr(defaults, field.name))


def as_documented(value: object) -> str:
    if value in (None, ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_scores_tasks_and_variables_are_documented() -> None:
    for word in (*SCORE_NAMES, *OVERRIDES):
        assert f"`{word}`" in DOCS
    assert all(task in documented("task_map")["models"][3] for task in TASK_TYPES)


def test_documented_score_ranges_are_the_real_ones() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\S+) to (\S+) \|", DOCS, flags=re.MULTILINE)
    ranges = {name.strip("` "): (float(low), float(high)) for names, low, high in rows for name in names.split(",")}
    assert ranges == {name: score_range(((name, 1.0),)) for name in SCORE_NAMES}


def test_the_documented_example_loads(tmp_path: Path) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", DOCS, flags=re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "router.yaml"
        path.write_text(example)
        assert load_settings(path, {"OPENAI_API_KEY": "k"}).default_policy == "default"


def test_public_names_are_sorted_and_real() -> None:
    import router.settings

    assert len(set(public_names)) == len(public_names)
    assert all(hasattr(router.settings, name) for name in public_names)
