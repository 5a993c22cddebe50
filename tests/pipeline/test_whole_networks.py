"""Whole networks to every CPU target: quantized, exported, lowered, proven and compared.

What single operators do not show: flattened images in front of linear layers,
attention, mixed formats, squeeze-and-excite, 1-D convolutions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.lowering import build_for, prove, read_model
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.options import Override, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.targets.base import Target
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.cpu_onnxruntime import CpuOnnxRuntime
from edgesmith.targets.cpu_tflite_runtime import CpuTFLiteRuntime
from edgesmith.targets.graph.agreement import require_agreement
from edgesmith.targets.graph.edges import encode_inputs
from tests.quantize.nets import NETS, make
from tests.targets.installed import need_tools

TARGETS: tuple[Target, ...] = (CpuLiteRT(), CpuOnnxRuntime(), CpuTFLiteRuntime())


class FlattenLate(nn.Module):
    """A clamp between the flatten and the linear layer that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.linear = nn.Linear(36, 3)

    def forward(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return self.linear(nn.functional.relu(nn.functional.max_pool2d(self.conv(x), 2).flatten(1)))


class PermuteFirst(nn.Module):
    """Channels-last before the flatten: columns stand in memory's order already."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.linear = nn.Linear(144, 3)

    def forward(self, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return self.linear(self.conv(x).permute(0, 2, 3, 1).flatten(1))


SAMPLES = np.random.default_rng(0).normal(size=(24, 2, 8, 8)).astype(np.float32)


@cache
def quantized(name: str) -> tuple[QuantizedModel, np.ndarray]:
    if name == "flatten-late":
        return quantize(FlattenLate(), SAMPLES, PTQOptions(), seed=0), SAMPLES
    if name == "permute-first":
        return quantize(PermuteFirst(), SAMPLES, PTQOptions(), seed=0), SAMPLES
    if name == "wide-classifier":
        options = PTQOptions(overrides=(Override(name="linear", activations="int16"),))
        return quantize(FlattenLate(), SAMPLES, options, seed=0), SAMPLES
    model, samples = make(name)
    return quantize(model, samples, PTQOptions(), seed=0), samples


NAMES = (*NETS, "flatten-late", "permute-first", "wide-classifier")
# TFLite has no layer normalization: refused by name, which another test says.
PAIRS = [
    pytest.param(name, target, id=f"{name}-{target.name}")
    for name in NAMES
    for target in TARGETS
    if name != "transformer" or "LayerNorm" in target.describe().ops
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_layer_normalization_is_refused_by_name_or_taken(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_qdq(quantized("transformer")[0], path)
    if "LayerNorm" in target.describe().ops:
        pytest.skip("taken: shipped in the test below")
    with pytest.raises(TargetUnsupportedError, match="LayerNorm 'norm1' is not among"):
        build_for(read_model(path), target, tmp_path)


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_a_network_ships_as_it_was_scored(name: str, target: Target, tmp_path: Path) -> None:
    need_tools(target)
    model, samples = quantized(name)
    path = tmp_path / "model.onnx"
    export_qdq(model, path)
    graph = read_model(path)
    if name == "wide-classifier" and target.name == "cpu-tflite-runtime":
        with pytest.raises(TargetUnsupportedError, match=r"int8 activations in and int16 out"):
            build_for(graph, target, tmp_path)
        return
    products, legal = build_for(graph, target, tmp_path)
    parity, shipped = prove(model.searched(), target, products, legal.positions)
    assert parity.different == 0
    source = shipped[shipped.inputs[0]]
    codes = encode_inputs(source, samples[:8], legal.layout.get(source.name))
    trace = target.run(products, [codes], trace=True)
    found = require_agreement(shipped, trace, target.describe())
    hidden = {op.kind for op in shipped.ops} - {each.kind for each in found}
    # A file in another axis order shows some results only behind the move that follows them.
    assert hidden <= {"Reshape", "Transpose", "BatchMatMul"}
    assert len(found) >= len(shipped.ops) // 2
    # Free-running, errors of one LSB an operator add up along the depth of these small nets.
    output = shipped[shipped.outputs[0]]
    scale, zero = output.q.scalar
    reals = (trace[output.name].astype(np.float64) - zero) * scale
    layout = legal.layout.get(output.name)
    ordered = np.asarray(
        reals if layout is None else layout.to_source(reals, (-1,)), np.float64
    ).reshape(8, -1)
    expected = model.predict(samples[:8]).reshape(8, -1)
    steps = 4 * (256 if "int16" in str(output.dtype) else 1)
    assert np.abs(ordered - expected).max() <= steps * scale
