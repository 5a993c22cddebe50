"""`make bench-mcu`: what microcontroller targets claim, on an emulated Cortex-M4.

    python benchmarks/mcu.py [GROUP ...]

Groups: kws, ic, vww, ad (the official int8 files of MLPerf Tiny, beside BakeNN in the same
run), int4, transformer, times; all by default. The networks and times read EDGESMITH_DATA
and fail without it: a figure that was not measured is no figure.

Instructions are executed ones, the most of all samples, from the entry of `model_invoke`
to its return. Flash is that of a linked image with nothing but the model; "beyond
parameters" takes off int8 weights, int32 biases and 8 bytes per scale of the weights
(a multiplier and a shift), each stored plainly once, so padding and repeats stay in. The networks
are built with every weight stored, as their peers do.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from peers.bakenn import run_bakenn
from peers.comparison import Comparison, rows, side_by_side
from peers.figures import NETWORKS, Network
from peers.layers import LAYERS
from peers.ours import measure, microcontroller, output_type
from peers.tflite import Array, run_tflite_micro, without_softmax
from rich.console import Console
from rows import Row, publish

from edgesmith.pipeline.versions import installed
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.graph.ir import DType, Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.mcu.toolchain import GCC, QEMU

ROOT = Path(__file__).resolve().parent.parent
CORE = "cortex-m4"
SPEED_FIRST = f"{CORE},zeros=store"
MEMORY_FIRST = f"{CORE},plan=memory,zeros=store"
SAMPLES = 100
FEW = 10
TRANSFORMER_RAM = 320 * 1024
PACKAGES = {"bakenn": "bakenn", "tflite": "tflite", "tflite_micro": "tflite-micro"}
_INSTALL = ".venv/bin/python -m pip install -c constraints.txt -e '.[bench]'"


def require() -> None:
    """Check that the peers, the tool chain and the emulator are installed.

    Raises:
        SystemExit: something is not; the message says how to get it.
    """
    missing = [f"package {name}" for name in PACKAGES if importlib.util.find_spec(name) is None]
    fixes = [_INSTALL] if missing else []
    for tool in microcontroller(CORE).tools():
        if tool.find() is None:
            missing.append(tool.what)
            fixes.append(tool.install)
    if missing:
        lines = [f"bench-mcu needs {', '.join(missing)}. To install:", *dict.fromkeys(fixes)]
        raise SystemExit("\n  ".join(lines))


def versions() -> dict[str, str]:
    """Of the peers, the compiler and the emulator."""
    found = installed(*PACKAGES.values())
    for tool in (GCC, QEMU):
        command = [tool.require(), "--version"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[tool.name] = done.stdout.splitlines()[0]
    return found


def official(network: str) -> Path:
    """An official int8 file of MLPerf Tiny.

    Raises:
        SystemExit: EDGESMITH_DATA does not name the folder that has it.
    """
    path = Path(os.environ.get("EDGESMITH_DATA", ""), "mlperf_tiny", f"{network}_int8.tflite")
    if not path.is_file():
        raise SystemExit("set EDGESMITH_DATA to the folder that holds mlperf_tiny/")
    return path


def differing(found: Array, expected: Array) -> int:
    """Bytes of int8 outputs that differ, over the samples of `found`.

    Args:
        expected: at least as many samples, of the same shape.
    """
    if found.shape[1:] != expected.shape[1:] or len(found) > len(expected):
        raise ValueError(f"outputs of shape {found.shape} against {expected.shape}")
    return int(np.sum(found != expected[: len(found)]))


def compare(network: Network) -> Comparison:
    """One network under this generator, both plans, and under BakeNN."""
    model = official(network.name).read_bytes()
    graph, cut = read_tflite(model, network.name), without_softmax(model)
    codes = random_codes(graph, SAMPLES)
    expected = run_tflite_micro(model, codes[0])
    speed = measure(graph, SPEED_FIRST, codes)
    few = [each[:FEW] for each in codes]
    memory = measure(graph, MEMORY_FIRST, few)
    peer_type = output_type(read_tflite(cut, network.name))
    core = microcontroller(CORE).core
    bakenn = run_bakenn(model, network.name, core, few[0], peer_type)
    return Comparison(
        network=network,
        speed=speed,
        differing=differing(speed.outputs, expected),
        samples=SAMPLES,
        memory=memory,
        memory_differing=differing(memory.outputs, expected),
        memory_samples=FEW,
        bakenn=bakenn,
        bakenn_differing=differing(bakenn.outputs, run_tflite_micro(cut, few[0])),
        bakenn_samples=FEW,
    )


def reference(graph: Graph, inputs: list[Array]) -> Array:
    """The first output of the reference executor."""
    return execute(graph, inputs, PROFILES["tflite-micro"])[graph.outputs[0]]


def int4() -> Iterator[Row]:
    """Single layers with INT4 weights against the same with INT8 weights."""
    for layer in LAYERS:
        wide, narrow = layer.graph(DType.INT8), layer.graph(DType.INT4)
        inputs = random_codes(wide, 2)
        eight, four = measure(wide, CORE, inputs), measure(narrow, CORE, inputs)
        wrong = differing(four.outputs, reference(narrow, inputs))
        wrong += differing(eight.outputs, reference(wide, inputs))
        yield Row(f"{layer.title}: bytes that differ", wrong, "bytes", "simulated", 0)
        for bits, build in ((8, eight), (4, four)):
            per_mac = build.layers / build.macs
            yield Row(f"{layer.title}: INT{bits}, per MAC", per_mac, "instructions", "simulated")
        share = four.layers / eight.layers
        yield Row(f"{layer.title}: INT4 over INT8 instructions", share, "x", "simulated", 1.10)
        share, half = four.weight_bytes / eight.weight_bytes, layer.packed_share
        yield Row(f"{layer.title}: INT4 over INT8 weight bytes", share, "x", "simulated", half)


def transformer() -> Iterator[Row]:
    """A vision transformer of four blocks within 320 KB of RAM."""
    sys.path.insert(0, str(ROOT))
    from tests.quantize.vit import tiny_vit_graph

    graph = tiny_vit_graph()
    for core in (CORE, "cortex-m7"):
        name = f"{core},ram={TRANSFORMER_RAM}"
        legal = legalize(graph, microcontroller(name).describe())
        inputs = random_codes(legal, FEW)
        build = measure(graph, name, inputs)
        wrong = differing(build.outputs, reference(legal, inputs))
        title = f"vision transformer, {core}"
        yield Row(f"{title}: bytes that differ, {FEW} inputs", wrong, "bytes", "simulated", 0)
        ram = build.ram_bytes + build.stack_bytes
        yield Row(f"{title}: RAM with stack", ram, "bytes", "simulated", TRANSFORMER_RAM)
        yield Row(f"{title}: instructions", build.instructions, "instructions", "simulated")
        yield Row(f"{title}: flash", build.flash_bytes, "bytes", "simulated")
        per_mac = build.cycles_per_mac.nominal
        yield Row(f"{title}: cycles per MAC", per_mac, "", "estimated")


_COMPILE = """
import sys, tempfile, time
from pathlib import Path
import numpy as np
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.target_facts import get_target
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.tflite_reader import read_tflite
start = time.perf_counter()
target = get_target(sys.argv[2])
graph = legalize(read_tflite(Path(sys.argv[1]).read_bytes()), target.describe())
plan = target.build(graph)
compiled = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    products = execute_plan(plan, Path(folder))
    target.run(products, [np.zeros((1, *graph[graph.inputs[0]].shape), np.int8)])
