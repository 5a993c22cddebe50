"""What a pass of super-network training costs beside one of plain quantization-aware training.

Both train the same model on the same batches, on one thread, each in a process of its own with the
environment that it has in a run; the passes of a step of the super-network run in formats of their
own draw. The two take turns, since a machine is not equally fast all the time and a peak differs
between processes, and a figure is the ratio of their medians. Memory is what users see, the peak of
the whole process, and what tensors hold at the same time, at most: a count, which is the same every
time. By how much training raised the peak is reported beside it: for models as small as these that
is mostly what malloc keeps of many shapes that come once, and kernels that oneDNN compiled.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from rows import Row
from torch import nn
from torch.profiler import ProfilerActivity, profile

from edgesmith.nas.genes import offered
from edgesmith.nas.joint import joint_of
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.training import SuperTrainer
from edgesmith.pipeline.factories import call_factory
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stages.search import Search
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.trainer import Trainer
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.qat.network import TrainedNetwork
from edgesmith.quantize.qat.options import QAT

EXAMPLES = Path(__file__).parents[2] / "examples" / "mlperf_tiny"
MODELS = {
    "KWS": ("models.py:keyword_spotting", (1, 49, 10), 12),
    "IC": ("models.py:image_classification", (3, 32, 32), 10),
}
PLAIN, SHARED = KINDS = "plain", "shared"
BATCH, STEPS, EPOCHS = 64, 12, 5
PROCESSES = 5
"""Of each kind."""
SELECTED = BATCH
PASSES = 2 + SuperTraining().drawn
"""The largest, the smallest and the drawn ones."""


def step(folder: Path) -> Iterator[Row]:
    """Time and memory of both, per model."""
    for name in MODELS:
        times = _ratios(name)
        label = f"{name} pass of super-network training"
        yield Row(label, times["seconds"] / PASSES, "times QAT", goal=1.5)
        label = f"{name} peak of the process in super-network training"
        yield Row(label, times["peak"], "times QAT", goal=1.2)
        alone, together = (_held(_epoch(name, kind)) for kind in KINDS)
        label = f"{name} tensors held by super-network training"
        yield Row(label, together / alone, "times QAT", goal=1.2)
        label = f"{name} growth of the process in super-network training"
        yield Row(label, times["growth"], "times QAT")


def _ratios(name: str) -> dict[str, float]:
    """What the super-network's epoch is of a plain one, by figure, as medians over processes."""
    turns = [[_measured(name, kind) for kind in KINDS] for _ in range(PROCESSES)]
    plain, shared = (
        {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
        for runs in zip(*turns, strict=True)
    )
    return {figure: shared[figure] / plain[figure] for figure in plain}


def _epoch(name: str, kind: str) -> Callable[[], object]:
    """One epoch of a kind of training."""
    factory, shape, classes = MODELS[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = call_factory(factory, {}, EXAMPLES)
    assert isinstance(model, nn.Module)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((BATCH * STEPS, *shape)).astype(np.float32)
    train = Split(inputs, rng.integers(0, classes, len(inputs)))
    few = Split(inputs[:SELECTED], train.labels[:SELECTED])
    made = quantize(model.eval(), inputs[:BATCH], PTQOptions(), seed=0)
    options = QAT(epochs=1, distillation=0.0, batch_size=BATCH)
    network = TrainedNetwork(made, options, None)
    formats = offered(("int8", "int4", "int2"), ("int8",), [get_target("cortex-m4").describe()])
    joint = joint_of(model, shape, formats, PTQOptions(), divisor=4)
    training = SuperTraining(epochs=1, distillation=0.0, batch_size=BATCH)

    def plain() -> object:
        return Trainer(network, None, options, seed=0).run(train, few)

    def shared() -> object:
        return SuperTrainer(joint, model, training, seed=0).run(train, few)

    return plain if kind == PLAIN else shared


def _held(epoch: Callable[[], object]) -> int:
    """Bytes that tensors hold at the same time, at most, in one epoch."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        epoch()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    changes.sort(key=itemgetter("ts"))
    return max(accumulate(int(event["args"]["Bytes"]) for event in changes))


def _measured(name: str, kind: str) -> dict[str, float]:
    """`seconds` of an epoch; `peak` of its process and `growth` of that by training, in KB."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment |= Search.environment if kind == SHARED else {}
    command = [sys.executable, str(Path(__file__)), name, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _trained(name: str, kind: str) -> dict[str, float]:
    epoch = _epoch(name, kind)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_kb("VmRSS")
    epoch()
    turns = []
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        epoch()
        turns.append(time.perf_counter() - begun)
    peak = _status_kb("VmHWM")
    return {"seconds": statistics.median(turns), "peak": peak, "growth": peak - before}


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    print(json.dumps(_trained(*sys.argv[1:3])))
