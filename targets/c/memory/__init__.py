"""The memory planner: offsets in one arena, execution in bands, and why something does not fit."""

from edgesmith.targets.c.memory.bands import Banded, split, stages
from edgesmith.targets.c.memory.budget import BudgetPlan, plan_bands
from edgesmith.targets.c.memory.check import check
from edgesmith.targets.c.memory.explain import Shortfall, explain
from edgesmith.targets.c.memory.solve import plan_memory

__all__ = [
    "Banded",
    "BudgetPlan",
    "Shortfall",
    "check",
    "explain",
    "plan_bands",
    "plan_memory",
    "split",
    "stages",
]
