"""The cores of all microcontroller targets, by name."""

from __future__ import annotations

from edgesmith.pipeline.registry import Registries
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


def _cores() -> dict[str, Core]:
    registry = Registries.discovered().targets
    classes = (registry.get(name) for name in registry.names())
    return {each.name: each.core for each in classes if issubclass(each, MicrocontrollerTarget)}


CORES = _cores()
