"""The shape that SHAPE names, as Locust wants it."""

from __future__ import annotations

from locust import LoadTestShape

from loadtest.load.settings import CONSTANT, LoadSettings
from loadtest.load.shapes import users_at


def shape_class(settings: LoadSettings) -> type[LoadTestShape] | None:
    """Return a shape over DURATION up to USERS; None for a constant load, which needs none."""
    if settings.shape == CONSTANT:
        return None

    class Shape(LoadTestShape):
        def tick(self) -> tuple[int, float] | None:
            second = self.get_run_time()  # type: ignore[no-untyped-call] # Locust leaves it untyped
            users = users_at(settings.shape, second, users=settings.users, duration_s=settings.duration)
            return None if users is None else (users, float(settings.users))

    return Shape
