"""Flash and RAM of an image, by section, by purpose and by symbol."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.mcu.elf import Purpose, flash_map
from edgesmith.targets.mcu.emulator import Firmware
from edgesmith.targets.mcu.facts import Core
from tests.targets.mcu.cores import CORES
from tests.targets.mcu.library import build, need

every_core = pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)


@pytest.fixture(autouse=True)
def _tools() -> None:
    need()


@every_core
def test_every_byte_has_a_section_and_a_purpose(core: Core, tmp_path: Path) -> None:
    found = flash_map(build(tmp_path, core).bare, "net")
    assert sum(found.flash_by_purpose.values()) == found.flash_bytes
    assert sum(found.ram_by_purpose.values()) == found.ram_bytes
    assert found.flash[".vectors"] == 64
    assert found.flash_by_purpose[Purpose.WEIGHTS] == 16
    assert found.ram_by_purpose[Purpose.ARENA] == 64 + 4  # and one variable of the model
    assert found.ram_bytes < 100, "the stack is not part of it"
    assert found.flash_by_purpose[Purpose.STARTUP] < 512
    assert found.flash_by_purpose.get(Purpose.UNNAMED, 0) < 64


def test_sizes_are_those_of_the_size_program(tmp_path: Path) -> None:
    image = build(tmp_path, CORES["cortex-m4"]).harness
    command = ["arm-none-eabi-size", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    found = flash_map(image, "net")
    assert found.flash_bytes == text + data
    assert found.ram_bytes == data + bss - 32 * 1024  # size counts the stack


def test_symbols_tell_what_they_are(tmp_path: Path) -> None:
    image = build(tmp_path, CORES["cortex-m4"]).bare
    purposes = {each.name: each.purpose for each in flash_map(image, "net").symbols}
    assert purposes["net_weights_000"] is Purpose.WEIGHTS
    assert purposes["net_layer_000"] is Purpose.WIRING
    assert purposes["net_invoke"] is Purpose.WIRING
    assert purposes["net_arena"] is Purpose.ARENA
    assert purposes["reset_handler"] is Purpose.STARTUP


KERNEL = b"""
#include <stdint.h>
#include <string.h>
static __attribute__((noinline)) void helper(int8_t *to, int n) { memset(to, n, (unsigned)n); }
void net_es_fill(int8_t *to, int n);
void net_es_fill(int8_t *to, int n) { helper(to, n + 1); }
"""


def test_kernels_and_their_helpers_are_kernels_and_the_c_library_is_not(tmp_path: Path) -> None:
    from edgesmith.pipeline.execution import execute_plan
    from edgesmith.targets.mcu.toolchain import firmware_plan
    from tests.targets.mcu.library import c_layer, files, options

    layer = "void net_es_fill(int8_t *to, int n);\n" + c_layer("net_es_fill(net_arena + 60, 3);")
    core = CORES["cortex-m4"]
    execute_plan(firmware_plan({**files(layer), "fill.c": KERNEL}, core, options()), tmp_path)
    found = flash_map(Firmware.in_folder(tmp_path, core, "net").bare, "net")
    purposes = {each.name: each.purpose for each in found.symbols}
    assert purposes["net_es_fill"] is Purpose.KERNELS
    assert purposes["helper"] is Purpose.KERNELS
    assert purposes["memset"] is Purpose.RUNTIME


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.elf"
    path.write_bytes(b"no image at all")
    with pytest.raises(ToolFailedError, match="is no ELF image"):
        flash_map(path)
