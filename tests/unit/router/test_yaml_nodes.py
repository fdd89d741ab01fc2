"""The file as YAML: variables, anchors, limits, and files that are none."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.errors import ConfigurationError
from router.settings import load_settings
from router.settings.yaml_nodes import MAX_FILE_BYTES, MAX_PROBLEMS, MAX_SECRET_BYTES, resolve
from tests.unit.router.configuration import DATA, ENVIRON, GOOD, KEY, changed, outcome, problems_of, write

# Every example of a property writes the same file anew, so that the one directory serves them all.
IN_ONE_DIRECTORY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "router.yaml: the file is empty; docs/configuration.md has an example"),
        ("# nothing\n", "router.yaml: the file is empty; docs/configuration.md has an example"),
        ("- 1\n", "router.yaml:1: must be a mapping (key: value), not a list"),
        ("hello\n", "router.yaml:1: must be a mapping (key: value), not text"),
        (b"a: b\nc: \xff\n", "router.yaml:2: not UTF-8; save the file as UTF-8"),
        ("a: b\nc: \x07\n", "router.yaml:2: a control character, which YAML does not allow"),
        (
            "a:\n  [1,\n  2\n",
            "router.yaml:4: not valid YAML: while parsing a flow sequence, which starts on line 2, expected",
        ),
        ("a: *nowhere\n", "router.yaml:1: not valid YAML: found undefined alias 'nowhere'"),
        ("a: 1\n---\nb: 2\n", "router.yaml:2: not valid YAML: "),
        ("a: &a [*a]\n", "router.yaml:1: a[0]: an alias that contains itself"),
        ("[" * 5000, "router.yaml: nested too deeply"),
        ('a: "\\UFFFFFFFF"\n', "router.yaml: not valid YAML: a number is out of range"),
        ("a: 1\n" + "#" * MAX_FILE_BYTES, f"router.yaml: larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: str | bytes, problem: str) -> None:
    found = problems_of(write(tmp_path, content))
    assert found[0].startswith(problem)


def test_syntax_errors_do_not_quote_the_file(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, f"models: {{m: {{api_key: {KEY}, ]\n"))
    assert problem.startswith("router.yaml:1: not valid YAML")
    assert KEY not in problem


def test_missing_file_and_directory(tmp_path: Path) -> None:
    advice = "name another, or write it; docs/configuration.md has an example"
    assert problems_of(tmp_path / "none.yaml") == [f"none.yaml: there is no such file: {advice}"]
    assert problems_of(tmp_path / ".")[0].endswith("cannot be read: Is a directory")
    assert problems_of(Path("a\0b"))[0].endswith("cannot be read: not a usable path")


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    text = GOOD + "".join(f"typo{i}: 1\n" for i in range(200))
    found = problems_of(write(tmp_path, text))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"router.yaml: more than {MAX_PROBLEMS} problems, stopped looking"


def test_an_alias_bomb_is_harmless(tmp_path: Path) -> None:
    bomb = "x-0: &a0 [1, 1]\n" + "".join(f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    assert load_settings(write(tmp_path, bomb + GOOD), ENVIRON) == load_settings(write(tmp_path, GOOD), ENVIRON)


# --- variables ---------------------------------------------------------------------------------------------------


def test_variables_fill_numbers_and_text(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD), {"KEY": KEY, "ROUTER_PORT": "9000", "TRITON_GRPC_PORT": "7001"})
    assert (loaded.server.port, loaded.triton.url) == (9000, "127.0.0.1:7001")


def test_an_unset_variable_is_one_problem_however_often_it_is_used(tmp_path: Path) -> None:
    text = changed("model: big-7b", "model: big-7b\n    api_key: ${KEY}")
    assert problems_of(write(tmp_path, text), {}) == [
        'router.yaml:4: models.cheap.api_key: "${KEY}" needs the environment variable KEY, which is not set; '
        "set it, or give a default: ${KEY:-value} (1 more like this)"
    ]


@pytest.mark.parametrize("written", ["${}", "${A B}", "${9}", "${A-b}", "${A:-${B}}"])
def test_what_is_no_variable_is_refused(tmp_path: Path, written: str) -> None:
    (problem,) = problems_of(write(tmp_path, changed("model: big-7b", f"model: '{written}'")))
    assert "is not a variable; write ${NAME}, ${NAME:-default} or ${file:/path}, not nested" in problem


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"{KEY}\r\n"])
def test_a_secret_comes_from_a_file(tmp_path: Path, content: str) -> None:
    secret = tmp_path / "api_key"
    secret.write_bytes(content.encode())
    text = changed("model: big-7b", f"model: big-7b\n    api_key: ${{file:{secret}}}")
    key = load_settings(write(tmp_path, text), ENVIRON).models["expensive"].replicas[0].api_key
    assert key is not None
    assert key.reveal() == KEY


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "names a file that cannot be read: No such file or directory"),
        (b"", "names a file that is empty"),
        (b"\n", "names a file that is empty"),
        (b"\xff" + KEY.encode(), "names a file that is not UTF-8 text"),
        (KEY.encode() * MAX_SECRET_BYTES, f"names a file of more than {MAX_SECRET_BYTES} bytes; is this the secret?"),
    ],
)
def test_a_secret_that_cannot_be_read_says_why(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    secret = tmp_path / "api_key"
    if content is not None:
        secret.write_bytes(content)
    text = changed("model: big-7b", f"model: big-7b\n    api_key: ${{file:{secret}}}")
    assert problems_of(write(tmp_path, text)) == [
        f'router.yaml:8: models.expensive.api_key: "${{file:api_key}}" {complaint}'
    ]


def test_a_secret_needs_an_absolute_path(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, changed("model: big-7b", "model: ${file:run/key}")))
    assert "needs an absolute path, such as ${file:/run/secrets/api_key}" in problem


def test_an_unclosed_variable_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, changed("model: big-7b", "model: ${BIG")))
    assert problem == 'router.yaml:7: models.expensive.model: "${BIG" has a `${` without its `}`'


def test_comments_need_no_variables(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "# ${NOT_SET}\n" + GOOD), ENVIRON).default_policy == "default"


def test_empty_values(tmp_path: Path) -> None:
    loaded = load_settings(write(tmp_path, GOOD.replace("${KEY}", "${KEY:-}")), {"KEY": "", "ROUTER_PORT": ""})
    assert loaded.models["cheap"].replicas[0].api_key is None
    assert loaded.server.port == 8084


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(PRINTABLE)
def test_a_variable_is_a_value_and_never_structure(value: str) -> None:
    assert resolve("${A}", {"A": value}) == (value, None)
    assert resolve("${A:-x}", {"A": value}) == (value, None)
    if "}" not in value and "${" not in value:
        assert resolve(f"${{A:-{value}}}", {}) == (value, None)


@IN_ONE_DIRECTORY
@given(PRINTABLE)
def test_any_printable_key_arrives_as_it_is(tmp_path: Path, value: str) -> None:
    api_key = load_settings(write(tmp_path, GOOD), {"KEY": value}).models["cheap"].replicas[0].api_key
    assert api_key is not None
    assert api_key.reveal() == value


@IN_ONE_DIRECTORY
@given(st.text(min_size=1, max_size=30))
def test_any_model_id_is_taken_or_refused_without_being_shown(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, changed("model: big-7b", "model: ${BIG}"))
    result = outcome(path, ENVIRON | {"BIG": value})
    if isinstance(result, ConfigurationError):
        assert result.problems == (f'{path}:7: models.expensive.model: "${{BIG}}" must be printable text on one line',)
        assert not value.isprintable()
    else:
        absent = value in ("~", "null", "Null", "NULL")
        assert result.models["expensive"].model == ("expensive" if absent else value)


# --- YAML's corners ----------------------------------------------------------------------------------------------


def test_types_come_from_the_key(tmp_path: Path) -> None:
    text = changed("model: big-7b", "model: no").replace("context_limit: 128000", 'context_limit: "128_000"')
    model = load_settings(write(tmp_path, text), ENVIRON).models["expensive"]
    assert (model.model, model.context_limit) == ("no", 128000)


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = """\
x-common: &common {api_base: "http://x/v1", price: {input: 1, output: 2}, model: shared}
x-slow: &slow {timeouts: {total_s: 900}}
models:
  a: {<<: *common}
  b: {<<: [*common, *slow], model: own}
  c: *common
