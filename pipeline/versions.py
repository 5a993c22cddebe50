"""Versions of installed packages, read from their metadata: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import os
import platform

PACKAGES = (
    "edgesmith",
    "torch",
    "brevitas",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "scipy",
)


def installed(*packages: str) -> dict[str, str]:
    """Package -> version; "absent" where it is not installed."""
    found = {}
    for package in packages or PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, str]:
    """What a measurement on this machine depends on."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = (line.partition(":")[2].strip() for line in info if "model name" in line)
            return next(names, platform.processor())
    except OSError:
        return platform.processor()