print(compiled - start, time.perf_counter() - compiled)
"""


def times() -> Iterator[Row]:
    """How long the user waits, each in a fresh process: a model to C; IC built and run once."""
    for network in NETWORKS.values():
        for plan, target in (("", CORE), (", memory-first plan", MEMORY_FIRST)):
            command = [sys.executable, "-c", _COMPILE, str(official(network.name)), target]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            compiling, running = map(float, done.stdout.split())
            yield Row(f"{network.title}: TFLite to C{plan}", compiling, "s", goal=2)
            if network.name == "ic":
                yield Row(f"IC: images built and run once{plan}", running, "s", goal=15)


GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "int4": int4,
    "transformer": transformer,
    "times": times,
}


def main(chosen: list[str]) -> bool:
    """Run groups, write and print what they found; whether every goal is met.

    Raises:
        SystemExit: there is no such group, or what a group needs is missing.
    """
    known = [*NETWORKS, *GROUPS]
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"no group {', '.join(unknown)}; choose of {', '.join(known)}")
    require()
    comparisons: list[Comparison] = []

    def found() -> Iterator[Row]:
        for name in chosen or known:
            if name in GROUPS:
                yield from GROUPS[name]()
                continue
            comparisons.append(compare(NETWORKS[name]))
            yield from rows(comparisons[-1])

    # A part of the groups is a look, not the record: it goes to a file of its own.
    met = publish("mcu-partial" if chosen else "mcu", found(), versions())
    if comparisons:
        Console(width=120).print(side_by_side(comparisons))
    return met


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
