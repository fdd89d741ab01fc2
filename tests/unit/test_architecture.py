"""The rules of docs/architecture.md, read from the source: who may import whom, and what stays in one place."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("router", "classifier", "loadtest", "monitoring", "triton_models", "deploy")
MAX_LINES = 400

# Lowest first: a part of the router may import its own part and those below it.
LEVELS = (
    ("router.errors",),
    ("router.settings",),
    ("router.cork", "router.timer", "router.meters", "router.tracing", "router.breaker", "router.watchdog"),
    ("router.metrics",),
    ("router.upstream",),
    ("router.decide",),
    ("router.clients",),
    ("router.http",),
    ("router.app",),
    ("router.reload", "router.workers"),
    ("router.server", "router.check_config"),
    ("router.__main__",),
)
# Third-party packages (and their parts) that only some parts of the router may know.
OWNERS = {
    "httptools": ("router.http.protocol", "router.upstream.http1"),
    "grpc": ("router.decide.triton",),
    "tritonclient": ("router.decide.triton",),
    "fastapi": ("router.http", "router.app"),
    "starlette": ("router.http", "router.app"),
    "uvicorn": ("router.server", "router.http.protocol", "router.http.answer"),
    "yaml": ("router.settings",),
    "genai_prices": ("router.settings",),
    "limits": ("router.settings.clients", "router.clients.rates"),
    "sqlite3": ("router.clients.spending",),
    "opentelemetry": ("router.tracing",),
    "prometheus_client": ("router.metrics", "router.meters", "router.http.ops", "router.http.samples"),
}
PURE = (
    "router.errors",
    "router.clients.permission",
    "router.decide.classification",
    "router.decide.fit",
    "router.decide.policy",
    "router.decide.prompt",
    "router.decide.tokens",
    "router.http.samples",
    "router.http.selection",
    "router.upstream.attempts",
    "router.upstream.refusal",
    "router.upstream.retry",
    "router.upstream.sse",
    "router.upstream.usage",
)


@pytest.mark.parametrize("room", ["router", "classifier"])
def test_the_page_names_every_file(room: str) -> None:
    code_spans = re.findall("`([^`\n]+)`", (ROOT / "docs" / "architecture.md").read_text())
    named = [f"*/{span.removeprefix(f'{room}/')}" for span in code_spans if span.endswith(".py")]
    files = [path for path in sources(room) if path.name != "__init__.py"]
    unnamed = [path for path in files if not any(fnmatch(str(path), pattern) for pattern in named)]
    assert [str(path.relative_to(ROOT)) for path in unnamed] == []


def sources(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, at its top or within a function; `from a import b` is `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def within(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def level(module: str) -> int | None:
    return next((i for i, parts in enumerate(LEVELS) if within(module, parts)), None)


ROUTER = {module_name(path): path for path in sources("router")}


def router_imports(module: str) -> set[str]:
    """The modules of the router that this one imports; the packages that it is in are there before it."""
    return {name for name in imports(ROUTER[module]) if name in ROUTER and not within(module, (name,))}


def everything_behind(module: str) -> set[str]:
    """All that is loaded with a module: the router's modules and what they import."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += router_imports(current) | {parent for parent in ROUTER if current.startswith(f"{parent}.")}
    return seen.union(*(imports(ROUTER[name]) for name in seen))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_know_each_other(room: str) -> None:
    others = tuple(other for other in ROOMS if other != room)
    found = [(str(path.relative_to(ROOT)), name) for path in sources(room) for name in imports(path)]
    assert [(path, name) for path, name in found if within(name, others)] == []


def test_the_rooms_that_hold_code_are_seen() -> None:
    assert [room for room in ("router", "classifier", "loadtest", "triton_models") if not sources(room)] == []


def test_a_model_version_needs_nothing_but_numpy_tokenizers_and_onnxruntime() -> None:
    siblings = {path.stem for path in sources("triton_models")}
    allowed = {"numpy", "tokenizers", "onnxruntime", "triton_python_backend_utils", *siblings, *sys.stdlib_module_names}
    found = {name.partition(".")[0] for path in sources("triton_models") for name in imports(path)}
    assert found - allowed == set()


def test_every_module_of_the_router_has_its_level() -> None:
    assert [name for name in ROUTER if name != "router" and level(name) is None] == []


@pytest.mark.parametrize("module", sorted(set(ROUTER) - {"router"}))
def test_imports_within_the_router_point_downwards(module: str) -> None:
    own = level(module)
    assert own is not None
    upwards = [name for name in router_imports(module) if (level(name) or 0) > own]
    assert upwards == []


def test_no_two_modules_of_the_router_need_each_other() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module not in finished:
            for name in router_imports(module):
                visit(name, (*path, module))
            finished.add(module)

    for module in ROUTER:
        visit(module, ())


def test_deciding_knows_no_http() -> None:
    forbidden = ("router.http", "router.upstream", "fastapi", "starlette", "uvicorn", "httptools")
    for module in (name for name in ROUTER if within(name, ("router.decide",))):
        assert [name for name in everything_behind(module) if within(name, forbidden)] == [], module


def test_batching_knows_no_triton() -> None:
    forbidden = ("router.decide.triton", "grpc", "tritonclient")
    assert [name for name in everything_behind("router.decide.batching") if within(name, forbidden)] == []


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_a_library_has_one_place(package: str) -> None:
    users = {module for module, path in ROUTER.items() if any(within(name, (package,)) for name in imports(path))}
    assert users, f"nobody imports {package} any more; take it from the list"
    assert [module for module in sorted(users) if not within(module, OWNERS[package])] == []


@pytest.mark.parametrize("module", PURE)
def test_what_is_called_pure_does_no_input_or_output(module: str) -> None:
    doing = ("asyncio", "os", "io", "pathlib", "socket", "logging", "subprocess", "threading", "time", "random")
    assert [name for name in imports(ROUTER[module]) if within(name, doing)] == []
    calls = (node.func for node in ast.walk(tree(ROUTER[module])) if isinstance(node, ast.Call))
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    assert called & {"open", "print", "input"} == set()


def environment_uses(path: Path) -> Iterator[ast.AST]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"):
            yield node


def test_the_environment_is_read_in_few_places() -> None:
    users = {module for module, path in ROUTER.items() if any(environment_uses(path))}
    assert [name for name in users if not within(name, ("router.settings", "router.__main__", "router.server"))] == [
        "router.metrics"
    ]
    assert not any(name in imports(path) for path in ROUTER.values() for name in ("os.environ", "os.getenv"))


def test_metrics_only_see_the_switch_of_their_own_library() -> None:
    """prometheus_client itself takes the workers' shared directory from there when it is imported."""
    path = ROUTER["router.metrics"]
    for use in environment_uses(path):
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and use in ast.walk(node.func)]
        assert [ast.unparse(call) for call in calls] == ["os.environ.get('PROMETHEUS_MULTIPROC_DIR')"]


def test_files_stay_short_enough_to_read() -> None:
    paths = [path for room in (*ROOMS, "tests") for path in sources(room)]
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {path: lines for path, lines in long.items() if lines > MAX_LINES} == {}
