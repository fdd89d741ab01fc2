"""Prometheus configuration, rules and alerts, and dashboards as code, with what proves that they work."""
