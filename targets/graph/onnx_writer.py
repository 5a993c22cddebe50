"""IntegerGraph -> QDQ ONNX, keeping every scale, zero point and code.

Every operator becomes DequantizeLinear -> float operator -> QuantizeLinear, the
form that ONNX Runtime fuses into its integer kernels. Graph inputs and outputs
are codes. Rank-4 tensors are stored channels-first as ONNX has it; all others
as the IR has them. The DequantizeLinear output of an activation carries the IR
tensor's name and the QuantizeLinear output that name plus `_q`, so
`onnx_reader.read_onnx` gives the same tensors back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Array, DType, Graph, Op, Padding, Tensor

TO_STORAGE = (0, 3, 1, 2)  # NHWC -> NCHW
TO_LOGICAL = (0, 2, 3, 1)  # NCHW -> NHWC
_STORAGE_AXIS = (0, 2, 3, 1)  # where an NHWC axis lies in NCHW

_TYPES = {
    DType.INT4: TensorProto.INT4,
    DType.INT8: TensorProto.INT8,
    DType.INT16: TensorProto.INT16,
    DType.INT32: TensorProto.INT32,
    DType.UINT8: TensorProto.UINT8,
}
_CLAMPS = {Activation.RELU6: (0.0, 6.0), Activation.RELU_N1_TO_1: (-1.0, 1.0)}

Emitter = Callable[["_Builder", Any], str]
EMITTERS: dict[type[Op], Emitter] = {}
F = TypeVar("F", bound=Callable[..., str])


def _emits(*kinds: type[Op]) -> Callable[[F], F]:
    def register(function: F) -> F:
        for kind in kinds:
            EMITTERS[kind] = function
        return function

    return register


def storage_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that a tensor of this IR shape has in the ONNX file."""
    return tuple(shape[axis] for axis in TO_STORAGE) if len(shape) == 4 else tuple(shape)


def _axis(axis: int, rank: int) -> int:
    return _STORAGE_AXIS[axis % rank] if rank == 4 else axis % rank


def _spread(values: Sequence[int], rank: int) -> list[int]:
    """Per-axis values of the IR in the file's axis order."""
    return [values[axis] for axis in TO_STORAGE] if rank == 4 else list(values)


