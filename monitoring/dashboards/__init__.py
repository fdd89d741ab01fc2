"""Dashboards as code: each module builds one, in the style of `panels`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

with warnings.catch_warnings():
    # The SDK would rather have Grafana 12's new model; every Grafana can be provisioned with the classic one.
    warnings.filterwarnings("ignore", message="Prefer using dashboardv2", category=DeprecationWarning)
    from monitoring.dashboards import classifier, loadtest, router, savings

DIRECTORY = Path(__file__).parents[1] / "grafana" / "dashboards"
_MODULES = {"router": router, "savings": savings, "classifier": classifier, "loadtest": loadtest}


def render() -> dict[Path, str]:
    """Return each dashboard's file and its JSON text."""
    return {
        DIRECTORY / f"{name}.json": json.dumps(module.build().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, module in _MODULES.items()
    }
