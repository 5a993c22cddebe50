"""500 random graphs: the reference executor, the generated C here and on an emulated Cortex-M4
agree in every byte. A failing test's name holds the seed: `random_graph(SEED)` is the graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.registry import Registries
from edgesmith.targets.base import Target
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.validate import verify
from tests.conformance.random_graphs import random_graph, random_inputs

REGISTRY = Registries.discovered().targets
SEEDS = range(500)


def _target(name: str) -> Target:
    target = REGISTRY.get(name)()
    missing = [tool for tool in target.tools() if tool.find() is None]
    if missing:
        pytest.skip(f"{name} needs {missing[0].name}: {missing[0].install}")
    return target


@pytest.mark.parametrize("seed", SEEDS)
def test_every_byte_agrees(seed: int, tmp_path: Path) -> None:
    targets = [_target("c-host"), _target("cortex-m4")]
    description = targets[0].describe()
    graph = legalize(verify(random_graph(seed)), description)
    inputs = random_inputs(graph, seed)
    expected = execute(graph, inputs, PROFILES[description.rounding_profile])
    for target in targets:
        folder = tmp_path / target.name
        folder.mkdir()
        found = target.run(execute_plan(target.build(graph), folder), inputs)
        for name in graph.outputs:
            assert np.array_equal(found[name], expected[name]), f"seed {seed}: {target.name} {name}"
