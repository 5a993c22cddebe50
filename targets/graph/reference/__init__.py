"""The bit-exact reference executor: what every IntegerGraph operator means."""

from edgesmith.targets.graph.reference.executor import execute, run_op
from edgesmith.targets.graph.reference.profiles import PROFILES, Profile

__all__ = ["PROFILES", "Profile", "execute", "run_op"]
