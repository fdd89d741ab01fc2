"""What can be configured: frozen, plain data, read from a file by `router.settings`.

docs/configuration.md explains every key. Times say their unit in their name (`_s`, `_ms`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

DIMENSIONS = (
    "creativity",
    "reasoning",
    "contextual_knowledge",
    "domain_knowledge",
    "constraints",
    "few_shots",
)
"""The prompt's dimensions, in the order of the classifier's DIMENSIONS output."""

COMPLEXITY_WEIGHTS = {
    "creativity": 0.35,
    "reasoning": 0.25,
    "contextual_knowledge": 0.05,
    "domain_knowledge": 0.15,
    "constraints": 0.15,
    "few_shots": 0.05,
}
"""NVIDIA's complexity score: this weighted sum of the dimensions."""

GAIN_SHARE = 0.75
"""Of gain in need_strong; the rest is 1 - p_weak."""

SCORE_NAMES = ("gain", "need_strong", "p_weak", "p_strong", "one_minus_p_weak", *DIMENSIONS, "complexity")
"""What a threshold policy can compare. More means: a more capable model is worth it (except p_weak)."""

TASK_TYPES = (
    "Brainstorming",
    "Chatbot",
    "Classification",
    "Closed QA",
    "Code Generation",
    "Extraction",
    "Open QA",
    "Other",
    "Rewrite",
    "Summarization",
    "Text Generation",
    "Unknown",
)
"""NVIDIA's task names, which the shipped classifier has; another version may have its own."""

CAPABILITIES = ("vision", "tools", "json_schema")
"""What a request may need of a model beyond text: images, tool calls, answers held to a JSON schema."""

Conversation = Literal["hardest", "last", "joined"]
"""What of a conversation is scored: its hardest recent user turn, the last one, or all as one text."""

OnFailure = Literal["default_model", "reject"]


