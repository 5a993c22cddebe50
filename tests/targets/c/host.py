"""Runs calls of C kernels on the host under the address and undefined-behaviour sanitizers.

One program per set of kernels: it reads calls from standard input (which function, its
arguments as bytes, operands, sizes of results) and writes the results. Structs are laid out
here from the kernels' own headers, so a field that a lowering forgets, renames or moves is
found before anything runs. Operands end where their allocation ends.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.layout import Layout
from edgesmith.targets.c.program import Array, Call

KERNELS = Path(__file__).parents[3] / "targets" / "c" / "kernels"
INCLUDE = KERNELS / "include"
FLAGS = (
    *("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
MOST_POINTERS = 11
GUARD_CODE = 0xA5  # what results and scratch hold before a call

Codes = npt.NDArray[np.generic]

# Templates of whole kernels are given their names.
_KERNEL = re.compile(r"^(?:void |#define ES_KERNEL )(es_\w+)\b", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Request:
    """One call with its operands; `over` is the operand that the result lies over, if any."""

    call: Call
    reads: tuple[Codes, ...]
    result: np.dtype[np.generic]
    shape: tuple[int, ...]
    over: int | None = None


def encode(requests: Sequence[Request], functions: Sequence[str], pointer_bytes: int = 8) -> bytes:
    """The bytes that the program reads."""
    parts = []
    for request in requests:
        layout = Layout(pointer_bytes)
        layout.write(request.call.arguments)
        header = [functions.index(request.call.function), len(layout.blob), len(layout.pointers)]
        parts += [_words(*header), bytes(layout.blob)]
        for offset, array in layout.pointers:
            assert isinstance(array, Array)  # kernels are called alone, nothing expands before
            parts += [_words(offset, array.data.nbytes), array.data.tobytes()]
        parts.append(_words(len(request.reads)))
        names = request.call.reads
        for name, codes in zip(names, request.reads, strict=True):
            parts += [_words(names.index(name), codes.nbytes), codes.tobytes()]
        size = int(np.prod(request.shape)) * request.result.itemsize
        over, distance = -1, 0
        if request.over is not None:
            over = request.over
            distance = request.call.overlaps[request.call.reads[over]].distance
        parts.append(_words(size, request.call.scratch_bytes, over, distance))
    return b"".join(parts)


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def decode(data: bytes, requests: Sequence[Request]) -> list[Codes]:
    """Results of the calls, by the shapes asked for."""
    found, at = [], 0
    for request in requests:
        count = int(np.prod(request.shape))
        result = np.frombuffer(data, request.result, count, at).reshape(request.shape)
        found.append(result)
        at += result.nbytes
    assert at == len(data)
    return found


def main_text(functions: Sequence[str]) -> str:
    """The program that runs calls."""
    # Declared without parameters, since all are called through one table.
    declared = "\n".join(f"void {name}(void);" for name in functions)
    cases = "\n".join(_case(count) for count in range(1, MOST_POINTERS + 1))
    table = ", ".join(functions)
    return _MAIN % {"declared": declared, "table": table, "cases": cases, "guard": GUARD_CODE}


def _case(count: int) -> str:
    types = ", ".join(["const void *"] * (count + 1))
    values = ", ".join(["a", *(f"p[{index}]" for index in range(count))])
    return f"    case {count}: ((void (*)({types}))f)({values}); break;"


_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void (*any)(void);
%(declared)s
static any const table[] = {%(table)s};
static FILE *from, *to;
static void take(void *data, size_t size)
{
    if (size && fread(data, 1, size, from) != size) exit(3);
}
static int32_t word(void)
{
    int32_t value;
    if (fread(&value, 1, 4, from) != 4) exit(3);
    return value;
}
static void *fresh(size_t size)
{
    void *data = malloc(size ? size : 1);
    if (!data) exit(4);
    memset(data, %(guard)d, size);
    return data;
}
static void invoke(any f, const void *a, const void **p, int count)
{
    switch (count) {
%(cases)s
    default: exit(5);
    }
}
static void one(int32_t index)
{
    size_t size = (size_t)word();
    int32_t arrays = word();
    void *owned[64];
    int held = 0;
    char *arguments = owned[held++] = fresh(size);
    take(arguments, size);
    for (; arrays > 0; --arrays) {
        int32_t offset = word();
        size_t bytes = (size_t)word();
        void *data = owned[held++] = fresh(bytes);
        take(data, bytes);
        memcpy(arguments + offset, &data, sizeof data);
    }
    const void *p[16];
    char *operand[16];
    size_t sizes[16];
    int32_t first[16];
    int count = word();
    for (int i = 0; i < count; ++i) {
        first[i] = word();
        sizes[i] = (size_t)word();
        operand[i] = owned[held++] = fresh(sizes[i]);
        take(operand[i], sizes[i]);
    }
    size_t bytes = (size_t)word(), scratch = (size_t)word();
    int32_t over = word(), distance = word();
    size_t before = distance < 0 ? (size_t)-distance : 0;
    size_t after = distance > 0 ? (size_t)distance : 0;
    size_t both = before + bytes;
    if (over >= 0 && after + sizes[over] > both) both = after + sizes[over];
    char *whole = owned[held++] = fresh(over >= 0 ? both : bytes);
    char *out = over >= 0 ? whole + before : whole;
    if (over >= 0) {
        memcpy(whole + after, operand[over], sizes[over]);
        operand[over] = whole + after;
    }
    for (int i = 0; i < count; ++i) p[i] = operand[first[i]];
    p[count++] = out;
    if (scratch) p[count++] = owned[held++] = fresh(scratch);
    invoke(table[index], arguments, p, count);
    if (bytes && fwrite(out, 1, bytes, to) != bytes) exit(6);
    while (held > 0) free(owned[--held]);
}
int main(int argc, char **argv)
{
    from = argc > 2 ? fopen(argv[1], "rb") : stdin;
    to = argc > 2 ? fopen(argv[2], "wb") : stdout;
    if (!from || !to) return 2;
    int32_t index;
    while (fread(&index, 1, 4, from) == 4) one(index);
    return fclose(to);
}
"""


class Kernels:
    """A compiled set of kernels.

    Args:
        sources: as `Call.sources` names them.
        folder: where the program goes.
    """

    def __init__(self, sources: Sequence[str], folder: Path) -> None:
        paths = [KERNELS / source for source in sources]
        text = "\n".join(path.read_text() for path in paths)
        self.functions = sorted(set(_KERNEL.findall(text)))
        main = folder / "main.c"
        main.write_text(main_text(self.functions))
        self.program = folder / "kernels"
        command = ["gcc", *FLAGS, f"-I{INCLUDE}", "-o", str(self.program)]
        subprocess.run([*command, str(main), *map(str, paths)], check=True, timeout=300)

    def run(self, requests: Sequence[Request]) -> list[Codes]:
        """Results of calls, in order; a sanitizer's report fails the test."""
        done = subprocess.run(
            [str(self.program)],
            input=encode(requests, self.functions),
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        return decode(done.stdout, requests)