policies: {p: {type: fixed, model: a}}
"""
    models = load_settings(write(tmp_path, text), {}).models
    assert [models[name].model for name in "abc"] == ["shared", "own", "shared"]
    assert [models[name].timeouts.total_s for name in "abc"] == [600, 900, 600]


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()), ENVIRON).models


# --- nothing but ConfigurationError ------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${X}", "${", "cheap"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.binary(max_size=4) | st.sampled_from(b"{ } [ ] & * ! | > ' \" : - \n \t % @ \\U ${".split(b" "))
FILES = (GOOD, (DATA / "nvidia_v1_config.yaml").read_text())
TREES_OF_FILES = tuple(yaml.safe_load(file.replace("${ROUTER_PORT:-8084}", "8084")) for file in FILES)


def places(tree: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, item in items for place in places(item, (*at, key)))]


def assert_loads_or_says_why(path: Path) -> None:
    result = outcome(path, ENVIRON | {"NVIDIA_API_KEY": KEY})
    if isinstance(result, ConfigurationError):
        assert result.problems
        assert all(problem.isprintable() for problem in result.problems)
        assert KEY not in str(result)


@IN_ONE_DIRECTORY
@given(st.data())
def test_a_mutated_tree_loads_or_is_a_configuration_error(tmp_path: Path, data: st.DataObject) -> None:
    tree = copy.deepcopy(data.draw(st.sampled_from(TREES_OF_FILES)))
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(tree)[1:]))
        target = tree
        for step in parents:
            target = target[step]
        target[last] = data.draw(TREES)
    assert_loads_or_says_why(write(tmp_path, yaml.safe_dump(tree, allow_unicode=True)))


@IN_ONE_DIRECTORY
@given(st.data())
def test_mutated_bytes_load_or_are_a_configuration_error(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(FILES)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), start + data.draw(st.integers(0, 6)))
        raw[start:end] = data.draw(PIECES)
    assert_loads_or_says_why(write(tmp_path, bytes(raw)))


def test_a_file_that_is_not_there_may_have_a_default(tmp_path: Path) -> None:
    shares = tmp_path / "shares"
    file = write(tmp_path, changed("model: big-7b", f"model: ${{file:{shares}:-big-7b}}"))
    assert load_settings(file, ENVIRON).models["expensive"].model == "big-7b"
    shares.write_text("small-1b\n")
    assert load_settings(file, ENVIRON).models["expensive"].model == "small-1b"
    shares.write_bytes(b"\xff")
    (problem,) = problems_of(file)
    assert "names a file that is not UTF-8 text" in problem
