"""What a simulated LLM answers and how long it takes: pure functions, the same prompt the same answer."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

import msgspec

from loadtest.simulated_llm.request import ChatRequest, Json

_WORDS = (
    *("this", "sentence", "is", "filler", "of", "a", "natural", "length", "so", "that", "tokens", "arrive"),
    *(
        "one",
        "after",
        "another",
        "and",
        "nothing",
        "here",
        "was",
        "written",
        "by",
        "any",
        "language",
        "model",
    ),
)
_PIECE = re.compile(r"\s*\S{1,12}")


@dataclass(frozen=True, slots=True)
class Profile:
    """How one model behaves. Each figure is a median, each sigma the spread of a lognormal (0: always)."""

    ttft_ms: float = 0.0
    ttft_sigma: float = 0.0
    tokens_per_s: float = 0.0  # 0: no pause between tokens
    tokens_per_s_sigma: float = 0.0
    answer_tokens: float = 40.0
    answer_sigma: float = 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as token-sized pieces: of text, or of the arguments if `tool` names a function."""

    pieces: tuple[str, ...]
    finish_reason: str
    tool: str | None = None

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """The choices, the usage in tokens, and the timing in seconds."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    ttft_s: float
    gap_s: float

    @property
    def completion_tokens(self) -> int:
        """Pieces in all choices, exactly what a stream sends."""
        return sum(len(choice.pieces) for choice in self.choices)

    @property
    def duration_s(self) -> float:
        """Seconds until the last token; choices are written side by side."""
        return self.ttft_s + self.gap_s * max(len(choice.pieces) - 1 for choice in self.choices)


def plan_answer(name: str, profile: Profile, request: ChatRequest) -> Answer:
    """Decide the whole answer of the model `name`, seeded by its name and the prompt."""
    rng = random.Random(zlib.crc32(f"{name}\n{request.prompt}".encode(errors="replace")))
    ttft_s = _draw(rng, profile.ttft_ms, profile.ttft_sigma) / 1000
    rate = _draw(rng, profile.tokens_per_s, profile.tokens_per_s_sigma)
    return Answer(
        choices=tuple(_choice(rng, name, profile, request) for _ in range(request.choices)),
        prompt_tokens=request.prompt_tokens,
        ttft_s=ttft_s,
        gap_s=1 / rate if rate else 0.0,
    )


def _draw(rng: random.Random, median: float, sigma: float) -> float:
    return median * rng.lognormvariate(0.0, sigma) if sigma else median


def _choice(rng: random.Random, name: str, profile: Profile, request: ChatRequest) -> Choice:
    length = round(_draw(rng, profile.answer_tokens, profile.answer_sigma))
    if request.tool is not None:
        arguments = example_of(request.tool.get("parameters") or {})
        pieces = _pieces(msgspec.json.encode(arguments).decode())
        return _limited(pieces, request.max_tokens, "tool_calls", request.tool["name"])
    text = _text(rng, name, request.images, length)
    if request.schema is not None:
        answer = example_of(request.schema) if request.schema else {"simulated": True, "answer": text}
        text = msgspec.json.encode(answer).decode()
    return _limited(_pieces(text), request.max_tokens, "stop", None)


def _text(rng: random.Random, name: str, images: int, length: int) -> str:
    seen = f" It saw {images} image{'s' * (images > 1)}." if images else ""
    opening = f"Simulated answer of {name}, not written by a language model.{seen}"
    missing = length - len(_pieces(opening))
    if missing <= 0:
        return opening
    filler = " ".join(rng.choices(_WORDS, k=missing)).capitalize()
    return f"{opening} {filler}."


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text))


def _limited(pieces: tuple[str, ...], limit: int, finish_reason: str, tool: str | None) -> Choice:
    if len(pieces) > limit:
        return Choice(pieces[:limit], "length", tool)
    return Choice(pieces, finish_reason, tool)


def example_of(schema: Json) -> object:
    """Return a value that fits the usual parts of a JSON schema: type, enum, properties, items."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {key: example_of(value) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [example_of(schema["items"])] if schema.get("items") else []
    return {"string": "simulated", "integer": 1, "number": 1.5, "boolean": True}.get(kind)