class _Builder:
    """Nodes and initializers of the file while it grows."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.dequantized: set[str] = set()

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(
        self, name: str, values: Array | Sequence[int] | np.float32, dtype: DType | None = None
    ) -> str:
        array = np.asarray(values) if dtype is not None else np.asarray(values, np.int64)
        if name not in self.initializers:
            if dtype is DType.INT4:
                stored = helper.make_tensor(name, TensorProto.INT4, array.shape, array.reshape(-1))
            else:
                # A zero-dimensional array must stay one: ascontiguousarray would make it a vector.
                stored = numpy_helper.from_array(array.copy(order="C"), name)
            self.initializers[name] = stored
        return name

    def quantization(self, tensor: Tensor, dtype: DType) -> list[str]:
        """Initializers of scale and zero point, scalars where per tensor."""
        q = tensor.q
        shape: tuple[int, ...] = q.scale.shape if q.is_per_channel else ()
        zero = q.zero_point.astype(dtype.numpy).reshape(shape)
        return [
            self.constant(f"{tensor.name}/scale", q.scale.reshape(shape), DType.FLOAT32),
            self.constant(f"{tensor.name}/zero_point", zero, dtype),
        ]

    def dequantize(
        self, name: str, data: Array | None = None, axis: int = 0, stored: DType | None = None
    ) -> str:
        """The real values of a tensor; `data` gives a constant's codes in storage order.

        `stored` is a wider type to keep these codes in.
        """
        tensor = self.graph[name]
        if name in self.dequantized:
            return name
        self.dequantized.add(name)
        dtype = tensor.dtype if stored is None else stored
        if data is not None:
            if dtype is DType.INT64:
                dtype, data = DType.INT32, _narrow(tensor, data)
            codes = self.constant(f"{name}_q", data.astype(dtype.numpy), dtype)
            if dtype is DType.INT2:
                dtype, codes = DType.INT8, self.narrowed(name, codes)
        else:
            codes = f"{name}_q"
        inputs = [codes, *self.quantization(tensor, dtype)]
        attributes = {"axis": axis} if tensor.q.is_per_channel else {}
        return self.node("DequantizeLinear", inputs, name, **attributes)

    def narrowed(self, name: str, codes: str) -> str:
        """2-bit codes, which operator sets up to 24 lack, as clipped 8-bit ones."""
        bounds = [
            self.constant(f"{name}/{side}", np.array(code, np.int8), DType.INT8)
            for side, code in (("qmin", DType.INT2.qmin), ("qmax", DType.INT2.qmax))
        ]
        return self.node("Clip", [codes, *bounds], f"{name}/narrowed")

    def value(self, name: str) -> str:
        """The real value of any operand, in storage order."""
        tensor = self.graph[name]
        if tensor.data is None:
            return self.dequantize(name)
        data = tensor.data.transpose(TO_STORAGE) if tensor.data.ndim == 4 else tensor.data
        return self.dequantize(name, data)

    def logical(self, op: Op, name: str) -> str:
        """The real value of an operand in the IR's axis order."""
        if len(self.graph[name].shape) != 4:
            return self.value(name)
        value = self.value(name)
        return self.node("Transpose", [value], f"{op.name}/{name}/nhwc", perm=TO_LOGICAL)

    def stored(self, op: Op, value: str) -> str:
        """A result in the IR's axis order, put into storage order."""
        if len(self.graph[op.output].shape) != 4:
            return value
        return self.node("Transpose", [value], f"{op.name}/nchw", perm=TO_STORAGE)

    def clamp(self, op: Op, value: str, activation: Activation) -> str:
        if activation is Activation.NONE:
            return value
        if activation is Activation.RELU:
            return self.node("Relu", [value], f"{op.name}/relu")
        return self.clip(op, value, *_CLAMPS[activation])

    def clip(self, op: Op, value: str, low: float, high: float) -> str:
        limit = float(np.finfo(np.float32).max)
        bounds = [
            self.constant(
                f"{op.name}/{side}", np.float32(np.clip(bound, -limit, limit)), DType.FLOAT32
            )
            for side, bound in (("low", low), ("high", high))
        ]
        return self.node("Clip", [value, *bounds], f"{op.name}/clip")

    def quantize(self, name: str, value: str) -> None:
        tensor = self.graph[name]
        inputs = [value, *self.quantization(tensor, tensor.dtype)]
        self.node("QuantizeLinear", inputs, f"{name}_q")


def _narrow(tensor: Tensor, data: Array) -> Array:
    if np.any(data != data.astype(np.int32)):
        raise UnsupportedError(
            f"bias {tensor.name!r} has codes beyond 32 bits, which ONNX cannot store",
            fix="use int8 activations for that layer, or a TFLite target",
        )
    return data.astype(np.int32)


def _pads(padding: Padding) -> list[int]:
    return [padding.top, padding.left, padding.bottom, padding.right]


@_emits(ir.Conv2D, ir.DepthwiseConv2D)
def _conv(builder: _Builder, op: ir.Conv2D | ir.DepthwiseConv2D) -> str:
    weight = builder.graph[op.inputs[1]]
    if weight.data is None:
        raise UnsupportedError(f"{op.kind} {op.name!r} computes its weight", fix="make it constant")
    if isinstance(op, ir.DepthwiseConv2D):
        groups, order = builder.graph[op.inputs[0]].shape[3], (3, 0, 1, 2)
    else:
        groups, order = op.groups, (0, 3, 1, 2)
    data = weight.data.transpose(order)
    inputs = [builder.value(op.inputs[0]), builder.dequantize(weight.name, data)]
    inputs += _bias(builder, op)
    value = builder.node(
        "Conv",
        inputs,
        f"{op.name}/conv",
        kernel_shape=data.shape[2:],
        strides=op.stride,
        dilations=op.dilation,
        pads=_pads(op.padding),
        group=groups,
    )
    return builder.clamp(op, value, op.activation)


