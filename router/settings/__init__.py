"""The configuration as frozen settings. No other room reads YAML or the environment.

yaml_nodes (lines, variables) → yaml_fields (types, bounds) → models, policies, clients, nvidia_v1, prices → load
→ Settings
"""

from router.settings.changes import changes, fingerprint, needs_restart, with_fixed_of
from router.settings.clients import NOBODY
from router.settings.load import load_settings, redacted
from router.settings.types import (
    CAPABILITIES,
    DIMENSIONS,
    SCORE_NAMES,
    TASK_TYPES,
    AdminSettings,
    ClientSettings,
    Conversation,
    DecisionLogSettings,
    ExpectedValuePolicy,
    FixedPolicy,
    LabelPolicy,
    ModelSettings,
    OnFailure,
    PolicySettings,
    Price,
    Replica,
    Secret,
    ServerSettings,
    Settings,
    TaskMapPolicy,
    ThresholdPolicy,
    Tier,
    Timeouts,
    TracingSettings,
    TritonSettings,
    UpstreamSettings,
)

__all__ = [
    "CAPABILITIES",
    "DIMENSIONS",
    "NOBODY",
    "SCORE_NAMES",
    "TASK_TYPES",
    "AdminSettings",
    "ClientSettings",
    "Conversation",
    "DecisionLogSettings",
    "ExpectedValuePolicy",
    "FixedPolicy",
    "LabelPolicy",
    "ModelSettings",
    "OnFailure",
    "PolicySettings",
    "Price",
    "Replica",
    "Secret",
    "ServerSettings",
    "Settings",
    "TaskMapPolicy",
    "ThresholdPolicy",
    "Tier",
    "Timeouts",
    "TracingSettings",
    "TritonSettings",
    "UpstreamSettings",
    "changes",
    "fingerprint",
    "load_settings",
    "needs_restart",
    "redacted",
    "with_fixed_of",
]
