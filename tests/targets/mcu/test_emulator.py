"""Images for every core run in QEMU: outputs, traces, stack, and everything that goes wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import ToolFailedError, ToolMissingError
from edgesmith.targets.c.exchange import TensorType
from edgesmith.targets.mcu.emulator import run
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import GCC, firmware_plan
from tests.targets.mcu.cores import CORES
from tests.targets.mcu.library import (
    BYTES,
    EMPTY_LAYER,
    OUTPUT,
    asm_layer,
    build,
    c_layer,
    files,
    need,
    options,
)

M0, M4 = CORES["cortex-m0plus"], CORES["cortex-m4"]
every_core = pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)
CODES = np.random.default_rng(0).integers(-128, 128, (5, BYTES)).astype(np.int8)
WEIGHTS = np.arange(1, BYTES + 1, dtype=np.int8)


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # failed runs leave their folder


@every_core
def test_outputs_and_traced_tensors_are_the_models(core: Core, tmp_path: Path) -> None:
    firmware = build(tmp_path, core, how=options(trace=True))
    result = run(firmware, [CODES], [OUTPUT], trace=True, count=True)
    doubled = CODES * np.int8(2)
    np.testing.assert_array_equal(result.outputs[0], doubled + WEIGHTS)
    np.testing.assert_array_equal(result.traced[0].view(np.int8), doubled)
    np.testing.assert_array_equal(result.traced[1].view(np.int8), doubled + WEIGHTS)
    assert result.traced.keys() == {0, 1}
    assert result.profile is not None
    assert result.profile.samples == len(CODES)
    assert "warning" not in (tmp_path / "build" / "build.log").read_text()


@every_core
def test_stack_is_what_the_model_uses(core: Core, tmp_path: Path) -> None:
    body = "volatile uint8_t used[1000]; for (int i = 0; i < 1000; ++i) { used[i] = 1; }"
    result = run(build(tmp_path, core, c_layer(body)), [CODES], [OUTPUT])
    assert 1000 <= result.stack_bytes < 1100


@every_core
def test_a_stack_overflow_is_told(core: Core, tmp_path: Path) -> None:
    body = "volatile uint8_t used[4000]; for (int i = 0; i < 4000; ++i) { used[3999 - i] = 1; }"
    firmware = build(tmp_path, core, c_layer(body), options(stack_bytes=1024))
    with pytest.raises(ToolFailedError, match="the stack overflowed"):
        run(firmware, [CODES], [OUTPUT])


@every_core
def test_a_fault_is_told_with_its_address(core: Core, tmp_path: Path) -> None:
    firmware = build(tmp_path, core, asm_layer("udf #0"))
    with pytest.raises(ToolFailedError) as caught:
        run(firmware, [CODES], [OUTPUT], folder=tmp_path / "run")
    assert "fault: the core took an exception" in caught.value.message
    assert "fault: at address 0x" in caught.value.message
    assert caught.value.fix == f"read {tmp_path / 'run' / 'qemu.log'}"


def test_unaligned_access_faults_on_armv6_m(tmp_path: Path) -> None:
    """The machine that stands in for a Cortex-M0+ would allow it by itself."""
    with pytest.raises(ToolFailedError, match="fault"):
        run(build(tmp_path, M0, asm_layer("ldr r0, =net_scratch+1", "ldr r0, [r0]")), [CODES], [])


def test_unaligned_access_is_fine_on_armv7_m(tmp_path: Path) -> None:
    firmware = build(tmp_path, M4, asm_layer("ldr r0, =net_scratch+1", "ldr r0, [r0]"))
    run(firmware, [CODES], [OUTPUT])


def test_a_hang_is_stopped(tmp_path: Path) -> None:
    firmware = build(tmp_path, M4, c_layer("for (;;) { net_scratch = 1; }"))
    with pytest.raises(ToolFailedError, match=r"did not finish within 1 s in qemu-system-arm"):
        run(firmware, [CODES], [OUTPUT], timeout_s=1)


def test_a_failing_invoke_is_told(tmp_path: Path) -> None:
    firmware = build(tmp_path, M4, c_layer("net_scratch = 0xdeadu;"))
    with pytest.raises(ToolFailedError, match="net_invoke reported a failure"):
        run(firmware, [CODES], [OUTPUT])


def test_a_compile_error_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError) as caught:
        build(tmp_path, M4, "this is no C")
    log = tmp_path / "build" / "build.log"
    assert caught.value.fix == f"read {log}"
    assert "error" in log.read_text()


def test_a_missing_compiler_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="apt install gcc-arm-none-eabi"):
        GCC.require()


def test_a_missing_emulator_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware = build(tmp_path, M4)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="apt install qemu-system-arm"):
        run(firmware, [CODES], [OUTPUT])


def test_inputs_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match="ran 10 samples of 5"):
        run(build(tmp_path, M4), [np.tile(CODES, 2)], [OUTPUT])


def test_outputs_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match=r"outputs have 80 bytes; 5 x 3 were expected"):
        run(build(tmp_path, M4), [CODES], [TensorType("int8", (3,))])


@pytest.mark.parametrize("inputs", [[], [CODES[:0]], [CODES, CODES[:2]]], ids=len)
def test_samples_must_be_alike_and_present(inputs: list[np.ndarray], tmp_path: Path) -> None:
    firmware = build(tmp_path, M4)
    with pytest.raises(ValueError, match="one number above 0"):
        run(firmware, inputs, [OUTPUT])


def test_tracing_needs_its_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without its tracing image"):
        run(build(tmp_path, M4), [CODES], [OUTPUT], trace=True)


@every_core
def test_the_plan_is_pure_and_names_its_main_image(core: Core) -> None:
    plan = firmware_plan(files(EMPTY_LAYER), core, options(trace=True))
    again = firmware_plan(files(EMPTY_LAYER), core, options(trace=True))
    assert plan == again
    assert plan.main == "firmware/harness.elf"
    assert plan.files.keys() >= {"net.c", "firmware/harness.c", "firmware/link.ld"}
    assert all(command.arguments[0] == "arm-none-eabi-gcc" for command in plan.commands)
    assert b"$" not in plan.files["firmware/link.ld"]
    assert b"model_" not in plan.files["firmware/bare.c"]
