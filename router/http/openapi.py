"""What /docs says of the chat endpoint, which FastAPI does not see: it stands in front of it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_EXPLANATION = (
    "OpenAI's chat completions. The router reads `model`, `messages`, `stream`, `stream_options`, the output limit "
    "and `nim-llm-router`; every other field reaches the upstream as it was sent, and the upstream's answer comes "
    "back byte for byte. With `stream: true` it is a stream of server-sent events."
)


def describe(api: FastAPI, *, keys_needed: bool) -> None:
    """Make `api` describe the chat endpoints beside its own, and that they need a key where they do."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(_SCHEMAS)
            for operation in (operation for path in schema["paths"].values() for operation in path.values()):
                operation["responses"].pop("422", None)  # FastAPI's own shape of an error, which nothing here has
            for path in ("/v1/chat/completions", "/completions"):
                schema["paths"][path] = {"post": _chat_operation(path)}
            if keys_needed:
                schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                for path, operations in schema["paths"].items():
                    for operation in operations.values():
                        operation["security"] = [] if path.startswith("/health") else [{"key": []}]
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend its schema


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what FastAPI's `responses` says of these statuses."""
    content = {"application/json": {"schema": _ref("Error")}}
    return {status: {"description": _ERRORS[str(status)], "content": content} for status in statuses}


def _chat_operation(path: str) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    answer = {
        "description": "The upstream's answer, unchanged.",
        "headers": headers,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {
        "tags": ["chat"],
        "summary": "Chat completion by the cheapest model that suffices",
        "description": _EXPLANATION,
        "operationId": "chat_completions" if path.startswith("/v1") else "completions",
        "parameters": [
            {"name": name, "in": "header", "description": text, "schema": schema} for name, text, schema in _PARAMETERS
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("ChatRequest")}}},
        "responses": {"200": answer, **{str(status): said for status, said in errors(*map(int, _ERRORS)).items()}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_PARAMETERS = (
    ("x-router-policy", "The policy to decide by.", {"type": "string"}),
    ("x-router-threshold", "The policy's threshold for this request.", {"type": "number", "minimum": -1, "maximum": 1}),
    ("x-request-id", "An id of yours, at most 128 letters, digits or ._:-", {"type": "string"}),
)

_HEADERS = {
    "x-request-id": "The id of this request, yours when you sent one.",
    "x-router-model": "The model that answered.",
    "x-router-fallback": "Only when that is not the chosen one: `chosen->answered;reason=...`.",
    "x-router-policy": "The policy that decided, `none` when you named a model.",
    "x-router-reason": "How it was chosen: threshold, expected_value, unpriced, task, fixed, manual, no_text, "
    "fallback, context or capability.",
    "x-router-decision": "classifier, cache, none, or `fallback;reason=...`.",
    "x-router-score": "The score that decided, `none` when there was none.",
    "x-router-classifier-version": "The version of the classifier that scored.",
    "x-router-overhead-ms": "Milliseconds to the headers that were not the upstream's.",
    "x-upstream-request-id": "The upstream's own id.",
    "x-chosen-classifier": "NVIDIA's name for the label that was chosen.",
}

_ERRORS = {
    "400": "Invalid JSON, a wrong field, places that contradict each other, or more than any model can take.",
    "401": "No key, or a wrong one; only where clients are configured.",
    "403": "The key may not use this policy or model; the message names those that it may.",
    "404": "No such policy or model; the message names those that there are.",
    "405": "The endpoint takes POST only.",
    "408": "The body came too slowly.",
    "413": "The body is over the limit.",
    "415": "Not JSON, or compressed.",
    "429": "The key's rate or budget, or the upstream's own limit; `retry-after` says when to come again.",
    "502": "The upstream could not be reached, or broke off.",
    "503": "The router is at its limit, or stops; the upstream keeps failing; or there is no score.",
    "504": "The upstream was silent for too long.",
}

_SCHEMAS: dict[str, Any] = {
    "ChatRequest": {
        "type": "object",
        "required": ["messages"],
        "additionalProperties": True,
        "properties": {
            "model": {
                "type": "string",
                "description": '"auto", a policy, "policy@threshold", or a configured model.',
                "examples": ["auto"],
            },
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["role"],
                    "additionalProperties": True,
                    "properties": {
                        "role": {"type": "string", "examples": ["user"]},
                        "content": {
                            "oneOf": [
                                {"type": "string"},
                                {"type": "null"},
                                {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["type"],
                                        "properties": {"type": {"type": "string"}, "text": {"type": "string"}},
                                    },
                                },
                            ]
                        },
                    },
                },
            },
            "stream": {"type": ["boolean", "null"], "default": False},
            "stream_options": {
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": ["boolean", "null"]}},
            },
            "nim-llm-router": {
                "type": "object",
                "description": "NVIDIA LLM Router v1's way to choose.",
                "required": ["policy"],
                "properties": {
                    "policy": {"type": "string"},
                    "routing_strategy": {"enum": ["triton", "manual", None]},
                    "model": {"type": "string", "description": "For `manual`: a label or model of the policy."},
                    "threshold": {"type": "number", "minimum": -1, "maximum": 1},
                },
            },
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code", "status"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                    "status": {"type": "integer"},
                },
            }
        },
    },
}
