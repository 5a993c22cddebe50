"""Runs single kernel calls on an emulated core: many cases in one image.

Every case runs twice, with the output apart from its input and laid over it as far as the
call allows, between guard bytes.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgesmith.targets.c
from edgesmith.targets.c import text
from edgesmith.targets.c.lowerings import dsp_depthwise, dsp_matrix
from edgesmith.targets.c.lowerings.base import Declined, Site
from edgesmith.targets.c.program import Call, KernelSet
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.reference import PROFILES, run_op

KERNELS = Path(edgesmith.targets.c.__file__).parent / "kernels"
GCC = "arm-none-eabi-gcc"
MACHINES = {"cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500", "cortex-m33": "mps2-an505"}
HAVE_TOOLS = all(shutil.which(tool) for tool in (GCC, "qemu-system-arm"))

Codes = npt.NDArray[np.int8]

RUNTIME = r"""
extern uint32_t stack_top;
void reset(void);
int main(void);
static void hang(void) { __asm__ volatile("mov r0, #0x18\n ldr r1, =0x20023\n bkpt 0xab\n"); }
__attribute__((used, section(".vectors"))) static const void *const vectors[16] = {
    &stack_top, (void *)reset, (void *)hang, (void *)hang, (void *)hang, (void *)hang,
    (void *)hang};
