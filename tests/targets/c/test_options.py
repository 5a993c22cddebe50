"""Options behind a C target's name."""

from __future__ import annotations

import pytest

from edgesmith.pipeline.errors import SpecError
from edgesmith.pipeline.registry import Registries, target_options
from edgesmith.targets.c.compiler import PlanKind
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.c.zeros import Zeros

REGISTRY = Registries.discovered().targets


def test_options_are_read() -> None:
    target = REGISTRY.get("cortex-m4@nrf52840-dk,ram=40000,plan=memory,prefix=net")()
    assert isinstance(target, CTarget)
    assert target.name == "cortex-m4@nrf52840-dk,ram=40000,plan=memory,prefix=net"
    assert target.options.board == "nrf52840-dk"
    assert target.options.plan is PlanKind.MEMORY
    facts = target.describe()
    assert (facts.name, facts.ram_bytes, facts.clock_hz) == (target.name, 256 * 1024, 64_000_000)
    assert target.arena_limit() == 40_000


def test_zeros_are_an_option_of_every_c_target() -> None:
    for name, zeros in (("c-host", Zeros.AUTO), ("cortex-m55,zeros=compress", Zeros.COMPRESS)):
        target = REGISTRY.get(name)()
        assert isinstance(target, CTarget)
        assert target.options.zeros is target.compile_options().zeros is zeros
        assert "zeros=auto|store|compress" in target.details()["options"]


def test_a_board_brings_its_memory_and_clock() -> None:
    plain, other = (
        REGISTRY.get(name)().describe() for name in ("cortex-m4", "cortex-m4@nrf52840-dk")
    )
    assert plain.clock_hz != other.clock_hz
    assert other.ram_bytes == 256 * 1024


def test_the_text_in_parts() -> None:
    assert target_options("cortex-m4@b,ram=1") == ("cortex-m4", {"board": "b", "ram": "1"})
    assert target_options("c-host") == ("c-host", {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cortex-m4@nrf52840", "did you mean 'nrf52840-dk'"),
        ("cortex-m4@rp2040-pico", "has the core 'cortex-m0plus'"),
        ("cortex-m4,rom=4", "no option 'rom'"),
        ("cortex-m4,ram=4k", "whole number"),
        ("cortex-m4,ram=0", "whole number"),
        ("cortex-m4,ram=", "without a value"),
        ("cortex-m4,ram", "without a value"),
        ("cortex-m4,ram=1,ram=2", "twice"),
        ("cortex-m4,plan=fast", "speed"),
        ("c-host,zeros=skip", "'zeros' of target 'c-host' is 'skip'"),
        ("cortex-m4@nrf52840-dk,ram=262145", "more than board 'nrf52840-dk' has, 262,144 bytes"),
        ("cortex-m4,flash=2097153", "more than board 'nucleo-l4r5zi' has, 2,097,152 bytes"),
        ("c-host,vectors=1001", "at most 1,000"),
        ("cortex-m5,ram=4", "did you mean 'cortex-m55'"),
        ("cpu-litert,ram=4", "takes no options"),
        ("c-host,prefix=int", "prefix"),
        ("c-host@nrf52840-dk", "has no boards"),
    ],
)
def test_wrong_options_are_named(name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        REGISTRY.get(name)()
