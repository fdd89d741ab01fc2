"""The load test: what one user does. Change it as you like; loadtest/load/ measures and reports whatever it sends.

`make loadtest` runs it with Locust's web UI. docs/loadtest.md lists the environment variables.
"""

from __future__ import annotations

import random

from locust import task

from loadtest.load.locust_shape import shape_class
from loadtest.load.locust_start import start
from loadtest.load.locust_user import ChatUser

settings, prompts, measurement = start()
rng = random.Random()


class User(ChatUser):
    """Sends a prompt, reads the answer, thinks, sends the next."""

    host = settings.host
    measurement = measurement

    @task
    def ask(self) -> None:
        """Send one chat completion: of every five prompts about one is a repeated one, of every five four stream."""
        stream = rng.random() < settings.stream_share
        repeat = rng.random() < settings.repeat_share
        self.chat(prompts.pick(rng, stream=stream, repeat=repeat), stream=stream)


Shape = shape_class(settings)
