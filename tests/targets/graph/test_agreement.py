"""The gate between an artifact and the reference: exact passes, a fault is found where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesmith.pipeline.errors import KernelMismatchError
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.graph.agreement import agreements, require_agreement
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.conformance.cases import all_cases

CASES = {case.name: case for case in all_cases()}
LITERT = CpuLiteRT().describe()
EXACT = replace(LITERT, lsb_budget={})


def traced(name: str, description: TargetDescription) -> dict[str, np.ndarray]:
    case = CASES[name]
    profile = PROFILES[description.rounding_profile]
    return execute(case.graph, case.inputs(), profile, trace=True)


@pytest.mark.parametrize("name", ["conv-relu6", "add-broadcast", "softmax-int8", "mean"])
def test_the_reference_agrees_with_itself(name: str) -> None:
    found = require_agreement(CASES[name].graph, traced(name, EXACT), EXACT)
    assert [(each.max_lsb, each.differing) for each in found] == [(0, 0.0)]


def test_one_wrong_code_is_named() -> None:
    trace = traced("conv-valid", EXACT)
    wrong = trace["y"].astype(np.int16)
    wrong[0, 0, 0, 0, 0] += 1 if wrong[0, 0, 0, 0, 0] < 127 else -1
    trace["y"] = wrong.astype(np.int8)
    graph = CASES["conv-valid"].graph
    with pytest.raises(KernelMismatchError, match=r"ES421.*Conv2D 'op' differs by 1 LSB where 0"):
        require_agreement(graph, trace, EXACT)
    assert require_agreement(graph, trace, LITERT)[0].max_lsb == 1


def test_what_an_artifact_does_not_show_is_not_compared() -> None:
    trace = traced("conv-valid", EXACT)
    del trace["y"]
    assert not list(agreements(CASES["conv-valid"].graph, trace, EXACT))
