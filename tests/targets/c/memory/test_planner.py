"""The planner: optimal on what can be enumerated, never wrong, as small as promised elsewhere."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import StageError
from edgesmith.targets.c.memory.check import check
from edgesmith.targets.c.memory.constraints import Problem, problem_of
from edgesmith.targets.c.memory.lifetimes import buffers, scratch_name, span
from edgesmith.targets.c.memory.placement import arena_of, first_fit, simple_orders
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.c.program import Array, MemoryPlan, Overlap, Role, View
from edgesmith.targets.graph.tflite_reader import read_tflite
from tests.targets.c.memory.programs import call, drawn_program, lowered, program

SEEDS = st.integers(0, 2**32 - 1)


def enumerated(problem: Problem) -> int:
    """The optimum, by trying every address of every buffer below a plan's size."""
    limit = min(arena_of(problem, first_fit(problem, order)) for order in simple_orders(problem))
    while True:
        if not _fits(problem, [], limit - 1):
            return limit
        limit -= 1


def _fits(problem: Problem, offsets: list[int], limit: int) -> bool:
    index = len(offsets)
    if index == len(problem.buffers):
        return True
    buffer = problem.buffers[index]
    for address in range(0, limit - buffer.bytes + 1, buffer.alignment):
        clash = any(
            low < address - offsets[other] < high
            for other in range(index)
            for low, high in problem.forbidden.get((other, index), ())
        )
        if not clash and _fits(problem, [*offsets, address], limit):
            return True
    return False


@settings(max_examples=100)
@given(SEEDS)
def test_small_programs_reach_the_enumerated_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = drawn_program(rng, calls=int(rng.integers(1, 5)), largest=5)
    plan = plan_memory(drawn)
    assert plan.arena_bytes == enumerated(problem_of(drawn))
    assert plan.optimal


@settings(max_examples=60)
@given(SEEDS)
def test_constraints_allow_all_that_the_simulation_does(seed: int) -> None:
    """Enumerating plans against the simulation alone finds nothing smaller."""
    rng = np.random.default_rng(seed)
    drawn = drawn_program(rng, calls=2, largest=4)
    drawn = replace(
        drawn,
        calls=tuple(replace(item, scratch_bytes=0) for item in drawn.calls),
        storages={name: replace(item, alignment=1) for name, item in drawn.storages.items()},
    )
    plan = plan_memory(drawn)
    names = list(drawn.storages)
    for addresses in product(range(plan.arena_bytes), repeat=len(names)):
        offsets = dict(zip(names, addresses, strict=True))
        trial = MemoryPlan(plan.arena_bytes - 1, offsets, (), optimal=False, lower_bound=0)
        with pytest.raises(StageError):
            check(trial, drawn)


@settings(max_examples=40)
@given(SEEDS)
@example(0)
def test_large_programs_are_planned_soundly_and_repeatably(seed: int) -> None:
    drawn = drawn_program(np.random.default_rng(seed), calls=30, largest=1000)
    plan = plan_memory(drawn)
    assert plan.lower_bound <= plan.arena_bytes
    assert plan.optimal == (plan.lower_bound == plan.arena_bytes)
    assert plan_memory(drawn) == plan


def test_output_lies_over_the_dying_input() -> None:
    chain = program(
        (call("c", ("x",), ("y",), overlaps={"x": Overlap(8)}),),
        {"x": 40, "y": 100},
        ("x",),
        ("y",),
    )
    plan = plan_memory(chain)
    assert plan.arena_bytes == 100
    assert plan.offsets["x"] - plan.offsets["y"] >= 8
    assert plan_memory(replace(chain, outputs=("y", "x"))).arena_bytes == 140


def test_exact_overlap_is_in_place_or_apart() -> None:
    over = {"x": Overlap(0, exact=True)}
    chain = program((call("c", ("x",), ("y",), overlaps=over),), {"x": 40, "y": 40}, ("x",), ("y",))
    assert plan_memory(chain).arena_bytes == 40
    second = call("d", ("x", "y"), ("z",))
    longer = program((*chain.calls, second), {"x": 40, "y": 40, "z": 8}, ("x",), ("z",))
    assert plan_memory(longer).arena_bytes == 88


def test_a_view_keeps_its_storage_alive() -> None:
    calls = (call("a", ("x",), ("y",)), call("b", ("v",), ("z",)), call("c", ("y", "z"), ("out",)))
    sizes = {"x": 16, "y": 16, "z": 16, "out": 1}
    shared = program(calls, sizes, ("x",), ("out",), views={"v": View("x", 0)})
    x = next(buffer for buffer in buffers(shared) if buffer.name == "x")
    assert (x.first, x.last) == (-1, 1)
    assert plan_memory(shared).arena_bytes == 48


