"""Health, configuration and metrics, for whoever runs the router."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from router.decide.decider import Decider
from router.errors import ClassifierError
from router.http.admission import Admission
from router.metrics import Metrics
from router.settings import OnFailure, Settings, redacted

_CANARY_FRESH_S = 1.0


class Canary:
    """Whether the classifier really classifies, asked at most once a second however often it is probed."""

    def __init__(self, decider: Decider, on_failure: OnFailure, admission: Admission) -> None:
        self._decider = decider
        self._admission = admission
        self._when_failing = "unready" if on_failure == "reject" else "degraded"
        self._asked = -_CANARY_FRESH_S
        self._failure: str | None = None
        self._asking = asyncio.Lock()

    async def state(self) -> dict[str, str]:
        """Return `status` (ready, degraded, unready, stopping) and `classifier` (ok, or why it does not score)."""
        if self._admission.stopping:
            return {"status": "stopping", "classifier": "not asked"}
        reason = await self._why_not()
        if reason is None:
            return {"status": "ready", "classifier": "ok"}
        return {"status": self._when_failing, "classifier": reason}

    async def _why_not(self) -> str | None:
        async with self._asking:  # whoever comes meanwhile waits for the same answer
            if monotonic() - self._asked >= _CANARY_FRESH_S:
                try:
                    await self._decider.canary()
                    self._failure = None
                except ClassifierError as error:
                    self._failure = error.reason
                self._asked = monotonic()
        return self._failure


def ops_api(settings: Settings, canary: Canary, metrics: Metrics) -> APIRouter:
    """Return the endpoints as a FastAPI router."""
    api = APIRouter(tags=["operations"])
    configuration = redacted(settings)

    @api.get("/health")
    async def health() -> dict[str, str]:
        """NVIDIA v1's health check: the process answers."""
        return {"status": "OK"}

    @api.get("/health/live")
    async def live() -> dict[str, str]:
        """Liveness: the process answers. Restart it when this fails."""
        return {"status": "live"}

    @api.get("/health/ready", responses={503: {"description": "Not to be sent requests: unready or stopping."}})
    async def ready() -> JSONResponse:
        """Readiness, by a real inference.

        `degraded` (200) means that requests are answered by their policies' default models; with
        `triton.on_failure: reject` they would be refused, so the status is then 503 `unready`. A router that was told
        to stop says 503 `stopping` at once, so that load balancers send nothing new.
        """
        state = await canary.state()
        return JSONResponse(state, status_code=503 if state["status"] in ("unready", "stopping") else 200)

    @api.get("/config")
    async def config() -> dict[str, Any]:
        """Return the configuration in force; keys are shown as [REDACTED]."""
        return configuration

    @api.get("/metrics", response_class=PlainTextResponse)
    async def prometheus(request: Request) -> Response:
        """Return the metrics in Prometheus' text format, or in OpenMetrics with exemplars when asked for."""
        text, media_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    return api
