"""NVIDIA LLM Router v1's config.yaml, unmodified and with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.settings import TASK_TYPES, LabelPolicy, Price, Secret, load_settings
from tests.unit.router.configuration import DATA, problems_of, write

FILE = DATA / "nvidia_v1_config.yaml"
ENVIRON = {"NVIDIA_API_KEY": "nvapi-canary"}
COMPLEXITY = (
    "Creativity",
    "Reasoning",
    "Contextual-Knowledge",
    "Few-Shot",
    "Domain-Knowledge",
    "No-Label-Reason",
    "Constraint",
)


def policy(llms: str, url: str = "http://triton:8000/v2/models/ensemble/infer", name: str = "p") -> str:
    return f"  - name: {name}\n    url: {url}\n    llms:\n{llms}"


def llm(
    name: str = "Other", api_base: str = "https://x.test", api_key: str = "k", model: str = "m", more: str = ""
) -> str:
    return f"      - {{name: {name}, api_base: '{api_base}', api_key: {api_key}, model: '{model}'{more}}}\n"


def test_the_file_works_unmodified() -> None:
    settings = load_settings(FILE, ENVIRON)
    assert settings.source == "nvidia_v1_config.yaml"
    assert settings.triton.url == "router-server:8001"
    assert settings.default_policy == "task_router"
    assert set(settings.models) == {
        "meta/llama-3.1-70b-instruct",
        "meta/llama-3.1-8b-instruct",
        "mistralai/mixtral-8x22b-instruct-v0.1",
        "nvidia/llama-3.3-nemotron-super-49b-v1",
    }
    for name, model in settings.models.items():
        assert model.model == name
        assert model.replicas[0].api_base == "https://integrate.api.nvidia.com/v1"
        assert model.replicas[0].api_key == Secret("nvapi-canary")
        assert model.price is None

    task, complexity = settings.policies["task_router"], settings.policies["complexity_router"]
    assert isinstance(task, LabelPolicy)
    assert isinstance(complexity, LabelPolicy)
    assert tuple(label for label, _ in task.llms) == TASK_TYPES
    assert tuple(label for label, _ in complexity.llms) == COMPLEXITY
    assert dict(task.llms)["Code Generation"] == "nvidia/llama-3.3-nemotron-super-49b-v1"
    assert (task.triton_model, complexity.triton_model) == (
        "task_router_ensemble",
        "complexity_router_ensemble",
    )
    assert (task.default_label, complexity.default_label) == ("Unknown", "No-Label-Reason")
    assert task.default_model == dict(task.llms)["Unknown"]
    assert complexity.default_model == dict(complexity.llms)["No-Label-Reason"]


def test_an_unset_key_names_line_key_and_variable() -> None:
    assert problems_of(FILE, {}) == [
        'nvidia_v1_config.yaml:8: policies[0].llms[0].api_key: "${NVIDIA_API_KEY}" needs the environment variable '
        "NVIDIA_API_KEY, which is not set; set it, or give a default: ${NVIDIA_API_KEY:-value} (18 more like this)"
    ]


@pytest.mark.parametrize(
    ("labels", "default"),
    [
        (("Other", "Unknown"), "Unknown"),
        (("Other", "No-Label-Reason"), "No-Label-Reason"),
        (("A", "Other"), "Other"),
        (("A", "B"), "A"),
    ],
)
def test_default_label(tmp_path: Path, labels: tuple[str, ...], default: str) -> None:
    loaded = load_settings(write(tmp_path, "policies:\n" + policy("".join(llm(label) for label in labels))), {})
    (p,) = loaded.policies.values()
    assert isinstance(p, LabelPolicy)
    assert p.default_label == default


def test_the_same_id_at_another_address_or_with_another_key_is_another_model(tmp_path: Path) -> None:
    llms = llm("A") + llm("B", api_key="k2") + llm("C") + llm("D", api_base="https://y.test")
    loaded = load_settings(write(tmp_path, "policies:\n" + policy(llms)), {})
    (p,) = loaded.policies.values()
    assert isinstance(p, LabelPolicy)
    assert p.llms == (("A", "m"), ("B", "m#2"), ("C", "m"), ("D", "m#3"))
    assert loaded.models["m#2"].replicas[0].api_key == Secret("k2")
    assert loaded.models["m#3"].replicas[0].api_base == "https://y.test/v1"
    assert {model.model for model in loaded.models.values()} == {"m"}


@pytest.mark.parametrize(
    ("api_base", "expected"),
    [
        ("https://x.test", "https://x.test/v1"),
        ("https://x.test/", "https://x.test/v1"),
        ("https://x.test/v1/", "https://x.test/v1"),
        ("https://x.test/api/v2", "https://x.test/api/v2"),
        ("https://x.test/v1x/openai", "https://x.test/v1x/openai/v1"),
    ],
)
def test_the_version_that_v1_put_into_each_request_is_appended(tmp_path: Path, api_base: str, expected: str) -> None:
    loaded = load_settings(write(tmp_path, "policies:\n" + policy(llm(api_base=api_base))), {})
    assert loaded.models["m"].replicas[0].api_base == expected


def test_model_ids_that_are_no_names_get_one(tmp_path: Path) -> None:
    ids = ["@cf/meta/llama", "two words", "auto", "a"]
    llms = "".join(llm(f"L{index}", model=model) for index, model in enumerate(ids))
    loaded = load_settings(write(tmp_path, "policies:\n" + policy(llms)), {})
    assert {name: model.model for name, model in loaded.models.items()} == {
        "-cf/meta/llama": "@cf/meta/llama",
        "two-words": "two words",
        "auto-model": "auto",
        "a": "a",
    }


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    for empty in ("''", ""):
        assert (
            load_settings(write(tmp_path, "policies:\n" + policy(llm(api_key=empty))), {})
            .models["m"]
            .replicas[0]
            .api_key
            is None
        )


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://triton:8000/v2/models/e/infer", "triton:8001"),
        ("http://triton:18000/v2/models/e/infer", "triton:18001"),
        ("http://triton/v2/models/e/infer", "triton:8001"),
        ("'http://[::1]:8000/v2/models/e/infer'", "[::1]:8001"),
    ],
)
def test_triton_grpc_address(tmp_path: Path, url: str, address: str) -> None:
    assert load_settings(write(tmp_path, "policies:\n" + policy(llm(), url)), {}).triton.url == address


def test_the_environment_and_the_file_can_name_triton(tmp_path: Path) -> None:
    path = write(tmp_path, "policies:\n" + policy(llm()) + policy(llm(), "http://other:8000/v2/models/e/infer", "q"))
    assert problems_of(path, ENVIRON) == [
        "router.yaml:7: policies[1].url: the policies name several Triton servers (other:8001, triton:8001); "
        "set LLM_ROUTER_TRITON_URL to one"
    ]
    environ = {"LLM_ROUTER_TRITON_URL": "127.0.0.1:9001", "LLM_ROUTER_HOST": "0.0.0.0", "LLM_ROUTER_PORT": "81"}
    loaded = load_settings(path, environ)
    assert (loaded.triton.url, loaded.server.host, loaded.server.port) == ("127.0.0.1:9001", "0.0.0.0", 81)
    path.write_text(path.read_text() + "triton: {url: 'here:1', deadline_ms: 99}\nserver: {port: 82}\n")
    loaded = load_settings(path, {})
    assert (loaded.triton.url, loaded.triton.deadline_ms, loaded.server.port) == ("here:1", 99, 82)


def test_a_price_may_be_added(tmp_path: Path) -> None:
    path = write(tmp_path, "policies:\n" + policy(llm(more=", price: {input: 1, output: 2}")))
    assert load_settings(path, {}).models["m"].price == Price(1, 2, "configuration")


def test_clients_may_be_added_and_are_not_there_otherwise(tmp_path: Path) -> None:
    text = "policies:\n" + policy(llm())
    assert load_settings(write(tmp_path, text), {}).clients == {}
    clients = load_settings(
        write(tmp_path, f"{text}clients: {{a: {{key_sha256: '{'1' * 64}', policies: [p]}}}}\n"), {}
    ).clients
    assert (clients["a"].policies, clients["a"].models) == (("p",), ())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("policies: []", "1: policies: the list is empty; name at least one policy"),
        ("policies: [3]", "1: policies[0]: must be a mapping (key: value), not text"),
        (
            "policies:\n" + policy(llm(), "http://t:8000/v2/models/e/versions/2/infer"),
            '3: policies[0].url: "http://t:8000/v2/models/e/versions/2/infer" must be a Triton infer URL: '
            "http://HOST:8000/v2/models/MODEL/infer, without a version",
        ),
        (
            "policies:\n" + policy(llm()) + policy(llm()),
            '6: policies[1]: the policy "p" is given twice; keep one',
        ),
        (
            "policies:\n" + policy(llm(api_base="x.test")),
            '5: policies[0].llms[0].api_base: "x.test" must be an http:// or https:// URL, '
            "for example https://api.openai.com/v1",
        ),
        (
            "policies:\n" + policy("      - {name: A}\n"),
            "5: policies[0].llms[0].model: missing; docs/configuration.md says what belongs here",
        ),
        (
            "policies:\n" + policy(llm(more=", weight: 3")),
            "5: policies[0].llms[0].weight: unknown key; allowed: api_base, replicas, api_key, model, price, "
            "context_limit, timeouts, stream_usage, expected_output_tokens, fallbacks, supports",
        ),
        (
            "policies:\n" + policy(llm()) + "model: {}\n",
            "6: model: unknown key; "
            "allowed: policies, triton, server, admin, tracing, upstreams, decision_log, clients",
        ),
    ],
)
def test_mistakes_point_into_the_users_own_file(tmp_path: Path, text: str, problem: str) -> None:
    assert f"router.yaml:{problem}" in problems_of(write(tmp_path, text))
