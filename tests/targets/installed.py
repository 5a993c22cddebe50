"""Targets whose tools are here; a test of any other one is skipped, saying what to install."""

from __future__ import annotations

import pytest

from edgesmith.pipeline.registry import Registries
from edgesmith.targets.base import Target

REGISTRY = Registries.discovered().targets


def need_tools(target: Target) -> None:
    """Skip where a tool of the target is missing."""
    for tool in target.tools():
        if tool.find() is None:
            pytest.skip(f"{target.name} needs {tool.name}: {tool.install}")


def target_of(name: str) -> Target:
    """The target, or a skip."""
    target = REGISTRY.get(name)()
    need_tools(target)
    return target
