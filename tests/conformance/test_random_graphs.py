"""500 random graphs: the reference executor, the generated C here and on an emulated Cortex-M4
agree in every byte; other cores and plans take turns. A failing test's name holds the seed:
`random_graph(SEED)` is the graph.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.validate import verify
from tests.conformance.random_graphs import random_graph, random_inputs
from tests.targets.installed import target_of

SEEDS = range(500)
ALWAYS = ("c-host", "cortex-m4")
IN_TURN = {  # every how many seeds, from which on
    "cortex-m4,plan=memory": (5, 0),
    "cortex-m4,plan=bands": (7, 0),
    "cortex-m0plus": (10, 3),
    "cortex-m55": (10, 8),
}


def targets_of(seed: int) -> tuple[str, ...]:
    """The targets that run a seed's graph."""
    turns = (name for name, (every, first) in IN_TURN.items() if seed % every == first)
    return (*ALWAYS, *turns)


@cache
def legal_graph(seed: int) -> Graph | TargetUnsupportedError:
    """The graph as all C targets take it, or why they do not."""
    try:
        return legalize(verify(random_graph(seed)), target_of("c-host").describe())
    except TargetUnsupportedError as error:
        return error


def test_nearly_all_graphs_are_taken() -> None:
    refused = [seed for seed in SEEDS if isinstance(legal_graph(seed), TargetUnsupportedError)]
    assert len(refused) <= 10, f"refused: {refused}"


def test_every_target_has_its_turns() -> None:
    turns = [name for seed in SEEDS for name in targets_of(seed)]
    assert all(turns.count(name) >= len(SEEDS) // 10 for name in (*ALWAYS, *IN_TURN))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_byte_agrees(seed: int, tmp_path: Path) -> None:
    graph = legal_graph(seed)
    if isinstance(graph, TargetUnsupportedError):
        pytest.skip(f"c-host does not take it: {graph.message}")
    inputs = random_inputs(graph, seed)
    expected = execute(graph, inputs, PROFILES["tflite-micro"])
    for name in targets_of(seed):
        target = target_of(name)
        found = target.run(execute_plan(target.build(graph), tmp_path / name), inputs)
        for output in graph.outputs:
            same = np.array_equal(found[output], expected[output])
            assert same, f"seed {seed}: {target.name} differs in {output}"
