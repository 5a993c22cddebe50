"""Every registered target through the same cases; a new target inherits all of them.

A case that the target's description admits must build, read back unchanged and
compute the reference executor's codes within the stated budget; one that it does
not admit must be refused by name before anything is written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.base import Target
from edgesmith.targets.graph.legalizer import check, legalize
from edgesmith.targets.graph.parity import as_searched, compare
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.conformance.cases import Case, all_cases
from tests.targets.installed import REGISTRY, need_tools

# A target that deploys the exported file as it is builds no graph: its own tests compare the file.
ALL_TARGETS = [REGISTRY.get(name)() for name in REGISTRY.names()]
TARGETS = [each for each in ALL_TARGETS if not each.deploys_exported]
CASES = all_cases()


def name_of(item: Target | Case) -> str:
    return item.name


@pytest.fixture(params=TARGETS, ids=name_of)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    need_tools(found)
    return found


def admitted(case: Case, target: Target) -> bool:
    """Whether the legalized graph is one that the target takes."""
    description = target.describe()
    try:
        check(legalize(case.graph, description), description)
    except TargetUnsupportedError:
        return False
    return True


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_case_is_exact_or_refused(case: Case, target: Target, tmp_path: Path) -> None:
    description = target.describe()
    if not admitted(case, target):
        with pytest.raises(TargetUnsupportedError, match=r"op") as caught:
            check(legalize(case.graph, description), description)
        assert case.graph.ops[0].kind in str(caught.value)
        return
    legal = legalize(case.graph, description)
    products = execute_plan(target.build(legal), tmp_path)
    shipped = target.shipped(products)
    parity = compare(as_searched(legal), shipped)
    assert not parity.different, parity.rows[:3]

    inputs = case.inputs()
    found = target.run(products, inputs)
    profile = PROFILES[description.rounding_profile]
    expected = execute(shipped, inputs, profile)
    unchanged = execute(case.graph, inputs, profile)
    for name in shipped.outputs:
        budget = description.lsb(case.graph.ops[0].kind, shipped[name].dtype)
        difference = np.abs(found[name].astype(np.int64) - expected[name].astype(np.int64))
        assert difference.max(initial=0) <= budget, f"{difference.max()} LSB"
        # Legalizing moves work between operators; only another operator's rounding may show.
        moved = np.abs(expected[name].astype(np.int64) - unchanged[name].astype(np.int64))
        same_kinds = {op.kind for op in case.graph.ops} <= {op.kind for op in shipped.ops}
        assert moved.max(initial=0) <= (0 if same_kinds else budget), f"{moved.max()} LSB"


def test_descriptions_are_complete(target: Target) -> None:
    description = target.describe()
    assert description.name == target.name
    assert description.title
    assert description.summary
    assert description.rounding_profile in PROFILES
    assert description.ops


def test_building_is_deterministic(target: Target) -> None:
    case = next(case for case in CASES if admitted(case, target))
    legal = legalize(case.graph, target.describe())
    assert target.build(legal) == target.build(legal)


def test_a_trace_shows_every_output(target: Target, tmp_path: Path) -> None:
    case = next(case for case in CASES if admitted(case, target))
    products = execute_plan(target.build(legalize(case.graph, target.describe())), tmp_path)
    assert set(case.graph.outputs) <= set(target.run(products, case.inputs(), trace=True))
