"""What a user reads when the arena does not fit."""

from __future__ import annotations

import pytest

from edgesmith.targets.c.memory.explain import explain
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.c.program import Program
from tests.targets.c.memory.programs import call, program


def residual() -> Program:
    """A skip connection x -> sum around two calls, then a small head."""
    calls = (
        call("wide", ("x",), ("a",), scratch=64),
        call("deep", ("a",), ("b",)),
        call("sum", ("x", "b"), ("c",)),
        call("pool", ("c",), ("d",)),
        call("head", ("d",), ("out",)),
    )
    sizes = {"x": 1000, "a": 2000, "b": 1000, "c": 1000, "d": 10, "out": 2}
    return program(calls, sizes, ("x",), ("out",))


def test_peak_live_tensors_and_excess() -> None:
    whole = residual()
    plan = plan_memory(whole)
    found = explain(whole, plan, 3000)
    assert found is not None
    assert (found.call, found.position, found.peak_bytes) == ("deep", 1, 4000)
    assert found.excess_bytes == plan.arena_bytes - 3000 == 1000
    assert [(item.name, item.bytes) for item in found.live] == [
        ("a", 2000),
        ("b", 1000),
        ("x", 1000),
    ]
    text = "\n".join(found.lines())
    assert "the arena needs 4,000 bytes of RAM, 1,000 (33 %) more than the 3,000 there are" in text
    assert "the peak is Op 'deep' (layer 1 of 5): 4,000 bytes at once" in text
    assert "'x' only wait for a later layer" in text
    assert "in bands" in text


def test_fitting_plans_need_no_explanation() -> None:
    whole = residual()
    assert explain(whole, plan_memory(whole), 4000) is None
    empty = program((), {"x": 8}, ("x",), ("x",))
    assert explain(empty, plan_memory(empty), 4) is None


def test_advice_follows_what_was_already_done() -> None:
    scratchy = call("a", ("x",), ("y",), scratch=64)
    alone = program((scratchy,), {"x": 50, "y": 50}, ("x",), ("y",))
    plan = plan_memory(alone)
    found = explain(alone, plan, 120, {(0, 1): 164})
    assert found is not None
    assert found.advice[0] == "no first stage of this graph can run in bands"
    assert "without its 64 bytes of scratch" in found.advice[1]
    assert not any("memory-first" in line for line in found.advice), "it was tried already"
    found = explain(alone, plan, 120, {(0, 1): 164, (3, 2): 150, (3, 4): 140})
    assert found is not None
    assert "140 bytes, the first 3 operators in 4 bands" in found.advice[0]
    found = explain(alone, plan, 120, {(0, 1): 164, (1, 4): 140})
    assert found is not None
    assert "the first operator in 4 bands" in found.advice[0]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 5, 5, 2), "height and width"),
        ((1, 1, 25, 2), "length"),
        ((1, 50), "features"),
        ((1, 1, 1, 50), "features"),
        (None, "bytes"),
    ],
)
def test_advice_names_the_axes_that_there_are(shape: tuple[int, ...] | None, words: str) -> None:
    alone = program((call("a", ("x",), ("y",)),), {"x": 50, "y": 50}, ("x",), ("y",))
    shapes = {} if shape is None else {"x": shape, "y": shape}
    found = explain(alone, plan_memory(alone), 60, None, shapes)
    assert found is not None
    assert words in found.advice[-1]
    assert ("height" in found.advice[-1]) == (words == "height and width")