def _bias(builder: _Builder, op: Op) -> list[str]:
    return [builder.value(op.inputs[2])] if len(op.inputs) > 2 and op.inputs[2] else []


@_emits(ir.FullyConnected)
def _fully_connected(builder: _Builder, op: ir.FullyConnected) -> str:
    source, weight = builder.graph[op.inputs[0]], builder.graph[op.inputs[1]]
    rows = weight.shape[1]
    value = builder.logical(op, source.name)
    if len(source.shape) != 2 and not op.keep_dims:
        shape = builder.constant(f"{op.name}/rows", [-1, rows])
        value = builder.node("Reshape", [value, shape], f"{op.name}/flat")
    if not op.keep_dims:
        inputs = [value, builder.value(weight.name), *_bias(builder, op)]
        value = builder.node("Gemm", inputs, f"{op.name}/gemm", transB=1)
    else:
        turned = builder.node("Transpose", [builder.value(weight.name)], f"{op.name}/weight_t")
        value = builder.node("MatMul", [value, turned], f"{op.name}/matmul")
        for bias in _bias(builder, op):
            value = builder.node("Add", [value, bias], f"{op.name}/biased")
    return builder.stored(op, builder.clamp(op, value, op.activation))


@_emits(ir.BatchMatMul)
def _batch_matmul(builder: _Builder, op: ir.BatchMatMul) -> str:
    operands = []
    for name, adjoint in zip(op.inputs, (op.adjoint_x, op.adjoint_y), strict=True):
        value = builder.logical(op, name)
        if adjoint:
            rank = len(builder.graph[name].shape)
            perm = [*range(rank - 2), rank - 1, rank - 2]
            value = builder.node("Transpose", [value], f"{op.name}/{name}/adjoint", perm=perm)
        operands.append(value)
    return builder.stored(op, builder.node("MatMul", operands, f"{op.name}/matmul"))


@_emits(ir.Add, ir.Sub, ir.Mul)
def _binary(builder: _Builder, op: ir.Add | ir.Sub | ir.Mul) -> str:
    rank = len(builder.graph[op.output].shape)
    operands = [_aligned(builder, op, name, rank) for name in op.inputs]
    value = builder.node(op.kind, operands, f"{op.name}/{op.kind.lower()}")
    return builder.clamp(op, value, op.activation)


def _aligned(builder: _Builder, op: Op, name: str, rank: int) -> str:
    """An operand as NumPy-broadcastable against a result of `rank` in storage order."""
    shape = builder.graph[name].shape
    value = builder.value(name)
    if rank != 4 or len(shape) in (0, 4):
        return value
    full = [*[1] * (4 - len(shape)), *shape]
    target = builder.constant(f"{op.name}/{name}/shape", full)
    value = builder.node("Reshape", [value, target], f"{op.name}/{name}/rank4")
    return builder.node("Transpose", [value], f"{op.name}/{name}/nchw", perm=TO_STORAGE)


@_emits(ir.AveragePool2D, ir.MaxPool2D)
def _pool(builder: _Builder, op: ir.AveragePool2D | ir.MaxPool2D) -> str:
    kind = "MaxPool" if isinstance(op, ir.MaxPool2D) else "AveragePool"
    value = builder.node(
        kind,
        [builder.value(op.inputs[0])],
        f"{op.name}/pool",
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=_pads(op.padding),
    )
    return builder.clamp(op, value, op.activation)


