"""The ASGI application of a simulated LLM: one plain callable, fast enough not to be the bottleneck."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtest.simulated_llm import wire
from loadtest.simulated_llm.answer import Profile, plan_answer
from loadtest.simulated_llm.exchange import ClientGone, Exchange, Headers, Receive, Send
from loadtest.simulated_llm.faults import Fault, FaultSyntaxError, parse_fault
from loadtest.simulated_llm.request import BadRequestError, ChatRequest, Json, read_request
from loadtest.simulated_llm.turn import Turn, send_stream, send_whole

_RATE_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What one simulated LLM is; `keep_requests` bounds how many bodies it remembers."""

    name: str
    profile: Profile = field(default_factory=Profile)
    api_key: str | None = None
    any_model: bool = False
    fault: Fault = field(default_factory=Fault)
    keep_requests: int = 32


@dataclass(slots=True)
class Stats:
    """Counts since the start: chat requests, those being answered, clients that went before the end."""

    requests: int = 0
    in_flight: int = 0
    disconnects: int = 0


class FaultSwitch:
    """The fault now in force, for all requests, the next few or every Nth one."""

    def __init__(self, fault: Fault) -> None:
        self.set(fault)

    def set(self, fault: Fault) -> None:
        """Replace the fault."""
        self._fault, self._left, self._taken = fault, fault.times, 0

    def take(self) -> Fault:
        """Return what the next request suffers."""
        self._taken += 1
        if self._taken % self._fault.every:
            return Fault()
        if self._left is None:
            return self._fault
        self._left -= 1
        return self._fault if self._left >= 0 else Fault()


class SimulatedLLMApp:
    """Answers /v1/chat/completions, /v1/models, /health, and /_simulated/{requests,stats,fault}."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stats = Stats()
        self.faults = FaultSwitch(settings.fault)
        self._seen: deque[Json] = deque(maxlen=settings.keep_requests)
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        exchange = Exchange(receive, send)
        try:
            if scope["method"] == "POST" and scope["path"] == "/v1/chat/completions":
                await self._chat(exchange, scope)
            else:
                await exchange.answer(*await self._side_door(exchange, scope["method"], scope["path"]))
        except ClientGone:
            self.stats.disconnects += 1
        finally:
            exchange.close()

    async def _side_door(self, exchange: Exchange, method: str, path: str) -> tuple[int, bytes]:
        """Return status and body for everything but chat."""
        match method, path:
            case "GET", "/health":
                return 200, wire.encode({"status": "ok", "simulated": True})
            case "GET", "/v1/models":
                model = {"id": self.settings.name, "object": "model", "created": 0, "owned_by": "simulated"}
                return 200, wire.encode({"object": "list", "data": [model]})
            case "GET", "/_simulated/stats":
                return 200, wire.encode(asdict(self.stats))
            case "GET", "/_simulated/requests":
                return 200, wire.encode({"data": list(self._seen)})
            case "PUT", "/_simulated/fault":
                try:
                    fault = parse_fault((await exchange.read_body()).decode())
                except (FaultSyntaxError, UnicodeDecodeError) as error:
                    return 400, wire.error(400, str(error))
                self.faults.set(fault)
                return 200, wire.encode(asdict(fault))
        return 404, wire.error(404, f"{self.settings.name} (simulated) has no {method} {path}")

    async def _chat(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        started = time.perf_counter()
        self.stats.requests += 1
        self.stats.in_flight += 1
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            body = await exchange.read_body()
            # latin-1 maps every byte to one character and back, UTF-8 or not
            self._seen.append({"path": scope["path"], "headers": headers, "body": body.decode("latin-1")})
            fault = self._fault(headers)
            await exchange.pause(None if fault.hang else fault.delay_ms / 1000)
            refused = self._refusal(headers, fault)
            if refused is not None:
                await exchange.answer(*refused)
                return
            turn = self._turn(read_request(body), fault, started)
            await (send_stream if turn.request.stream else send_whole)(exchange, turn)
        except BadRequestError as error:
            body = wire.error(error.status, str(error), param=error.param, code=error.code)
            await exchange.answer(error.status, body)
        finally:
            self.stats.in_flight -= 1

    def _fault(self, headers: dict[str, str]) -> Fault:
        if "x-simulated-fault" not in headers:
            return self.faults.take()
        try:
            return parse_fault(headers["x-simulated-fault"])
        except FaultSyntaxError as error:
            raise BadRequestError(str(error), "x-simulated-fault") from error

    def _refusal(self, headers: dict[str, str], fault: Fault) -> tuple[int, bytes, Headers] | None:
        """Return status, body and headers when the request is not to be answered at all."""
        key = self.settings.api_key
        sent = headers.get("authorization", "")
        if key is not None and not secrets.compare_digest(sent.encode(), f"Bearer {key}".encode()):
            return 401, wire.error(401, "the API key is missing or wrong", code="invalid_api_key"), []
        if fault.status == 200:
            return None
        message = f"{self.settings.name} was told to answer {fault.status}"
        wait = [] if fault.retry_after is None else [(b"retry-after", f"{fault.retry_after:g}".encode())]
        return fault.status, wire.error(fault.status, message, code="simulated_fault"), wait

    def _turn(self, request: ChatRequest, fault: Fault, started: float) -> Turn:
        name = self.settings.name
        if request.model != name and not self.settings.any_model:
            message = f"the model {request.model[:80]!r} does not exist here; this server has {name!r}"
            raise BadRequestError(message, "model", status=404, code="model_not_found")
        answer = plan_answer(name, self.settings.profile, request)
        number = f"simulated-{self._run}-{next(self._numbers)}"
        envelope = wire.Envelope(f"chatcmpl-{number}", int(time.time()), request.model)
        remaining = max(0, _RATE_LIMIT - self.stats.in_flight)
        headers: Headers = [
            (b"x-request-id", f"req-{number}".encode()),
            (b"x-ratelimit-limit-requests", b"%d" % _RATE_LIMIT),
            (b"x-ratelimit-remaining-requests", b"%d" % remaining),
        ]
        return Turn(request, answer, envelope, fault, headers, started)
