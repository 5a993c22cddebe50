"""Builds QDQ ONNX models node by node, and compares what is read with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgesmith.targets.graph.ir import Array, Graph, Tensor
from edgesmith.targets.graph.reference import PROFILES, run_op

Floats = npt.NDArray[np.float32]
EXACT_KINDS = {
    "MaxPool2D",
    "Relu",
    "Clip",
    "Reshape",
    "Transpose",
    "Pad",
    "StridedSlice",
    "ResizeNearest",
}
"""Operators that only move, select or clamp codes: not one may differ."""


@dataclass
class Qdq:
    """An ONNX model while it grows. Activations are uint8 unless `kind` says otherwise."""

    opset: int = 18
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def store(self, array: npt.ArrayLike, name: str = "") -> str:
        name = name or self.name("const")
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self.name(kind.lower())
        made = helper.make_node(kind, list(inputs), [output], name=f"node:{output}", **attributes)
        self.nodes.append(made)
        return output

    def pair(
        self, value: str, scale: float, zero: int = 128, kind: str = "uint8", name: str = ""
    ) -> str:
        """QuantizeLinear, then DequantizeLinear; the latter's output is called `name`."""
        name = name or self.name("act")
        parameters = [self.store(np.float32(scale)), self.store(np.array(zero, kind))]
        codes = self.node("QuantizeLinear", value, *parameters, output=f"{name}_q")
        return self.node("DequantizeLinear", codes, *parameters, output=name)

    def input(
        self,
        *shape: int,
        name: str = "x",
        scale: float = 0.05,
        zero: int = 128,
        kind: str = "uint8",
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(f"{name}_f", TensorProto.FLOAT, shape))
        return self.pair(f"{name}_f", scale, zero, kind, name)

    def codes(
        self,
        *shape: int,
        axis: int | None = None,
        low: int = -127,
        high: int = 127,
        scale: float = 0.01,
        kind: str = "int8",
        name: str = "",
    ) -> str:
        """A quantized constant of random codes, dequantized."""
        name = name or self.name("weight")
        codes = self.random.integers(low, high + 1, shape).astype(kind)
        if axis is None:
            parameters = [self.store(np.float32(scale)), self.store(np.array(0, kind))]
            return self.node("DequantizeLinear", self.store(codes, name), *parameters)
        scales = (scale * (1 + self.random.random(shape[axis]))).astype(np.float32)
        parameters = [self.store(scales), self.store(np.zeros(shape[axis], kind))]
        return self.node("DequantizeLinear", self.store(codes, name), *parameters, axis=axis)

    def ints(self, *values: int) -> str:
        return self.store(np.array(values, np.int64))

    def proto(self, *outputs: str, infer: bool = True) -> onnx.ModelProto:
        infos = [helper.make_empty_tensor_value_info(name) for name in (*self.outputs, *outputs)]
        graph = helper.make_graph(self.nodes, "test", self.inputs, infos, self.initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10
        )
        return onnx.shape_inference.infer_shapes(model) if infer else model

    def bytes(self, *outputs: str) -> bytes:
        return bytes(self.proto(*outputs).SerializeToString())


def samples(
    model: onnx.ModelProto, count: int = 3, seed: int = 0, spread: float = 3.0
) -> dict[str, Floats]:
    """Random float inputs, [count, *shape] per graph input."""
    random = np.random.default_rng(seed)
    found = {}
    for item in model.graph.input:
        shape = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        found[item.name] = random.normal(0, spread, (count, *shape)).astype(np.float32)
    return found


def run_onnx(data: bytes, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """Every float tensor of a model in ONNX Runtime without graph optimizations."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    known = {item.name for item in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                model.graph.output.append(helper.make_empty_tensor_value_info(name))
                known.add(name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    runs = [
        session.run(names, {name: array[index] for name, array in inputs.items()})
        for index in range(count)
    ]
    found = {name: np.stack([run[i] for run in runs]) for i, name in enumerate(names)}
    return {**inputs, **found}


def codes_of(tensor: Tensor, reals: Array) -> Array:
    """The codes of reals that lie on a tensor's grid."""
    scale, zero = tensor.q.scalar
    codes = np.rint(reals.astype(np.float64) / np.float64(scale)) + zero
    return np.asarray(np.clip(codes, tensor.dtype.qmin, tensor.dtype.qmax), tensor.dtype.numpy)


def teacher_forced(
    graph: Graph, reals: Mapping[str, Array], profile: str = "litert-reference"
) -> dict[str, tuple[str, int]]:
    """Per tensor that ONNX Runtime has too: the operator's kind and its largest difference.

    Every operator reads ONNX Runtime's values where it has them, ours in between; an
    operator that reads ours after one that computes counts as that one.
    """
    computed: dict[str, str] = {}
    values: dict[str, Array] = {}
    for name in graph.inputs:
        values[name] = codes_of(graph[name], graph.from_source(name, reals[name]))
    found = {}
    for op in graph.ops:
        result = run_op(graph, op, values, PROFILES[profile])
        before = [computed[name] for name in op.inputs if name in computed]
        kind = before[0] if op.kind in EXACT_KINDS and before else op.kind
        if op.output in reals and _is_codes(graph, op.output, reals[op.output]):
            expected = codes_of(
                graph[op.output], graph.from_source(op.output, np.asarray(reals[op.output]))
            )
            difference = np.abs(result.astype(np.int64) - expected.astype(np.int64))
            found[op.output] = (kind, int(difference.max()))
            result = expected
        elif kind not in EXACT_KINDS:
            computed[op.output] = kind
        values[op.output] = result
    return found


def _is_codes(graph: Graph, name: str, reals: Array) -> bool:
    """Whether ONNX Runtime's tensor holds the same values, on the same grid."""
    tensor = graph[name]
    scale, _ = tensor.q.scalar
    steps = reals.astype(np.float64) / np.float64(scale)
    return reals[0].size == tensor.elements and bool(np.all(np.abs(steps - np.rint(steps)) < 1e-2))


def compare(data: bytes, graph: Graph, *, budget: int = 1, seed: int = 0) -> dict[str, int]:
    """Assert that every operator agrees with ONNX Runtime; the differences per tensor."""
    inputs = samples(onnx.load_from_string(data), seed=seed)
    found = teacher_forced(graph, run_onnx(data, inputs))
    compared = set(found)
    assert set(graph.outputs) <= compared | set(graph.inputs), "an output was not compared"
    wrong = {
        name: (kind, difference)
        for name, (kind, difference) in found.items()
        if difference > (0 if kind in EXACT_KINDS else budget)
    }
    assert not wrong, wrong
    return {name: difference for name, (_, difference) in found.items()}


def kinds(graph: Graph) -> Sequence[str]:
    return [op.kind for op in graph.ops]
