"""What all tests share: property tests that run the same cases everywhere, without deadlines."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("edgesmith", deadline=None, derandomize=True)
settings.load_profile("edgesmith")
