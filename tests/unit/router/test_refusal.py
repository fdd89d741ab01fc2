"""A model's own error: as it came when it is OpenAI's, in that shape when it is not."""

from __future__ import annotations

import json

import pytest

from router.upstream.refusal import refusal

HTML = [(b"content-type", b"text/html"), (b"retry-after", b"7")]


@pytest.mark.parametrize(
    "body",
    [b'{"error": {"message": "no", "code": 7}}', b' {"error":{}, "more": [1.0]}\r\n', b'{"error":{"x":"\\u00e9"}}'],
)
def test_openai_s_shape_stays_byte_for_byte(body: bytes) -> None:
    headers = [(b"content-type", b"application/json; charset=x")]
    error = refusal("cheap", 503, headers, body, None)
    assert (error.status, error.body(), error.headers()) == (503, body, headers)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>502 Bad Gateway</html>", "Model 'cheap' answered 502."),
        (b"", "Model 'cheap' answered 502."),
        (b"[1]", "Model 'cheap' answered 502."),
        (b"\xff\xfe", "Model 'cheap' answered 502."),
        (b"[" * 5000, "Model 'cheap' answered 502."),
        (b'{"error": null}', "Model 'cheap' answered 502."),
        (b'{"error": "model is loading"}', "model is loading"),
        (b'{"object": "error", "message": "out of memory"}', "out of memory"),
        (b'{"detail": "not ready"}', "not ready"),
    ],
)
def test_any_other_shape_becomes_openai_s(body: bytes, message: str) -> None:
    error = refusal("cheap", 502, HTML, body, 7.0)
    assert json.loads(error.body())["error"] == {
        "message": message,
        "type": "server_error",
        "param": None,
        "code": "upstream_5xx",
        "status": 502,
    }
    assert error.headers() == [(b"content-type", b"application/json"), (b"retry-after", b"7")]
    assert error.pause_s == 7.0


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (400, "upstream_4xx", False),
        (408, "upstream_4xx", True),
        (429, "upstream_429", False),
        (529, "upstream_5xx", True),
    ],
)
def test_its_code_says_the_class_of_its_status(status: int, code: str, failure: bool) -> None:
    error = refusal("cheap", status, [], b"{}", None)
    assert (error.code, error.is_failure) == (code, failure)
