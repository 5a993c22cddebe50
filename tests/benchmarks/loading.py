"""Benchmarks are scripts beside their helpers, not a package: imported as running them does."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "benchmarks"


def benchmark(module: str) -> Any:
    """A module of the benchmarks: `benchmark("mcu")`, `benchmark("peers.tflite")`."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(module)
