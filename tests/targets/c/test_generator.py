"""The generated folder: what it holds, that any compiler takes it, that networks live together."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.registry import Registries
from edgesmith.targets.c.compiler import Compiled, CompileOptions, compile_graph
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.c_host import CHost
from edgesmith.targets.graph.ir import Add, DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.conformance.cases import all_cases
from tests.conformance.random_graphs import random_graph, random_inputs

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")
SEED = 695  # convolutions, element-wise operators, a softmax; one input, one output; so 696


def graph_of(seed: int) -> Graph:
    return legalize(random_graph(seed), CHost().describe())


def library(folder: Path, seed: int = SEED, prefix: str = "model", **options: object) -> Compiled:
    kernels = options.get("kernels", KernelSet.PORTABLE)
    assert isinstance(kernels, KernelSet)
    made = compile_graph(graph_of(seed), CompileOptions(kernels, prefix=prefix))
    write(made, folder)
    return made


def write(made: Compiled, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.library.files.items():
        (folder / name).write_bytes(data)


def sources(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.c"))]


def compiles(*command: str, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def every_kernel(kernels: KernelSet) -> dict[str, bytes]:
    """The kernel files, headers too, that the conformance cases need."""
    description = CHost().describe()
    found: dict[str, bytes] = {}
    for case in all_cases():
        try:
            graph = legalize(case.graph, description)
        except TargetUnsupportedError:
            continue
        files = compile_graph(graph, CompileOptions(kernels)).library.files
        found |= {name: data for name, data in files.items() if not name.startswith("model")}
    return found


def test_the_folder_is_a_library(tmp_path: Path) -> None:
    made = library(tmp_path)
    names = set(made.library.files)
    assert {
        "model.h",
        "model.c",
        "model_data.c",
        "model_data.h",
        "README.md",
        "CMakeLists.txt",
    } <= names
    listed = re.findall(r"^    (\S+\.c)$", (tmp_path / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(name for name in names if name.endswith(".c"))


def test_the_same_graph_gives_the_same_bytes() -> None:
    one = compile_graph(graph_of(SEED), CompileOptions(KernelSet.PORTABLE))
    other = compile_graph(graph_of(SEED), CompileOptions(KernelSet.PORTABLE))
    assert one.library.files == other.library.files


@pytest.mark.parametrize(
    ("compiler", "kernels"),
    [
        (("gcc",), KernelSet.PORTABLE),
        (("clang",), KernelSet.PORTABLE),
        (("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"), KernelSet.PORTABLE),
        (("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"), KernelSet.DSP),
        (("arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"), KernelSet.MVE),
        (("clang", "--target=arm-none-eabi", "-mcpu=cortex-m4", "-mthumb"), KernelSet.DSP),
    ],
    ids=lambda item: item if isinstance(item, KernelSet) else item[0] + "-" + item[-1],
)
def test_every_kernel_compiles_without_warnings(
    compiler: tuple[str, ...], kernels: KernelSet, tmp_path: Path
) -> None:
    made = every_kernel(kernels)
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    kernel_sources = sorted(name for name in made if name.endswith(".c"))
    assert len(kernel_sources) > 30
    flags = [*STRICT, "-O2", "-I."]
    if compiler[0] == "clang" and len(compiler) > 1:  # clang brings no C library for the core
        flags += ["-isystem", "/usr/lib/arm-none-eabi/include"]
    compiles(*compiler, *flags, "-c", *kernel_sources, cwd=tmp_path)


def test_the_whole_folder_compiles_as_it_is(tmp_path: Path) -> None:
    library(tmp_path)
    for compiler in ("gcc", "clang"):
        compiles(compiler, *STRICT, "-c", *sources(tmp_path), cwd=tmp_path)


def test_cmake_builds_it(tmp_path: Path) -> None:
    library(tmp_path / "net")
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    compiles("cmake", "-S", "net", "-B", "out", cwd=tmp_path)
    compiles("cmake", "--build", "out", cwd=tmp_path)
    assert list((tmp_path / "out").glob("libmodel.a"))


CALLER = """
#include <stdio.h>
#include <string.h>
#include "one.h"
#include "two.h"
static unsigned char in1[ONE_INPUT_0_BYTES], out1[ONE_OUTPUT_0_BYTES];
static unsigned char in2[TWO_INPUT_0_BYTES], out2[TWO_OUTPUT_0_BYTES];
int main(void)
{
    const void *inputs1[] = {in1}, *inputs2[] = {in2}, *nothing[] = {NULL};
    void *outputs1[ONE_NUM_OUTPUTS], *outputs2[TWO_NUM_OUTPUTS];
    for (int i = 0; i < ONE_NUM_OUTPUTS; ++i) outputs1[i] = one_output(i);
    for (int i = 0; i < TWO_NUM_OUTPUTS; ++i) outputs2[i] = two_output(i);
    outputs1[0] = out1;
    outputs2[0] = out2;
    if (one_invoke(nothing, outputs1) != 1 || one_invoke(NULL, outputs1) != 1) return 5;
    if (one_input(-1) || one_input(ONE_NUM_INPUTS) || one_input_bytes(7)) return 6;
    if (fread(in1, 1, sizeof in1, stdin) != sizeof in1) return 2;
    if (fread(in2, 1, sizeof in2, stdin) != sizeof in2) return 3;
    if (one_invoke(inputs1, outputs1) || two_invoke(inputs2, outputs2)) return 4;
    memcpy(one_input(0), in1, sizeof in1); /* the input lies in the arena: no copy */
    inputs1[0] = one_input(0);
    if (one_invoke(inputs1, outputs1)) return 4;
    fwrite(out1, 1, sizeof out1, stdout);
    fwrite(out2, 1, sizeof out2, stdout);
    return 0;
}
"""


def test_two_networks_link_into_one_program(tmp_path: Path) -> None:
    graphs = [graph_of(seed) for seed in (SEED, SEED + 1)]
    for prefix, graph in zip(("one", "two"), graphs, strict=True):
        write(
            compile_graph(graph, CompileOptions(KernelSet.PORTABLE, prefix=prefix)),
            tmp_path / prefix,
        )
    (tmp_path / "main.c").write_text(CALLER)
    objects = []
    for prefix in ("one", "two"):
        for source in sources(tmp_path / prefix):
            objects.append(f"{prefix}_{Path(source).stem}.o")
            compiles("gcc", *STRICT, "-c", source, "-o", objects[-1], cwd=tmp_path)
    compiles("gcc", "-Ione", "-Itwo", "main.c", *objects, "-o", "main", cwd=tmp_path)
    inputs = [random_inputs(graph, 0)[0][:1] for graph in graphs]
    done = subprocess.run(
        [str(tmp_path / "main")],
        input=b"".join(each.tobytes() for each in inputs),
        capture_output=True,
        check=True,
    )
    expected = b"".join(
        execute(graph, [each], PROFILES["tflite-micro"])[graph.outputs[0]].tobytes()
        for graph, each in zip(graphs, inputs, strict=True)
    )
    assert done.stdout == expected


def test_names_from_a_model_cannot_leave_their_comments(tmp_path: Path) -> None:
    graph = graph_of(SEED)
    evil = '*/ int evil; /* "\\\n#error ${x} {{ y }}'
    renamed = {name: f"{evil}{index}" for index, name in enumerate(graph.tensors)}
    hostile = replace(
        graph,
        name=evil,
        tensors={
            renamed[name]: replace(tensor, name=renamed[name])
            for name, tensor in graph.tensors.items()
        },
        ops=tuple(
            replace(
                op,
                name=evil + op.name,
                inputs=tuple(renamed.get(name, "") for name in op.inputs),
                outputs=tuple(renamed[name] for name in op.outputs),
            )
            for op in graph.ops
        ),
        inputs=tuple(renamed[name] for name in graph.inputs),
        outputs=tuple(renamed[name] for name in graph.outputs),
    )
    write(compile_graph(hostile, CompileOptions(KernelSet.PORTABLE)), tmp_path)
    compiles("gcc", *STRICT, "-c", *sources(tmp_path), cwd=tmp_path)
    text = (tmp_path / "model.c").read_text() + (tmp_path / "model.h").read_text()
    assert "int evil;" not in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def test_the_header_states_what_the_graph_says(tmp_path: Path) -> None:
    made = library(tmp_path)
    graph = made.scheduled
    text = (tmp_path / "model.h").read_text()
    tensor = graph[graph.inputs[0]]
    assert f"#define MODEL_INPUT_0_BYTES {tensor.bytes}" in text
    assert f"#define MODEL_INPUT_0_ZERO_POINT {tensor.q.scalar[1]}" in text
    scale = re.search(r"#define MODEL_INPUT_0_SCALE (\S+)f", text)
    assert scale is not None
    assert np.float32(scale[1]) == tensor.q.scalar[0]
    assert f"#define MODEL_ARENA_BYTES {made.memory.arena_bytes}" in text


CHECKER = """
#include "model_vectors.h"
int main(void)
{
    return model_check_vectors();
}
"""


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "one changed"])
def test_vectors_check_a_device(wrong: bool, tmp_path: Path) -> None:
    target = Registries.discovered().targets.get("c-host,vectors=3")()
    for name, data in target.build(graph_of(SEED)).files.items():
        if "/" not in name:
            (tmp_path / name).write_bytes(data)
    header = tmp_path / "model_vectors.h"
    assert "#define MODEL_NUM_VECTORS 3" in header.read_text()
    if wrong:
        text = header.read_text()
        at = text.index("model_vectors_output_0[")
        first = re.compile(r"\{(\d+),").search(text, at)
        assert first is not None
        changed = f"{{{int(first[1]) ^ 1},"
        header.write_text(text[: first.start()] + changed + text[first.end() :])
    library_sources = sources(tmp_path)
    (tmp_path / "check.c").write_text(CHECKER)
    compiles("gcc", *STRICT, "check.c", *library_sources, "-o", "check", cwd=tmp_path)
    done = subprocess.run([str(tmp_path / "check")], check=False)
    assert done.returncode == int(wrong)


@pytest.mark.parametrize("name", ["c-host", "cortex-m4", "cortex-m55"])
def test_the_readme_builds_the_folder(name: str, tmp_path: Path) -> None:
    """The command and the C of the README, as they stand there."""
    plan = Registries.discovered().targets.get(name)().build(graph_of(SEED))
    for path, data in plan.files.items():
        if "/" not in path:
            (tmp_path / path).write_bytes(data)
    readme = (tmp_path / "README.md").read_text()
    shown = re.search(r"^```c\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    command = re.search(r"Build: `([^`]+)`", readme)
    assert shown is not None
    assert command is not None
    (tmp_path / "caller.c").write_text(shown[1])
    words = command[1].split()
    assert words[-1] == "*.c"
    compiles(*words[:-1], *(Path(path).name for path in sources(tmp_path)), cwd=tmp_path)


FEEDBACK = """
#include <string.h>
#include "model.h"
int main(void)
{
    static unsigned char other[MODEL_INPUT_1_BYTES];
    const void *own[] = {model_input(0), model_input(1)};
    const void *fed[] = {model_input(0), model_output(0)};
    const void *copied[] = {model_input(0), other};
    void *outputs[] = {model_output(0)};
    if (model_invoke(own, outputs) != 0) return 1;
    if (model_invoke(fed, outputs) != 1) return 2;
    memcpy(other, model_output(0), sizeof other);
    return model_invoke(copied, outputs) == 0 ? 0 : 3;
}
"""


def test_an_output_is_not_taken_as_an_input(tmp_path: Path) -> None:
    """Copying another input would overwrite it in the arena: refused, not computed wrongly."""
    quantization = Quantization.per_tensor(0.1, 0)
    tensors = {name: Tensor(name, (1, 8), DType.INT8, quantization) for name in ("x", "h", "y")}
    graph = Graph("cell", tensors, (Add("add", ("x", "h"), ("y",)),), ("x", "h"), ("y",))
    write(compile_graph(graph, CompileOptions(KernelSet.PORTABLE)), tmp_path)
    (tmp_path / "main.c").write_text(FEEDBACK)
    compiles("gcc", *STRICT, *sources(tmp_path), "-o", "main", cwd=tmp_path)
    assert subprocess.run([str(tmp_path / "main")], check=False).returncode == 0
