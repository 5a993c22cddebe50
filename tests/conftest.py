"""What all tests share: property tests that run the same cases everywhere, without deadlines."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

settings.register_profile("edgesmith", deadline=None, derandomize=True)
settings.load_profile("edgesmith")

# Tests run beside each other: threads that wait for work sleep, and leave the cores to the others.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Kernels are compiled once for all tests that build them, where ccache is installed.
COMPILER_CACHE = Path("/usr/lib/ccache")
if COMPILER_CACHE.is_dir():
    os.environ["PATH"] = os.pathsep.join((str(COMPILER_CACHE), os.environ["PATH"]))
    os.environ.setdefault("CCACHE_NOHASHDIR", "1")