@_emits(ir.Mean)
def _mean(builder: _Builder, op: ir.Mean) -> str:
    rank = len(builder.graph[op.inputs[0]].shape)
    spatial = rank == 4 and (op.keep_dims or set(op.axes) == {1, 2})
    value = builder.value(op.inputs[0]) if spatial else builder.logical(op, op.inputs[0])
    axes = [_axis(axis, rank) for axis in op.axes] if spatial else list(op.axes)
    keep = int(op.keep_dims)
    # Up to opset 17 the axes are an attribute, later an input.
    if _opset(builder.graph) < 18:
        value = builder.node("ReduceMean", [value], f"{op.name}/mean", axes=axes, keepdims=keep)
    else:
        where = builder.constant(f"{op.name}/axes", axes)
        value = builder.node("ReduceMean", [value, where], f"{op.name}/mean", keepdims=keep)
    return value if spatial else builder.stored(op, value)


@_emits(ir.Relu)
def _relu(builder: _Builder, op: ir.Relu) -> str:
    return builder.clamp(op, builder.value(op.inputs[0]), op.activation)


@_emits(ir.Clip)
def _clip(builder: _Builder, op: ir.Clip) -> str:
    return builder.clip(op, builder.value(op.inputs[0]), op.low, op.high)


_UNARY = {ir.HardSwish: "HardSwish", ir.Logistic: "Sigmoid", ir.Tanh: "Tanh"}


@_emits(*_UNARY)
def _unary(builder: _Builder, op: Op) -> str:
    kind = _UNARY[type(op)]
    return builder.node(kind, [builder.value(op.inputs[0])], f"{op.name}/{kind.lower()}")


@_emits(ir.Gelu)
def _gelu(builder: _Builder, op: ir.Gelu) -> str:
    form = "tanh" if op.approximate else "none"
    return builder.node("Gelu", [builder.value(op.inputs[0])], f"{op.name}/gelu", approximate=form)


@_emits(ir.LayerNorm)
def _layer_norm(builder: _Builder, op: ir.LayerNorm) -> str:
    inputs = [builder.logical(op, op.inputs[0])]
    # As int32 codes, 16-bit gains need no operator set 21, with which ONNX Runtime 1.31 fails
    # on a Transpose between DequantizeLinear and a float operator.
    for name in filter(None, op.inputs[1:]):
        tensor = builder.graph[name]
        stored = DType.INT32 if tensor.dtype is DType.INT16 else None
        inputs.append(builder.dequantize(name, tensor.data, stored=stored))
    made = builder.node(
        "LayerNormalization", inputs, f"{op.name}/normalized", axis=-1, epsilon=op.epsilon
    )
    return builder.stored(op, made)


@_emits(ir.Softmax)
def _softmax(builder: _Builder, op: ir.Softmax) -> str:
    value = builder.value(op.inputs[0])
    if op.beta != 1.0:
        beta = builder.constant(f"{op.name}/beta", np.float32(op.beta), DType.FLOAT32)
        value = builder.node("Mul", [value, beta], f"{op.name}/scaled")
    axis = _axis(-1, len(builder.graph[op.inputs[0]].shape))
    return builder.node("Softmax", [value], f"{op.name}/softmax", axis=axis)


@_emits(ir.Concat)
def _concat(builder: _Builder, op: ir.Concat) -> str:
    axis = _axis(op.axis, len(builder.graph[op.output].shape))
    values = [builder.value(name) for name in op.inputs]
    return builder.node("Concat", values, f"{op.name}/concat", axis=axis)


@_emits(ir.Reshape)
def _reshape(builder: _Builder, op: ir.Reshape) -> str:
    shape = builder.constant(f"{op.name}/shape", builder.graph[op.output].shape)
    value = builder.logical(op, op.inputs[0])
    return builder.stored(op, builder.node("Reshape", [value, shape], f"{op.name}/reshape"))


@_emits(ir.Transpose)
def _transpose(builder: _Builder, op: ir.Transpose) -> str:
    value = builder.logical(op, op.inputs[0])
    value = builder.node("Transpose", [value], f"{op.name}/transpose", perm=op.permutation)
    return builder.stored(op, value)


