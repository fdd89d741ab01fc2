"""The bytes of OpenAI's answers: whole bodies, server-sent events, errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import msgspec

from loadtest.simulated_llm.answer import Answer, Choice
from loadtest.simulated_llm.request import Json

DONE = b"data: [DONE]\n\n"
BROKEN_EVENT = b'data: {"id":"broken","choices":[{"index":0,\n\n'


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every part of one answer repeats."""

    id: str
    created: int
    model: str

    def fields(self, kind: str) -> Json:
        """Return the envelope of an object of this kind."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "fp_simulated",
        }


def completion(envelope: Envelope, answer: Answer) -> bytes:
    """Return the body of an answer that is not streamed."""
    choices = [
        {
            "index": index,
            "message": _message(envelope, choice, index),
            "logprobs": None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(answer.choices)
    ]
    return encode({**envelope.fields("chat.completion"), "choices": choices, "usage": usage(answer)})


def opening_events(envelope: Envelope, answer: Answer, *, include_usage: bool) -> Iterator[bytes]:
    """Yield each choice's first event: the role, and a tool call's name."""
    for index, choice in enumerate(answer.choices):
        delta: Json = {"role": "assistant", "content": "", "refusal": None}
        if choice.tool is not None:
            delta |= {"content": None, "tool_calls": [_tool_call(envelope, choice.tool, index, "")]}
        yield _chunk(envelope, index, delta, None, include_usage)


def token_events(envelope: Envelope, answer: Answer, *, include_usage: bool) -> Iterator[list[bytes]]:
    """Yield the events of one moment after the other: the next token of every choice."""
    columns = zip_longest(*(choice.pieces for choice in answer.choices))
    for column in columns:
        yield [
            _chunk(envelope, index, _token_delta(answer.choices[index], piece), None, include_usage)
            for index, piece in enumerate(column)
            if piece is not None
        ]


def closing_events(envelope: Envelope, answer: Answer, *, include_usage: bool) -> Iterator[bytes]:
    """Yield the finish reasons, the usage if the client asked for it, and the end mark."""
    for index, choice in enumerate(answer.choices):
        yield _chunk(envelope, index, {}, choice.finish_reason, include_usage)
    if include_usage:
        yield event({**envelope.fields("chat.completion.chunk"), "choices": [], "usage": usage(answer)})
    yield DONE


def usage(answer: Answer) -> Json:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """Return OpenAI's error object for a status."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
    kind = kinds.get(status, "rate_limit_error" if status == 429 else "server_error")
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def event(fields: Json) -> bytes:
    """Return one server-sent event."""
    return b"data: " + encode(fields) + b"\n\n"


encode = msgspec.json.Encoder().encode


def _chunk(envelope: Envelope, index: int, delta: Json, finish: str | None, include_usage: bool) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    fields = {**envelope.fields("chat.completion.chunk"), "choices": [choice]}
    if include_usage:
        fields["usage"] = None
    return event(fields)


def _token_delta(choice: Choice, piece: str) -> Json:
    if choice.tool is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _message(envelope: Envelope, choice: Choice, index: int) -> Json:
    message: Json = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool is not None:
        call = _tool_call(envelope, choice.tool, index, choice.text)
        del call["index"]  # only a stream numbers its calls
        message |= {"content": None, "tool_calls": [call]}
    return message


def _tool_call(envelope: Envelope, name: str, choice: int, arguments: str) -> Json:
    return {
        "index": 0,
        "id": f"call_{envelope.id}_{choice}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