static void put(const char *words)
{
    register uint32_t r0 __asm__("r0") = 4;
    register const char *r1 __asm__("r1") = words;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
static void hex(uint32_t value)
{
    char digits[10];
    for (int i = 0; i < 8; i++) {
        digits[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    }
    digits[8] = ' ';
    digits[9] = 0;
    put(digits);
}
#define SYSTICK ((volatile uint32_t *)0xE000E010)
static uint32_t ticks(void) { return 0xFFFFFF - SYSTICK[2]; }
void reset(void)
{
    SYSTICK[1] = 0xFFFFFF; SYSTICK[2] = 0; SYSTICK[0] = 5;
    main();
    put("done\n");
    register uint32_t r0 __asm__("r0") = 0x18;
    register uint32_t r1 __asm__("r1") = 0x20026;
    __asm__ volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) { }
}
static uint8_t arena[ARENA] __attribute__((aligned(8)));
static uint32_t expect(const uint8_t *got, const uint8_t *want, uint32_t bytes)
{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < bytes; i++) { wrong += got[i] != want[i]; }
    return wrong;
}
static uint32_t touched(const uint8_t *from, const uint8_t *to)
{
    uint32_t wrong = 0;
    for (; from < to; from++) { wrong += *from != 0xA5; }
    return wrong;
}
"""

CASE = """
static void call_{n}(const void *in, void *out, void *scratch)
{{
    (void)scratch;
    {function}(&arguments_{n}, in, out{scratch});
}}
static void case_{n}(void)
{{
    uint8_t *const in = arena + {apart_in}, *const out = arena + {apart_out};
    uint8_t *const scratch = arena + {apart_scratch};
    memset(arena, 0xA5, {total});
    memcpy(in, input_{n}, {in_bytes});
    const uint32_t before = ticks();
    call_{n}(in, out, scratch);
    const uint32_t after = ticks();
    hex(after - before);
    hex(expect(out, expected_{n}, {out_bytes}));
    hex(touched(arena, in) + expect(in, input_{n}, {in_bytes})
        + touched(in + {in_bytes}, out) + touched(out + {out_bytes}, scratch)
        + touched(scratch + {scratch_bytes}, arena + {total}));
    memset(arena, 0xA5, {total});
    memcpy(arena + {over_in}, input_{n}, {in_bytes});
    call_{n}(arena + {over_in}, arena + {over_out}, scratch);
    hex(expect(arena + {over_out}, expected_{n}, {out_bytes}));
    put("\\n");
}}
"""

LINKER = """
MEMORY { FLASH (rx) : ORIGIN = FLASH_AT, LENGTH = 4M  RAM (rwx) : ORIGIN = RAM_AT, LENGTH = 2M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.ARM.ex*) } > FLASH
  .bss (NOLOAD) : { *(.bss*) *(.data*) *(COMMON) } > RAM
  stack_top = ORIGIN(RAM) + LENGTH(RAM);
}
"""


@dataclass(frozen=True)
class Measured:
    """Instructions are a multiple of 40; the rest are counts of wrong bytes."""

    instructions: int
    wrong: int
    guards: int
    wrong_over_input: int

    @property
    def right(self) -> bool:
        return self.wrong == self.guards == self.wrong_over_input == 0


@dataclass(frozen=True, eq=False)
class Case:
    """A graph of one operator, its input codes [1, *shape], and its call."""

    graph: ir.Graph
    inputs: Codes
    call: Call

    @property
    def expected(self) -> Codes:
        op = self.graph.ops[0]
        values = {op.inputs[0]: self.inputs}
        return run_op(self.graph, op, values, PROFILES["tflite-micro"]).astype(np.int8)


def lower(graph: ir.Graph, scratch_bytes: int | None = None) -> Call | Declined:
    """The call on DSP kernels alone."""
    op, site = graph.ops[0], Site(graph, KernelSet.DSP, scratch_bytes)
    if isinstance(op, ir.Conv2D):
        return dsp_matrix.conv2d(op, site)
    if isinstance(op, ir.DepthwiseConv2D):
        return dsp_depthwise.depthwise_conv2d(op, site)
    assert isinstance(op, ir.FullyConnected)
    return dsp_matrix.fully_connected(op, site)


def _ceil(value: int, unit: int = 8) -> int:
    return -(-value // unit) * unit


def _case_text(number: int, case: Case) -> tuple[str, int]:
    call, op = case.call, case.graph.ops[0]
    in_bytes, out_bytes = case.inputs.size, case.expected.size
    arrays = list(dict.fromkeys(text.arrays_in(call.arguments)))
    names = {id(array): f"array_{number}_{i}" for i, array in enumerate(arrays)}
    lines = [
        f"static const {text.c_type(a.data)} {names[id(a)]}[] __attribute__((aligned("
        f"{a.alignment}))) = {{\n" + "\n".join(text.elements(a.data)) + "\n};"
        for a in arrays
    ]
    for name, codes in (("input", case.inputs), ("expected", case.expected)):
        bytes_ = codes.reshape(-1).view(np.uint8)
        lines.append(
            f"static const uint8_t {name}_{number}[] = {{" + ",".join(map(str, bytes_)) + "};"
        )
    lines.append(
        f"static const {call.arguments.type_name} arguments_{number} = "
        + text.initializer(call.arguments, names)
        + ";"
    )
    overlap = call.overlaps.get(op.inputs[0])
    # Tensors may start at any byte.
    apart_in, apart_out = 17, _ceil(17 + in_bytes) + 19
    end = apart_out + _ceil(out_bytes) + 16
    lead = end if overlap is None else overlap.distance
    lead = lead if overlap is not None and overlap.exact else _ceil(lead, 4)
    over_in, over_out = (lead, 0) if lead >= 0 else (0, -lead)
    if overlap is None:
        over_in, over_out = apart_in, apart_out
    scratch_at = _ceil(max(end + 8, over_in + in_bytes, over_out + out_bytes)) + 16
    total = scratch_at + call.scratch_bytes + 16
    lines.append(
        CASE.format(
            n=number,
            function=call.function,
            scratch=", scratch" if call.scratch_bytes else "",
            apart_in=apart_in,
            apart_out=apart_out,
            apart_scratch=scratch_at,
            scratch_bytes=call.scratch_bytes,
            total=total,
            in_bytes=in_bytes,
            out_bytes=out_bytes,
            over_in=over_in,
            over_out=over_out,
        )
    )
    return "\n".join(lines), total


def run_cases(
    cases: Sequence[Case], folder: Path, core: str = "cortex-m4", optimize: str = "-O2"
) -> list[Measured]:
    """Build one image with all cases, run it, and return what each measured."""
    parts = [_case_text(number, case) for number, case in enumerate(cases)]
    arena = max(total for _, total in parts)
    body = "\n".join(part for part, _ in parts)
    calls = "\n".join(f"    case_{number}();" for number in range(len(cases)))
    sources = sorted({source for case in cases for source in case.call.sources})
    (folder / "main.c").write_text(
        f'#include "es_dsp.h"\n#include <string.h>\n#define ARENA {arena}\n{RUNTIME}\n{body}\n'
        f"int main(void)\n{{\n{calls}\n    return 0;\n}}\n"
    )
    at = ("0x10000000", "0x38000000") if core == "cortex-m33" else ("0x00000000", "0x20000000")
    script = LINKER.replace("FLASH_AT", at[0]).replace("RAM_AT", at[1])
    (folder / "link.ld").write_text(script)
    image = folder / "image.elf"
    flags = [f"-mcpu={core}", "-mthumb", optimize, "-std=c11", "-ffunction-sections"]
    if core == "cortex-m33":
        flags.append("-mfloat-abi=soft")
    command = [GCC, *flags, "-Wall", "-Wextra", f"-I{KERNELS / 'include'}", str(folder / "main.c")]
    command += [str(KERNELS / source) for source in sources]
    command += ["-nostartfiles", "-Wl,--gc-sections", f"-T{folder / 'link.ld'}", "-o", str(image)]
    subprocess.run([*command, "-specs=nano.specs"], check=True, text=True)
    emulator = ["qemu-system-arm", "-M", MACHINES[core], "-nographic", "-icount", "shift=0"]
    emulator += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    done = subprocess.run(
        emulator,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    output = done.stdout + done.stderr
    lines = [line.split() for line in output.splitlines() if len(line.split()) == 4]
    assert "done" in output, output[-2000:]
    assert len(lines) == len(cases), output[-2000:]
    values = [[int(word, 16) for word in line] for line in lines]
    return [Measured(v[0] * 40, v[1], v[2], v[3]) for v in values]