@_emits(ir.Pad)
def _pad(builder: _Builder, op: ir.Pad) -> str:
    source = builder.graph[op.inputs[0]]
    rank = len(source.shape)
    pads = builder.constant(
        f"{op.name}/pads", [*_spread(op.before, rank), *_spread(op.after, rank)]
    )
    scale, zero = source.q.scalar
    real = np.float32(0.0 if op.value is None else (op.value - zero) * scale)
    value = builder.constant(f"{op.name}/value", real, DType.FLOAT32)
    return builder.node("Pad", [builder.value(source.name), pads, value], f"{op.name}/pad")


@_emits(ir.StridedSlice)
def _strided_slice(builder: _Builder, op: ir.StridedSlice) -> str:
    rank = len(op.begin)
    operands = [
        builder.constant(f"{op.name}/{what}", _spread(values, rank))
        for what, values in (("begin", op.begin), ("end", op.end))
    ]
    operands.append(builder.constant(f"{op.name}/axes", list(range(rank))))
    operands.append(builder.constant(f"{op.name}/steps", _spread(op.stride, rank)))
    return builder.node("Slice", [builder.value(op.inputs[0]), *operands], f"{op.name}/slice")


@_emits(ir.ResizeNearest, ir.ResizeBilinear)
def _resize(builder: _Builder, op: ir.ResizeNearest | ir.ResizeBilinear) -> str:
    shape = builder.graph[op.output].shape
    sizes = builder.constant(f"{op.name}/sizes", storage_shape(shape))
    coordinates = (
        "align_corners"
        if op.align_corners
        else "half_pixel"
        if op.half_pixel_centers
        else "asymmetric"
    )
    attributes: dict[str, str] = {"coordinate_transformation_mode": coordinates}
    if isinstance(op, ir.ResizeNearest):
        # floor((x + 0.5) * s) of TFLite is round-half-up of ONNX's (x + 0.5) * s - 0.5.
        plain = coordinates == "asymmetric"
        attributes |= {"mode": "nearest", "nearest_mode": "floor" if plain else "round_prefer_ceil"}
    else:
        attributes |= {"mode": "linear"}
    inputs = [builder.value(op.inputs[0]), "", "", sizes]
    return builder.node("Resize", inputs, f"{op.name}/resize", **attributes)


@_emits(ir.Quantize)
def _requantize(builder: _Builder, op: ir.Quantize) -> str:
    return builder.value(op.inputs[0])


def _opset(graph: Graph) -> int:
    """17, or 20 for Gelu, or 21 where 4-bit or 16-bit codes need its QuantizeLinear."""
    gains = {op.inputs[1] for op in graph.ops if isinstance(op, ir.LayerNorm)}
    used = {tensor.dtype for name, tensor in graph.tensors.items() if name not in gains}
    if used & {DType.INT4, DType.INT16}:
        return 21
    return 20 if any(isinstance(op, ir.Gelu) for op in graph.ops) else 17


def write_onnx(graph: Graph) -> bytes:
    """Serialize as QDQ ONNX.

    Raises:
        UnsupportedError: an operator, bias, input or output that ONNX cannot express.
    """
    builder = _Builder(graph)
    for op in graph.ops:
        emitter = EMITTERS.get(type(op))
        if emitter is None:
            raise UnsupportedError(
                f"{op.kind} {op.name!r} has no ONNX operator", fix="choose a target that takes it"
            )
        builder.quantize(op.output, emitter(builder, op))
    opset = _opset(graph)
    proto = helper.make_graph(
        builder.nodes,
        graph.name,
        [_value_info(graph[name]) for name in graph.inputs],
        [_value_info(graph[name]) for name in graph.outputs],
        list(builder.initializers.values()),
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", opset)],
        producer_name="edgesmith",
        ir_version={21: 10, 20: 9}.get(opset, 8),
    )
    return bytes(model.SerializeToString(deterministic=True))


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    kind = _TYPES.get(tensor.dtype)
    if kind is None:
        raise UnsupportedError(
            f"graph input or output {tensor.name!r} is {tensor.dtype}, which ONNX has no codes of",
            fix="take and give int8 or int16 codes",
        )
    return helper.make_tensor_value_info(f"{tensor.name}_q", kind, storage_shape(tensor.shape))
