"""The fake-quantized network with a device's rounding, against the reference executor's codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesmith.pipeline.lowering import read_model
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize import ops
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.fixed_point import FIXED_POINT, on_fixed_point
from edgesmith.quantize.network import INPUT, Step
from edgesmith.quantize.options import Override, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.targets.graph.drift import TraceOrder, trace_of_codes
from edgesmith.targets.graph.edges import encode_inputs
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.quantize.nets import FloatArray, make

NARROW = (Override("layer1.0.*", weights="int4", activations="int4"),)
OPTIONS = {
    "int8": PTQOptions(),
    "per-tensor": PTQOptions(weights="int8-per-tensor"),
    "int3": PTQOptions(weights="int3"),
    "int1": PTQOptions(weights="int1"),
    "a16": PTQOptions(activations="int16"),
    "w4a4": PTQOptions(weights="int4", activations="int4"),
}
EXACT = [
    *((net, name) for net in ("plain", "residual") for name in OPTIONS),
    *(
        (net, name)
        for net in ("separable", "hard-sigmoid", "waves")
        for name in OPTIONS
        if name != "a16"
    ),
]
"""Networks whose operators are exact in these formats, or whose curves meet no tie in them."""


def moves_codes(step: Step) -> bool:
    return step.op.shares_quantizer and not isinstance(step.op, ops.Resize)


def differing(
    made: QuantizedModel, scored: QuantizedModel, data: FloatArray, folder: Path
) -> dict[str, float]:
    """Tensor -> share of codes that differ from the device's."""
    export_qdq(made, folder / "model.onnx")
    graph = legalize(read_model(folder / "model.onnx"), get_target("c-host").describe())
    source = graph[graph.inputs[0]]
    codes = encode_inputs(source, data, graph.layout.get(source.name))
    found: Any = execute(graph, [codes], PROFILES["tflite-micro"], trace=True)
    device = trace_of_codes(graph, found, TraceOrder(dict(graph.layout)))
    trace = scored.trace(data)
    assert made.module.output in device
    assert all(trace[name].size == values.size for name, values in device.items() if name in trace)
    return {
        name: float(
            np.mean(
                np.abs(trace[name].reshape(values.shape) - values) > graph[name].q.scalar[0] / 2
            )
        )
        for name, values in device.items()
        if name in trace
    }


@pytest.mark.parametrize(("net", "name"), EXACT)
def test_every_code_is_the_devices(net: str, name: str, tmp_path: Path) -> None:
    model, data = make(net)
    made = quantize(model, data, OPTIONS[name], seed=0)
    scored = on_fixed_point(made)
    assert scored is not None
    found = differing(made, scored, data, tmp_path)
    assert len(found) > 4
    assert not any(found.values()), found


def test_mixed_formats(tmp_path: Path) -> None:
    model, data = make("residual")
    made = quantize(model, data, PTQOptions(overrides=NARROW), seed=0)
    scored = on_fixed_point(made)
    assert scored is not None
    assert not any(differing(made, scored, data, tmp_path).values())


@pytest.mark.parametrize("net", ["inception", "attention", "transformer"])
def test_operators_in_reals_are_close(net: str, tmp_path: Path) -> None:
    """Softmax, sigmoid, GELU, normalization, bilinear resizing: few codes, and all else exact."""
    model, data = make(net)
    made = quantize(model, data, PTQOptions(), seed=0)
    scored = on_fixed_point(made)
    assert scored is not None
    mine, ideal = differing(made, scored, data, tmp_path), differing(made, made, data, tmp_path)
    output = made.module.output
    assert mine[output] < 0.05 < ideal[output]
    exact = {INPUT, *made.module.constant_names}
    for step in made.placement.steps:
        if exact.issuperset(step.inputs) and (
            isinstance(step.op, FIXED_POINT) or moves_codes(step)
        ):
            exact.add(step.name)
    assert len(exact) > 3
    assert not any(mine.get(name) for name in exact)


@pytest.mark.parametrize("net", ["separable", "waves", "attention"])
def test_wide_activations_are_exact_up_to_the_first_curve(net: str, tmp_path: Path) -> None:
    """Depthwise, grouped, one-dimensional and linear layers with int16 activations."""
    model, data = make(net)
    made = quantize(model, data, PTQOptions(activations="int16"), seed=0)
    scored = on_fixed_point(made)
    assert scored is not None
    mine = differing(made, scored, data, tmp_path)
    layers = [step.name for step in made.placement.steps if isinstance(step.op, ops.Layer)]
    curves = (ops.Softmax, ops.Sigmoid)
    kinds = [step.op for step in made.placement.steps]
    first = next(i for i, op in enumerate(kinds) if isinstance(op, curves))
    before = [step.name for step in made.placement.steps[:first]]
    assert set(layers) & set(before)
    assert not any(mine.get(name) for name in before)


def test_narrow_weights_need_it(tmp_path: Path) -> None:
    """What the form is for: of int3 layers many codes differ where rounding is ideal."""
    model, data = make("residual")
    made = quantize(model, data, PTQOptions(weights="int3"), seed=0)
    found = differing(made, made, data, tmp_path)
    assert max(found.values()) > 0.05


def test_no_fixed_point_of_floats() -> None:
    model, data = make("plain")
    assert on_fixed_point(quantize(model, data, PTQOptions(activations="fp8-e4m3"), seed=0)) is None


def test_the_model_itself_is_unchanged() -> None:
    model, data = make("plain")
    made = quantize(model, data, PTQOptions(weights="int3"), seed=0)
    before = made.predict(data)
    scored = on_fixed_point(made)
    assert scored is not None
    assert not np.array_equal(scored.predict(data), before)
    np.testing.assert_array_equal(made.predict(data), before)
    assert scored.searched() is made.searched()