def test_bytes_die_and_are_born_range_by_range() -> None:
    """Two bands: the output grows over the input's consumed rows."""
    views = {
        "x0": View("x", 0, 50),
        "x1": View("x", 50, 50),
        "y0": View("y", 0, 50),
        "y1": View("y", 50, 50),
    }
    calls = (
        call("a", ("x0",), ("y0",), overlaps={"x0": Overlap(0)}),
        call("b", ("x1",), ("y1",), overlaps={"x1": Overlap(0)}),
    )
    banded = program(calls, {"x": 100, "y": 100}, ("x",), ("y",), views=views)
    assert plan_memory(banded).arena_bytes == 100
    apart = tuple(replace(item, overlaps={}) for item in calls)
    assert plan_memory(replace(banded, calls=apart)).arena_bytes == 150


def test_scratch_is_aligned_and_only_of_its_call() -> None:
    calls = (call("a", ("x",), ("y",), scratch=16), call("b", ("y",), ("z",), scratch=24))
    plan = plan_memory(program(calls, {"x": 3, "y": 5, "z": 2}, ("x",), ("z",)))
    assert plan.offsets[scratch_name(calls[0])] % 8 == plan.offsets[scratch_name(calls[1])] % 8 == 0
    assert plan.arena_bytes == 31


def test_inputs_last_until_read_and_outputs_to_the_end() -> None:
    calls = (call("a", ("x",), ("y",)), call("b", ("w",), ("z",)))
    plan = plan_memory(program(calls, {"x": 4, "w": 4, "y": 4, "z": 4}, ("x", "w"), ("y", "z")))
    lives = {item.name: (item.first, item.last) for item in plan.timeline}
    assert lives == {"x": (-1, 0), "w": (-1, 1), "y": (0, 2), "z": (1, 2)}


def test_unused_storage_and_empty_program() -> None:
    assert plan_memory(program((), {}, (), ())).arena_bytes == 0
    assert plan_memory(program((), {"x": 7}, (), ())).offsets == {"x": 0}


def test_constants_take_no_arena() -> None:
    over = {"x": Overlap(0), "k": Overlap(0)}
    calls = (call("a", ("x", "k"), ("y",), overlaps=over),)
    table = {"k": Array(np.zeros(64, np.int8), Role.WEIGHTS)}
    plain = program(calls, {"x": 4, "y": 4}, ("x",), ("y",))
    assert plan_memory(replace(plain, constants=table)).arena_bytes == 4


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({"v": View("nowhere", 0)}, "owns no arena memory"),
        ({"v": View("v", 0)}, "owns no arena memory"),
        ({"v": View("x", 4, 8)}, "is bytes 4 to 12"),
    ],
)
def test_impossible_views_are_named(views: dict[str, View], words: str) -> None:
    broken = program((call("a", ("v",), ("y",)),), {"x": 8, "y": 8}, ("x",), ("y",), views=views)
    with pytest.raises(StageError, match=words):
        span(broken, "v")


def test_check_finds_what_is_overwritten() -> None:
    calls = (call("a", ("x",), ("y",)), call("b", ("x", "y"), ("z",)))
    honest = program(calls, {"x": 4, "y": 4, "z": 4}, ("x",), ("z",))
    plan = plan_memory(honest)
    broken = replace(plan, offsets={**plan.offsets, "y": plan.offsets["x"]})
    with pytest.raises(StageError, match=r"call 'a' writes 'y' over 'x'"):
        check(broken, honest)
    with pytest.raises(StageError, match="has no offset"):
        check(replace(plan, offsets={"x": 0}), honest)
    with pytest.raises(StageError, match=r"in an arena\s+of 8"):
        check(replace(plan, arena_bytes=8), honest)
    later = (call("a", ("x",), ("y",)), call("b", ("y",), ("w",)), call("c", ("x", "w"), ("z",)))
    longer = program(later, {"x": 4, "y": 4, "z": 4, "w": 4}, ("x",), ("z",))
    offsets = {"x": 0, "y": 4, "w": 0, "z": 8}
    with pytest.raises(StageError, match=r"'c' reads tensor 'x', whose byte 0 holds byte 0 of 'w'"):
        check(MemoryPlan(12, offsets, (), optimal=False, lower_bound=0), longer)
    unwritten = program(calls[1:], {"x": 4, "y": 4, "z": 4}, ("x",), ("z",))
    with pytest.raises(StageError, match="holds nothing yet"):
        plan_memory(unwritten)


@pytest.mark.parametrize(
    ("name", "apart", "over"),
    [("kws", 16_000, 9_600), ("ic", 49_152, 36_000), ("vww", 55_296, 40_500), ("ad", 768, 768)],
)
def test_official_networks(name: str, apart: int, over: int) -> None:
    """Bounds of whole tensors, and what overlaps save at least."""
    folder = os.environ.get("EDGESMITH_DATA")
    if not folder:
        pytest.skip("EDGESMITH_DATA is not set")
    graph = read_tflite((Path(folder) / "mlperf_tiny" / f"{name}_int8.tflite").read_bytes(), name)
    plan = plan_memory(lowered(graph, dense=False))
    assert (plan.arena_bytes, plan.optimal) == (apart, True)
    dense = plan_memory(lowered(graph))
    assert dense.arena_bytes <= over
    assert dense.optimal