class Secret:
    """A text that no print, log or JSON shows; `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself, for the Authorization header."""
        return self._value

    def __str__(self) -> str:
        return "[REDACTED]"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens. `source` is "configuration" or the package and version that knew it."""

    input_per_million: float
    output_per_million: float
    source: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds; `idle_s` is the longest silence once an answer has begun."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the equal servers of a model."""

    api_base: str
    api_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """An upstream model. `name` is what clients and policies call it, `model` what its API calls it.

    `price` None means unknown, never free. `context_limit` is in tokens. `stream_usage` False is for an
    upstream that refuses `stream_options`. Costs are compared for an answer of `expected_output_tokens`.
    `fallbacks` are the models that stand in, first to last. `supports` None means all of CAPABILITIES.
    """

    name: str
    replicas: tuple[Replica, ...]
    model: str
    price: Price | None
    context_limit: int | None
    timeouts: Timeouts
    stream_usage: bool = True
    expected_output_tokens: int = 256
    fallbacks: tuple[str, ...] = ()
    supports: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """What is done about upstreams that fail: how often to ask again, and when to leave one alone."""

    retry_budget: float = 0.2
    failures_to_open: int = 5
    cooldown_s: float = 1.0
    max_cooldown_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """The classifier, and how prompts are batched. `deadline_ms` starts when the batch window closes.

    `versions` are those that are asked, each with its percent of conversations; without any, Triton's newest is.
    """

    url: str = "127.0.0.1:8001"
    model: str = "prompt_classifier"
    deadline_ms: float = 50.0
    max_batch_size: int = 32
    max_queue_delay_ms: float = 1.5
    max_waiting: int = 2048
    max_batches_in_flight: int = 4
    cache_entries: int = 65536
    max_text_chars: int = 16384
    on_failure: OnFailure = "default_model"
    price_per_hour: float | None = None
    metrics_url: str = "http://127.0.0.1:8002/metrics"
    versions: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The router's own listener, and how much it takes on. `port` 0 takes any free one.

    `max_in_flight` None means as many as the limit on open files allows; `max_lag_ms` and `max_wait_ms` 0
    mean no limit.
    """

    host: str = "127.0.0.1"
    port: int = 8084
    workers: int = 1
    max_body_bytes: int = 4_194_304
    body_timeout_s: float = 10.0
    max_in_flight: int | None = None
    max_lag_ms: float = 50.0
    max_wait_ms: float = 500.0
    stop_delay_s: float = 0.0
    drain_s: float = 30.0
    log_level: str = "info"
    state_dir: str | None = None


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where OpenTelemetry spans go: the base URL of an OTLP/HTTP collector, None for no tracing."""

    otlp_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class DecisionLogSettings:
    """Where decisions are logged with their prompts, None for nowhere; `sample` is the share of requests, 0..1."""

    path: str | None = None
    sample: float = 1.0
    max_bytes: int = 104_857_600
    keep: int = 5


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """The listener for whoever runs the router: dashboard, metrics, health. `port` 0 takes any free one."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 8085


@dataclass(frozen=True, slots=True)
class Tier:
    """A model and the lowest score that it takes; the first tier starts at minus infinity."""

    model: str
    at: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnyPolicy:
    """What every policy has. `fallbacks`, when given, stand in for those of the model that it chose."""

    fallbacks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ThresholdPolicy(_AnyPolicy):
    """The last tier whose `at` the score reaches. `score` is a weighted sum: (one of SCORE_NAMES, weight)."""

    kind: ClassVar[str] = "threshold"
    name: str
    score: tuple[tuple[str, float], ...]
    tiers: tuple[Tier, ...]
    default_model: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class ExpectedValuePolicy(_AnyPolicy):
    """`strong` when its gain in probability times `value` (dollars a right answer) exceeds its extra cost."""

    kind: ClassVar[str] = "expected_value"
    name: str
    weak: str
    strong: str
    value: float
    default_model: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class TaskMapPolicy(_AnyPolicy):
    """A model for each task, as (task, model); an unlisted or unsure task takes the default."""

    kind: ClassVar[str] = "task_map"
    name: str
    models: tuple[tuple[str, str], ...]
    default_model: str
    conversation: Conversation = "last"
    min_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class FixedPolicy(_AnyPolicy):
    """Always the same model; the prompt is not scored."""

    kind: ClassVar[str] = "fixed"
    name: str
    model: str

    @property
    def default_model(self) -> str:
        """The model."""
        return self.model

    @property
    def conversation(self) -> Conversation:
        """Nothing is scored, so the cheapest reading."""
        return "last"


@dataclass(frozen=True, slots=True)
class LabelPolicy(_AnyPolicy):
    """NVIDIA v1: the argmax of `triton_model`'s OUTPUT is an index into `llms`, which are (label, model)."""

    kind: ClassVar[str] = "label"
    name: str
    triton_model: str
    llms: tuple[tuple[str, str], ...]
    default_model: str
    default_label: str
    conversation: Conversation = "last"
    min_probability: float = 0.0


PolicySettings = ThresholdPolicy | ExpectedValuePolicy | TaskMapPolicy | FixedPolicy | LabelPolicy


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One of those who may ask: by the SHA-256 of its keys, in hexadecimal digits.

    `rate` is in the notation of the library `limits`, `budget_per_day` in dollars; None is no limit. `policies` and
    `models` are those that it may name.
    """

    name: str
    key_sha256: tuple[Secret, ...]
    rate: str | None
    budget_per_day: float | None
    policies: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything; models, policies and clients by name. `source` is the name of the file that it was read from.

    Without clients everybody is let in.
    """

    server: ServerSettings
    admin: AdminSettings
    triton: TritonSettings
    models: Mapping[str, ModelSettings]
    policies: Mapping[str, PolicySettings]
    default_policy: str
    source: str
    tracing: TracingSettings = TracingSettings()
    upstreams: UpstreamSettings = UpstreamSettings()
    decision_log: DecisionLogSettings = DecisionLogSettings()
    clients: Mapping[str, ClientSettings] = field(default_factory=dict)
