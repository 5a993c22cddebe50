"""Cores, machines and boards as data."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edgesmith.targets.mcu.cycles import TIMINGS
from edgesmith.targets.mcu.facts import BOARDS, Board, Core
from tests.targets.mcu.cores import CORES

every_core = pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)


@every_core
def test_a_machine_has_room_for_code_and_data(core: Core) -> None:
    machine = core.machine
    assert machine.flash.bytes > 3 * 1024 * 1024
    assert machine.ram.bytes >= 2 * 1024 * 1024
    regions = sorted(
        (each.origin, each.origin + each.bytes)
        for each in (machine.vectors, machine.flash, machine.ram)
    )
    for (_, end), (start, _) in pairwise(regions):
        assert end <= start


@every_core
def test_every_core_has_timings_that_say_what_they_rest_on(core: Core) -> None:
    model = TIMINGS[core.name]
    assert model.documented == ("Technical Reference Manual" in model.basis)
    assert model.documented != model.basis.startswith("Assumption")


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_a_board_has_a_known_core_and_a_source(board: Board) -> None:
    assert board.core in CORES
    assert board.source
    assert board.ram_bytes < 8 * 1024 * 1024
    assert board.clock_hz % 1_000_000 == 0


def test_names_are_their_keys() -> None:
    assert all(name == core.name for name, core in CORES.items())
    assert all(name == board.name for name, board in BOARDS.items())


def test_a_core_without_floating_point_unit_asks_for_none() -> None:
    assert CORES["cortex-m0plus"].compile_flags() == (
        "-mcpu=cortex-m0plus",
        "-mthumb",
        "-mfloat-abi=soft",
    )
