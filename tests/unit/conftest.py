"""Property tests: the same examples on every run and every machine, and no deadline on a busy core."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=True, max_examples=100, database=None)
settings.load_profile("unit")
