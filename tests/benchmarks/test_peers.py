"""Rewritten TFLite files, plain sizes, single layers in two formats, BakeNN, Inductor."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.quantize.engines.containment import contained
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.benchmarks.loading import benchmark
from tests.oracles import run_tflm
from tests.targets.mcu.library import need

bakenn = benchmark("peers.bakenn")
compressor = benchmark("peers.neural_compressor")
layers = benchmark("peers.layers")
ours = benchmark("peers.ours")
tflite = benchmark("peers.tflite")

POINTWISE, CONV, DEPTHWISE, DENSE = layers.LAYERS


def classifier() -> Graph:
    """Input 1x4x4x8 -> 1x1 convolution -> reshape -> fully connected -> softmax."""
    conv = replace(POINTWISE, source=(1, 4, 4, 8), weights=(4, 1, 1, 8)).graph(DType.INT8)
    dense = replace(DENSE, source=(1, 64), weights=(5, 64)).graph(DType.INT8)
    tensors = {
        f"{prefix}_{name}": replace(each, name=f"{prefix}_{name}")
        for prefix, graph in (("c", conv), ("d", dense))
        for name, each in graph.tensors.items()
    }
    tensors["d_x"] = replace(tensors["d_x"], quantization=tensors["c_y"].quantization)
    step = tensors["c_y"].q.scale[0] * tensors["d_weight"].q.scale
    tensors["d_bias"] = replace(
        tensors["d_bias"], quantization=Quantization(step, np.zeros(1, np.int64))
    )
    fixed = Quantization.per_tensor(1 / 256, -128)
    tensors["p"] = Tensor("p", tensors["d_y"].shape, DType.INT8, fixed)
    ops = (
        replace(conv.ops[0], name="conv", inputs=("c_x", "c_weight", "c_bias"), outputs=("c_y",)),
        ir.Reshape("flat", ("c_y",), ("d_x",), (1, 64)),
        replace(dense.ops[0], name="fc", inputs=("d_x", "d_weight", "d_bias"), outputs=("d_y",)),
        ir.Softmax("softmax", ("d_y",), ("p",)),
    )
    return Graph("classifier", tensors, ops, ("c_x",), ("p",))


def aged(model: bytes) -> bytes:
    """The file as an old converter leaves it: open batch, bare reshape, one-byte codes."""
    table = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    for code in table.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
    (graph,) = table.subgraphs
    for tensor in graph.tensors:
        tensor.shapeSignature = [-1, *tensor.shape[1:]]
    for operator in graph.operators:
        if operator.builtinOptionsType == schema.BuiltinOptions.ReshapeOptions:
            operator.builtinOptionsType, operator.builtinOptions = 0, None
    builder = flatbuffers.Builder(len(model))
    builder.Finish(table.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators(model: bytes) -> list[tuple[int, Any]]:
    """Operator code and options of every operator."""
    table = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    codes = [code.builtinCode for code in table.operatorCodes]
    (graph,) = table.subgraphs
    return [(codes[each.opcodeIndex], each.builtinOptions) for each in graph.operators]


def test_a_file_without_its_softmax_computes_what_went_into_the_softmax() -> None:
    graph = classifier()
    cut = tflite.without_softmax(aged(write_tflite(graph)))
    (codes,) = random_codes(graph, 20)
    traced = execute(graph, [codes], PROFILES["tflite-micro"], trace=True)
    (found,) = run_tflm(cut, [codes])
    assert np.array_equal(found, traced["d_y"])
    assert len(np.unique(found)) > 20  # not a constant that everything equals


def test_a_rewritten_file_is_static_and_states_its_reshapes() -> None:
    cut = tflite.without_softmax(aged(write_tflite(classifier())))
    found = dict(operators(cut))
    assert schema.BuiltinOperator.SOFTMAX not in found
    assert list(found[schema.BuiltinOperator.RESHAPE].newShape) == [1, 64]
    model = schema.Model.GetRootAsModel(cut, 0)
    tensors = [model.Subgraphs(0).Tensors(at) for at in range(model.Subgraphs(0).TensorsLength())]
    assert {each.ShapeSignatureLength() for each in tensors} == {0}


def test_a_softmax_inside_a_network_is_not_left_out() -> None:
    graph = classifier()
    again = Tensor("q", graph["p"].shape, DType.INT8, graph["p"].quantization)
    ops = (*graph.ops, ir.Softmax("again", ("p",), ("q",)))
    longer = Graph("longer", {**graph.tensors, "q": again}, ops, graph.inputs, ("q",))
    with pytest.raises(ValueError, match="softmax"):
        tflite.without_softmax(write_tflite(longer))


def test_the_host_runs_one_sample_after_another() -> None:
    graph = classifier()
    model = write_tflite(graph)
    (codes,) = random_codes(graph, 5)
    (expected,) = run_tflm(model, [codes])
    assert np.array_equal(tflite.run_tflite_micro(model, codes), expected)


@given(
    channels=st.integers(1, 40),
    depth=st.integers(1, 40),
    per_channel=st.booleans(),
    dtype=st.sampled_from((DType.INT8, DType.INT4)),
)
def test_plain_sizes_of_parameters(
    channels: int, depth: int, per_channel: bool, dtype: DType
) -> None:
    layer = replace(
        DENSE,
        source=(1, depth),
        weights=(channels, depth),
        per_channel=per_channel,
    )
    weights = -(-channels * depth * dtype.bits // 8)
    requantization = 8 * (channels if per_channel else 1)
    expected = weights + 4 * channels + requantization
    assert ours.parameter_bytes(layer.graph(dtype)) == expected


def test_parameters_that_two_layers_share_count_once() -> None:
    graph = CONV.graph(DType.INT8)
    (op,) = graph.ops
    second = replace(op, name="second", outputs=("z",))
    tensors = {**graph.tensors, "z": replace(graph["y"], name="z")}
    both = Graph("both", tensors, (op, second), graph.inputs, ("y", "z"))
    repeated = 8 * graph["weight"].q.scale.size  # each layer has its own multipliers
    assert ours.parameter_bytes(both) == ours.parameter_bytes(graph) + repeated


@pytest.mark.parametrize("layer", layers.LAYERS, ids=lambda layer: layer.title)
def test_two_formats_of_a_layer_differ_in_their_weights_alone(layer: Any) -> None:
    wide, narrow = layer.graph(DType.INT8), layer.graph(DType.INT4)
    assert [t.shape for t in wide.tensors.values()] == [t.shape for t in narrow.tensors.values()]
    assert (wide["weight"].dtype, narrow["weight"].dtype) == (DType.INT8, DType.INT4)
    for name in ("x", "y"):
        assert wide[name].quantization.same_as(narrow[name].quantization)
    for graph in (wide, narrow):
        inputs = random_codes(graph, 4)
        outputs = execute(graph, inputs, PROFILES["tflite-micro"])["y"]
        saturated = np.mean((outputs == -128) | (outputs == 127))
        assert saturated < 0.1  # a layer that clamps everything would hide wrong sums


def test_int4_weights_are_packed_filter_by_filter() -> None:
    assert CONV.packed_share == 0.5
    assert DEPTHWISE.packed_share == 5 / 9


def test_a_workplace_stays_only_when_something_fails() -> None:
    with ours.workplace() as folder:
        (folder / "build.log").write_text("")
    assert not folder.exists()
    with pytest.raises(OSError, match="broken"), ours.workplace() as folder:
        raise OSError("broken")
    assert folder.is_dir()
    folder.rmdir()


def test_bakenn_is_built_and_counted_like_everything_else() -> None:
    pytest.importorskip("bakenn")
    pytest.importorskip("tflite")
    need()
    model = aged(write_tflite(classifier()))
    cut = tflite.without_softmax(model)
    graph = read_tflite(cut)
    (codes,) = random_codes(graph, 3)
    core = ours.microcontroller("cortex-m4").core
    found = bakenn.run_bakenn(model, "classifier", core, codes, ours.output_type(graph))
    assert np.array_equal(found.outputs, run_tflm(cut, [codes])[0])
    macs = 4 * 4 * 4 * 8 + 5 * 64
    assert macs < found.instructions < 40 * macs
    assert found.level in bakenn.LEVELS
    assert 0 < found.vendor_layers <= found.layers
    assert found.ram_bytes >= codes[0].size + found.outputs[0].size
    assert found.flash_bytes > ours.parameter_bytes(graph)


@pytest.mark.skipif(shutil.which("g++") is None, reason="apt-get install -y g++")
def test_models_are_compiled_one_after_the_other() -> None:
    """Each in its own folder, which is gone when the next one is compiled."""
    for inputs in (4, 5):
        model = torch.nn.Linear(inputs, 3).eval().requires_grad_(False)
        sample = torch.ones(1, inputs)
        with contained() as folder:
            call = compressor._compiled(model, sample, folder)
            assert torch.allclose(call(), model(sample), atol=1e-5)
