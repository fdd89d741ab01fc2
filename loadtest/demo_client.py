"""Asking the router through the real openai client, and measuring what a user would see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from loadtest.demo_prompts import DemoPrompt


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the upstream counted them."""

    prompt: int
    completion: int

    def dollars(self, price: Price) -> float:
        """Return what these tokens cost."""
        return (self.prompt * price.input + self.completion * price.output) / 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """One answered prompt. What the router did not say, or the upstream did not count, is None.

    `first_token_ms` is, for an answer that is not streamed, the time of the whole answer.
    """

    shown: str
    streamed: bool
    score: float | None
    reason: str
    model: str
    first_token_ms: float
    overhead_ms: float | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A prompt that got no answer, and why."""

    shown: str
    why: str


async def ask_all(
    base_url: str, prompts: Sequence[DemoPrompt], *, at_once: int, on_answer: Callable[[int], None]
) -> list[Row | Failure]:
    """Send all prompts to the policy `auto`, `at_once` of them at a time; results in the prompts' order.

    `on_answer` is called with the number of prompts that are done.
    """
    places = asyncio.Semaphore(at_once)
    done = 0

    async def one(client: openai.AsyncOpenAI, prompt: DemoPrompt) -> Row | Failure:
        nonlocal done
        async with places:
            try:
                result: Row | Failure = await _ask(client, prompt)
            except openai.OpenAIError as error:
                result = Failure(prompt.shown, f"{type(error).__name__}: {error}")
        done += 1
        on_answer(done)
        return result

    # No retries: a failure must show, and a second try would spoil the times.
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60) as client:
        return await asyncio.gather(*(one(client, prompt) for prompt in prompts))


async def prices(base_url: str) -> dict[str, Price]:
    """Return the price of each model that the router lists with one."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=10) as client:
        models = [model async for model in client.models.list()]
    listed = ((model.id, (model.model_extra or {}).get("price")) for model in models)
    return {name: Price(price["input"], price["output"]) for name, price in listed if price}


async def _ask(client: openai.AsyncOpenAI, prompt: DemoPrompt) -> Row:
    request: dict[str, Any] = {"model": "auto", "messages": list(prompt.messages), **dict(prompt.fields)}
    if prompt.stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    answer = await client.chat.completions.with_raw_response.create(**request)
    if prompt.stream:
        first_token, usage = await _read_stream(answer.parse())
    else:
        usage = answer.parse().usage
        first_token = time.perf_counter()
    return _row(prompt, answer.headers, (first_token - started) * 1000, usage)


async def _read_stream(stream: Any) -> tuple[float, Any]:  # noqa: ANN401 - the client's types need its overloads
    """Return when the first token came (a time of `time.perf_counter`) and the usage."""
    first_token, usage = None, None
    async for chunk in stream:
        if first_token is None and any(choice.delta.content or choice.delta.tool_calls for choice in chunk.choices):
            first_token = time.perf_counter()
        usage = chunk.usage or usage
    if first_token is None:
        raise openai.OpenAIError("the stream ended without a token")
    return first_token, usage


def _row(prompt: DemoPrompt, headers: Mapping[str, str], first_token_ms: float, usage: Any) -> Row:  # noqa: ANN401 - openai's usage or None
    return Row(
        shown=prompt.shown,
        streamed=prompt.stream,
        score=_number(headers.get("x-router-score")),
        reason=headers.get("x-router-reason", ""),
        model=headers.get("x-router-model", ""),
        first_token_ms=first_token_ms,
        overhead_ms=_number(headers.get("x-router-overhead-ms")),
        usage=None if usage is None else Usage(usage.prompt_tokens, usage.completion_tokens),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
