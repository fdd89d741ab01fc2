"""Requests that schemathesis makes up from the router's own OpenAPI, right and wrong ones, against a running router."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.router_process import RouterProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_whatever_is_asked_is_answered_as_described(
    router: RouterProcess, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    api = schemathesis.openapi.from_url(f"{router.url}/openapi.json")
    for result in api.get_all_operations():
        assert isinstance(result, Ok), "the description itself is wrong"
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and "requestBody" not in operation.definition.raw:
            continue  # nothing that could be wrong: any path is text

        @settings(max_examples=100, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def is_answered(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS, timeout=20)

        with subtests.test(operation.label):
            is_answered()
    router.settles()
    assert "Traceback" not in router.log()
