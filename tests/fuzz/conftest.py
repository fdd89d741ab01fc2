"""Property tests as in tests/unit; and the running stack, for those that speak to it."""

from tests.integration.conftest import router, running_stack, stack
from tests.unit import conftest as _profile

__all__ = ["_profile", "router", "running_stack", "stack"]
