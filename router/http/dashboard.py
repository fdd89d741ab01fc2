"""GET /dashboard: one self-contained page that shows /admin/live and tries prompts on /v1/route."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Response

_PAGE = Path(__file__).with_name("dashboard.html")


def dashboard_api() -> APIRouter:
    """Return the endpoint as a FastAPI router; the page is read once."""
    api = APIRouter(tags=["operations"])
    page = _PAGE.read_text(encoding="utf-8")
    headers = {
        "cache-control": "no-store",
        "content-security-policy": content_security_policy(page),
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    @api.get("/dashboard")
    async def dashboard() -> Response:
        """Return the page."""
        return Response(page, headers=headers, media_type="text/html")

    return api


def content_security_policy(page: str) -> str:
    """Return the policy that lets the page run its own script and style and talk to its own origin, nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests('script', page)}",
            f"style-src {_digests('style', page)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _digests(tag: str, page: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in blocks)
