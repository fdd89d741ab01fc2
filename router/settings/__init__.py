"""The configuration as frozen settings. No other room reads YAML or the environment.

yaml_nodes (lines, variables) → yaml_fields (types, bounds) → policies, nvidia_v1, prices → load → Settings
"""

from router.settings.changes import changes, fingerprint, needs_restart, with_fixed_of
from router.settings.load import load_settings, redacted
from router.settings.types import (
    DIMENSIONS,
    SCORE_NAMES,
    TASK_TYPES,
    AdminSettings,
    Conversation,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    OnFailure,
    PolicySettings,
    Price,
    Secret,
    ServerSettings,
    Settings,
    TaskMapPolicy,
    ThresholdPolicy,
    Tier,
    Timeouts,
    TracingSettings,
    TritonSettings,
)

__all__ = [
    "DIMENSIONS",
    "SCORE_NAMES",
    "TASK_TYPES",
    "AdminSettings",
    "Conversation",
    "ExpectedValuePolicy",
    "FixedPolicy",
    "LabelPolicy",
    "ModelSettings",
    "OnFailure",
    "PolicySettings",
    "Price",
    "Secret",
    "ServerSettings",
    "Settings",
    "TaskMapPolicy",
    "ThresholdPolicy",
    "Tier",
    "Timeouts",
    "TracingSettings",
    "TritonSettings",
    "changes",
    "fingerprint",
    "load_settings",
    "needs_restart",
    "redacted",
    "with_fixed_of",
]
