"""A small vision transformer: what is scored, what is exported and what integers compute."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from edgesmith.quantize.options import PTQOptions
from edgesmith.targets.cpu_onnxruntime import CpuOnnxRuntime
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.costs import largest_live_bytes
from edgesmith.targets.graph.edges import encode_inputs
from edgesmith.targets.graph.ir import Array, Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute, run_op
from tests.quantize.nets import FloatArray
from tests.quantize.vit import images, quantized_vit, tiny_vit, tiny_vit_graph

MICRO = PROFILES["tflite-micro"]
RAM = 320 * 1024
FORMS = ("mean", "class-token")


def form(name: str) -> tuple[Graph, dict[str, FloatArray]]:
    """The graph and what the scored module computes on four images."""
    token = name == "class-token"
    return tiny_vit_graph(class_token=token), quantized_vit(class_token=token).trace(images(4))


def codes(graph: Graph, name: str, reals: FloatArray) -> Array:
    """The scored module's values as this graph's codes."""
    tensor = graph[name]
    scale, zero = tensor.q.scalar
    rounded = np.rint(reals.astype(np.float64) / np.float64(scale)) + zero
    return graph.from_source(name, rounded).astype(tensor.dtype.numpy)


def encoded(graph: Graph, samples: int) -> list[Array]:
    name = graph.inputs[0]
    return [encode_inputs(graph[name], images(samples), graph.layout.get(name))]


@pytest.mark.parametrize("name", FORMS)
def test_every_operator_computes_what_was_scored(name: str) -> None:
    """Given the scored module's inputs: 1 LSB at most, in less than 2 % of each one's codes."""
    graph, trace = form(name)
    known = {
        each: codes(graph, each, value) for each, value in trace.items() if each in graph.tensors
    }
    compared = Counter[str]()
    for op in graph.ops:
        operands = [each for each in op.inputs if each and not graph[each].is_constant]
        if op.output not in known or any(each not in known for each in operands):
            continue
        difference = np.abs(run_op(graph, op, known, MICRO).astype(int) - known[op.output])
        assert difference.max() <= 1, op
        assert (difference > 0).mean() < 0.02, op
        compared[op.kind] += 1
    assert compared["LayerNorm"] == 9
    assert compared["Gelu"] == compared["Softmax"] == 4
    assert compared["BatchMatMul"] == 8


@pytest.mark.parametrize("name", FORMS)
def test_the_whole_network_stays_close(name: str) -> None:
    """Ties that fall to other sides add up over four blocks; measured: 2 and 9 LSB of 256."""
    graph, trace = form(name)
    output = graph.outputs[0]
    found = execute(graph, encoded(graph, 4), MICRO)[output]
    difference = np.abs(found.astype(int) - codes(graph, output, trace[output]))
    assert difference.max() <= 12
    assert difference.mean() < 3


@torch.no_grad()
@pytest.mark.parametrize("name", FORMS)
def test_quantization_keeps_the_function(name: str) -> None:
    token = name == "class-token"
    reference = tiny_vit(class_token=token)(torch.from_numpy(images(16))).numpy()
    made = quantized_vit(class_token=token).predict(images(16))
    noise = np.square(reference - made).sum() / np.square(reference).sum()
    assert -10 * np.log10(noise) > 20


def test_int16_activations_are_closer() -> None:
    options = PTQOptions(activations="int16")
    graph, made = tiny_vit_graph(options), quantized_vit(options)
    assert {graph[op.output].dtype for op in graph.ops} == {ir.DType.INT16}
    output = graph.outputs[0]
    expected = made.trace(images(2))[output]
    found = graph[output].q.dequantize(execute(graph, encoded(graph, 2), MICRO)[output])
    assert np.abs(found.reshape(expected.shape) - expected).max() < np.abs(expected).max() / 100


@pytest.mark.parametrize("name", FORMS)
def test_it_fits_a_microcontroller_and_needs_no_copies(name: str) -> None:
    """Legalized without names to keep: scales inside the softmax, no slices of q, k and v."""
    graph, _ = form(name)
    legal = legalize(graph, CpuOnnxRuntime().describe(), keep=())
    kinds = Counter(op.kind for op in legal.ops)
    assert kinds["Mul"] == 0
    assert kinds["Quantize"] == 0
    assert kinds["StridedSlice"] == (1 if name == "class-token" else 0)
    assert {op.beta for op in legal.ops if isinstance(op, ir.Softmax)} == {0.25}
    assert largest_live_bytes(legal) < RAM / 4
    inputs = encoded(graph, 2)
    for key, value in execute(graph, inputs, MICRO).items():
        np.testing.assert_array_equal(execute(legal, inputs, MICRO)[key], value)


def test_gains_and_offsets_have_their_own_formats() -> None:
    searched = quantized_vit().searched()
    norm = next(step for step in quantized_vit().placement.steps if step.op.kind == "layer_norm")
    gamma, beta = (searched[name] for name in norm.inputs[1:])
    assert (gamma.dtype, beta.dtype) == ("int16", "int32")
    assert gamma.codes is not None
    assert np.abs(gamma.codes).max() == 32767
    graph = tiny_vit_graph()
    op = next(op for op in graph.ops if isinstance(op, ir.LayerNorm))
    for tensor, name in zip((gamma, beta), op.inputs[1:], strict=True):
        np.testing.assert_array_equal(graph[name].data, tensor.codes)
        assert graph[name].q.scale.tobytes() == tensor.scale.tobytes()
