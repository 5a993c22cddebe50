"""Weights of 1 to 8 bits, 4-bit activations, power-of-two scales: exact from search to artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.lowering import build_for, prove, read_model
from edgesmith.pipeline.onnx_form import run_exported
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.formats import binary_scale
from edgesmith.quantize.options import LearnedRounding, Override, PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.graph.agreement import require_agreement
from edgesmith.targets.graph.edges import encode_inputs
from tests.quantize.nets import make

C_HOST = "c-host"
CASES = {
    "int1": (PTQOptions(weights="int1"), (C_HOST,)),
    "int2": (PTQOptions(weights="int2-per-tensor"), (C_HOST,)),
    "int3": (PTQOptions(weights="int3"), (C_HOST, "cpu-litert", "cpu-onnxruntime")),
    "int6": (PTQOptions(weights="int6", power_of_two_scales=True), (C_HOST, "cpu-onnxruntime")),
    "a4": (PTQOptions(activations="int4"), (C_HOST, "cpu-litert", "cpu-onnxruntime")),
    "w2a4": (PTQOptions(weights="int2", activations="int4"), (C_HOST,)),
    "mixed": (
        PTQOptions(overrides=(Override("layer1.0.*", weights="int4", activations="int4"),)),
        (C_HOST, "cpu-litert"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_search_file_and_artifact_are_the_same(case: str, tmp_path: Path) -> None:
    options, targets = CASES[case]
    model, data = make("residual")
    made = quantize(model, data, options, seed=0)
    export_qdq(made, tmp_path / "model.onnx")
    np.testing.assert_array_equal(run_exported(tmp_path / "model.onnx", data), made.predict(data))
    graph = read_model(tmp_path / "model.onnx")
    for name in targets:
        target = get_target(name)
        products, legal = build_for(graph, target, tmp_path / name)
        parity, shipped = prove(made.searched(), target, products, legal.positions)
        assert parity.different == 0
        source = shipped[shipped.inputs[0]]
        codes = encode_inputs(source, data[:4], legal.layout.get(source.name))
        shown = target.run(products, [codes], trace=True)
        assert require_agreement(shipped, shown, target.describe())
        for step in made.placement.steps:
            fmt = made.placement.format_of(step.name)
            if step.name in shown and shown[step.name].dtype == np.int8:
                assert shown[step.name].min() >= fmt.qmin
                assert shown[step.name].max() <= fmt.qmax


def test_binary_weights_have_the_mean_magnitude_as_scale() -> None:
    model, data = make("plain")
    made = quantize(model, data, PTQOptions(weights="int1", equalize=False), seed=0)
    for step in made.floating.layer_steps():
        weight = made.floating.layer(step.name).weight.detach().numpy()
        found = made.searched()[f"{step.name}.weight"]
        assert found.dtype == "int2"
        assert found.codes is not None
        assert set(np.unique(found.codes)) == {-1, 1}
        rows = weight.reshape(len(weight), -1)
        np.testing.assert_allclose(found.scale, binary_scale(rows), rtol=1e-6)
        np.testing.assert_array_equal(found.codes, np.where(weight >= 0, 1, -1))


def test_ternary_weights_leave_minus_two_out() -> None:
    model, data = make("plain")
    made = quantize(model, data, PTQOptions(weights="int2"), seed=0)
    codes = [t.codes for t in made.searched().tensors if t.role == "weight"]
    assert {int(code) for each in codes if each is not None for code in np.unique(each)} == {
        *(-1, 0, 1)
    }


@pytest.mark.parametrize("ranges", ["mse", "min-max"])
@pytest.mark.parametrize("weights", ["int8", "int1", "fp8-e4m3"])
def test_power_of_two_scales(weights: str, ranges: str) -> None:
    model, data = make("squeeze-excite")
    options = PTQOptions(weights=weights, power_of_two_scales=True, ranges=ranges)  # type: ignore[arg-type]
    made = quantize(model, data, options, seed=0)
    for tensor in made.searched().tensors:
        assert (np.frexp(tensor.scale)[0] == 0.5).all(), tensor.name


def test_fixed_outputs_stay_int8_in_a_four_bit_network() -> None:
    model, data = make("squeeze-excite")
    made = quantize(model, data, PTQOptions(activations="int4"), seed=0)
    formats = {step.op.kind: made.placement.format_of(step.name) for step in made.placement.steps}
    assert formats["sigmoid"].name == "int8"
    assert formats["conv"].name == "int4"


def test_fewer_bits_are_further_from_float() -> None:
    model, data = make("plain")
    errors = []
    for bits in (8, 6, 4, 3, 2):
        made = quantize(model, data, PTQOptions(weights=f"int{bits}"), seed=0)
        difference = made.predict(data) - make("plain")[0](_torch(data)).detach().numpy()
        errors.append(float(np.square(difference).mean()))
    assert errors == sorted(errors)


def test_learned_rounding_leaves_binary_and_float_layers_alone() -> None:
    model, data = make("plain")
    learned = LearnedRounding(iterations=20)
    for weights in ("int1", "fp8-e4m3"):
        plain = PTQOptions(weights=weights, bias_correction=False)
        with_rounding = PTQOptions(weights=weights, bias_correction=False, learned_rounding=learned)
        found = [
            quantize(model, data, options, seed=0, progress=SilentProgress())
            for options in (plain, with_rounding)
        ]
        assert found[0].searched().same_as(found[1].searched())


def _torch(data: np.ndarray) -> object:
    import torch

    return torch.from_numpy(data)
