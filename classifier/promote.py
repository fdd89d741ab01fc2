"""Bring a new version into service beside the old one, share by share, and back when something is wrong.

    held-out prompts -> may it serve at all? -> into the repository -> Triton loads it beside the old version
    -> 5% of conversations, 25%, ... -> all; at each step errors, latency and decisions are compared

The old version stays loaded, with a share of 0: `rollback` needs one small file and a reload of the routers.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from classifier.canary import Limits, Traffic, objection, traffic_of
from classifier.errors import PromotionError
from classifier.repository import SHARES_FILE, Repository, Shares

Progress = Callable[[str], None]

POLL_S: Final = 1.0
TRITON_TIMEOUT_S: Final = 600.0  # a first load on a GPU builds TensorRT's engines
ROUTER_TIMEOUT_S: Final = 30.0
CONFIG_HASHES: Final = ("llm_router_config_hash", "llm_router_config_hash_min")  # the greatest and least of all workers


@dataclass(frozen=True, slots=True)
class Plan:
    """How a canary goes: percents of the new version, how long each lasts, and what ends it early."""

    steps: Sequence[float]
    step_s: float  # at least
    step_timeout_s: float  # when there were too few decisions until then, the canary is rolled back
    limits: Limits


class Triton:
    """A running Triton in explicit mode, over gRPC; `admin_key` where its model control wants one."""

    def __init__(self, url: str, model: str, admin_key: str | None = None) -> None:
        self._url = url
        self._model = model
        self._headers = {"triton-grpc-protocol-admin-key": admin_key} if admin_key else None

    def load(self, *versions: str) -> None:
        """Load the model as its config says now, and see that these versions are ready; raises PromotionError."""
        from tritonclient.grpc import InferenceServerClient
        from tritonclient.utils import InferenceServerException

        with InferenceServerClient(self._url) as client:
            try:
                client.load_model(self._model, headers=self._headers, client_timeout=TRITON_TIMEOUT_S)
                ready = [client.is_model_ready(self._model, version, client_timeout=10.0) for version in versions]
            except InferenceServerException as error:
                told = " ".join(str(error.message()).split())
                raise PromotionError(f"Triton at {self._url} could not load {self._model}: {told}") from None
        missing = [version for version, is_ready in zip(versions, ready, strict=True) if not is_ready]
        if missing:
            raise PromotionError(f"Triton at {self._url} loaded {self._model}, but not version {', '.join(missing)}")


class Routers:
    """The admin listeners of all routers that share the repository's file of shares."""

    def __init__(self, urls: Sequence[str], repository: Repository) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._repository = repository

    def put(self, shares: Shares) -> None:
        """Write the shares and have every worker of every router read them; raises PromotionError when one does not."""
        self._repository.write_shares(shares)
        for url in self._urls:
            reloaded = json.loads(self._ask(f"{url}/admin/reload", b""))
            self._wait_for_workers(url, reloaded["config_hash"])
            seen = json.loads(self._ask(f"{url}/config"))["triton"]["versions"]
            if ", ".join(f"{version}={percent:g}" for version, percent in seen) != str(shares):
                file = (self._repository.model / SHARES_FILE).resolve()
                raise PromotionError(
                    f"the router at {url} has triton.versions {seen or 'not set'} after a reload, expected {shares}: "
                    f'its configuration needs `triton: {{versions: "${{file:{file}}}"}}`'
                )

    def traffic(self, version: str) -> Traffic:
        """What all routers have counted of a version."""
        return traffic_of(version, (sample for url in self._urls for sample in self._samples(url)))

    def _wait_for_workers(self, url: str, config_hash: int) -> None:
        """Wait until no worker has another configuration."""
        deadline = time.monotonic() + ROUTER_TIMEOUT_S
        while {one.value for one in self._samples(url) if one.name in CONFIG_HASHES} != {config_hash}:
            if time.monotonic() > deadline:
                raise PromotionError(f"the workers of the router at {url} do not agree on a configuration: see its log")
            time.sleep(0.05)

    def _samples(self, url: str) -> Iterator[Any]:
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self._ask(f"{url}/metrics")):
            yield from family.samples

    def _ask(self, url: str, body: bytes | None = None) -> str:
        try:
            with urllib.request.urlopen(url, body, timeout=ROUTER_TIMEOUT_S) as answer:  # noqa: S310 - the user's own
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise PromotionError(f"{url} answered {error.code}: {_message(error.read())}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise PromotionError(f"{url} cannot be reached ({error}): give the router's admin listener") from None


def serving_version(repository: Repository) -> str:
    """The version that takes everything; raises PromotionError while a canary is under way."""
    shares = repository.shares()
    if shares is None:
        return max(repository.served(), key=int)
    if shares.serving is None:
        raise PromotionError(f"a canary is under way ({shares}): end it with `python -m classifier rollback`")
    return shares.serving


def promote(
    repository: Repository,
    serving: str,
    candidate: str,
    triton: Triton,
    routers: Routers,
    plan: Plan,
    progress: Progress,
) -> None:
    """Take `candidate`, a version in the repository, from 0 to 100%.

    Raises PromotionError after having gone back to `serving`; whatever else ends it, Ctrl-C too, goes back as well.
    """
    config = repository.config.read_text(encoding="utf-8")
    routers.put(Shares(serving, serving, 100.0))  # Triton answers who asks for no version by the highest one
    try:
        repository.serve(serving, [candidate])
        progress(f"Triton loads version {candidate} beside version {serving}")
        triton.load(serving, candidate)
        began = {version: routers.traffic(version) for version in (serving, candidate)}
        for percent in plan.steps:
            routers.put(Shares(serving, candidate, percent))
            progress(f"version {candidate} takes {percent:g}%")
            _watch(serving, candidate, began, routers, plan, progress)
    except BaseException as error:
        progress(f"back to version {serving}")
        _go_back(repository, serving, config, triton, routers)
        if isinstance(error, PromotionError):
            raise PromotionError(f"version {candidate} was rolled back, version {serving} serves: {error}") from None
        raise


def rollback(repository: Repository, routers: Routers) -> str:
    """Give everything back to the version before, at once; returns its number. Raises PromotionError without one."""
    shares = repository.shares()
    if shares is None or shares.back == shares.new or shares.percent == 0:
        raise PromotionError(f"there is nothing to go back to: the shares are {shares or 'not written yet'}")
    routers.put(Shares(shares.back, shares.new, 0.0))
    return shares.back


def _watch(
    serving: str, candidate: str, began: dict[str, Traffic], routers: Routers, plan: Plan, progress: Progress
) -> None:
    """Let one step last as long as it must; raises PromotionError when it may not go on.

    The serving version is judged by all of the canary, because in the last step it has no traffic.
    """
    started = time.monotonic()
    before = routers.traffic(candidate)
    while True:
        time.sleep(min(POLL_S, plan.step_s))
        usual = routers.traffic(serving).since(began[serving])
        new = routers.traffic(candidate).since(before)
        reason = objection(new, usual, plan.limits)
        if reason is not None:
            raise PromotionError(reason)
        lasted = time.monotonic() - started
        if lasted >= plan.step_s and new.decided >= plan.limits.decisions:
            progress(f"{new.decided:g} decisions, {new.failed:g} of {new.rows:g} prompts failed")
            return
        if lasted > plan.step_timeout_s:
            raise PromotionError(
                f"{new.decided:g} decisions in {lasted:.0f} s, {plan.limits.decisions} are needed to judge a step: "
                "send more requests, or lower --min-decisions"
            )


def _go_back(repository: Repository, serving: str, config: str, triton: Triton, routers: Routers) -> None:
    """Shares first, because they work at once. Then the config, which must be right when Triton starts again."""
    try:
        routers.put(Shares(serving, serving, 100.0))
    finally:
        repository.restore(config)
        with suppress(PromotionError):  # it still serves, or it is down and will start with the old config
            triton.load(serving)


def _message(body: bytes) -> str:
    """An error's text in OpenAI's shape, or the body's beginning."""
    try:
        document: Any = json.loads(body)
        return str(document["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
