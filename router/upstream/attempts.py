"""Where one request goes, and where next when that fails: another server of its model, then the models behind it."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import UpstreamConnect, UpstreamError
from router.upstream.replicas import Endpoint, Replicas
from router.upstream.retry import Again, where


class Attempts:
    """The attempts of one request at `models`, the chosen one first; each model is tried once.

    At most one attempt repeats what a server has already been asked, and only within its model's budget. A server that
    could not be reached has been asked nothing, so another one of the model is free.
    """

    def __init__(self, models: Sequence[Replicas]) -> None:
        self._models = models
        self._current = 0
        self._retried = False
        self._tried: tuple[Endpoint, ...] = ()

    def first(self) -> Endpoint:
        """Return whom to ask. Raises UpstreamUnavailable or UpstreamRateLimited when none may be asked now."""
        endpoint = self._from(0)
        if endpoint is None:
            raise self._models[0].why_not()
        return endpoint

    def after(self, failed: Endpoint, error: UpstreamError) -> Endpoint | None:
        """Return whom to ask next, None when it ends with this error."""
        again = where(error)
        if again is Again.NOWHERE:
            return None
        self._tried += (failed,)
        return self._same_model(failed, error, again) or self._from(self._current + 1)

    def _same_model(self, failed: Endpoint, error: UpstreamError, again: Again) -> Endpoint | None:
        replicas = self._models[self._current]
        other = replicas.next(apart_from=self._tried)
        if other is not None and isinstance(error, UpstreamConnect):
            return other.take()
        if other is None and again is Again.ANYWHERE:
            other = replicas.next(apart_from=[one for one in self._tried if one is not failed])
        if other is None or self._retried or not replicas.budget.spend():
            return None
        self._retried = True
        return other.take()

    def _from(self, start: int) -> Endpoint | None:
        """Return a server of the first model from `start` on that may be asked now."""
        for number in range(start, len(self._models)):
            endpoint = self._models[number].next()
            if endpoint is not None:
                self._current = number
                self._models[number].budget.earn()
                return endpoint.take()
        return None
