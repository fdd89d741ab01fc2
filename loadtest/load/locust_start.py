"""What happens when Locust reads the locustfile: settings and prompts are read, and measuring begins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from loadtest.load.locust_command import RUN_FILE
from loadtest.load.locust_hooks import Measurement
from loadtest.load.prompts import PromptError, PromptSet, default_prompts, load_prompts
from loadtest.load.settings import LoadSettings, SettingError


def start() -> tuple[LoadSettings, PromptSet, Measurement]:
    """Return the settings, the prompts and the measurement; what is wrong ends Locust with a message."""
    try:
        settings = LoadSettings.from_environment(os.environ)
        listed = load_prompts(settings.prompts) if settings.prompts else default_prompts()
        prompts = PromptSet.of(listed, settings.model)
    except (SettingError, PromptError, FileNotFoundError) as error:
        sys.exit(f"loadtest: {error}")
    run_file = os.environ.get(RUN_FILE)
    return settings, prompts, Measurement.install(settings, Path(run_file) if run_file else None)
