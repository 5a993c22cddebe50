"""How each IntegerGraph operator is spelled in a TFLite file, both ways.

One codec per operator: `decode` reads a TFLite operator's options and constant
operands into the operator's dataclass; `encode` gives the builtin code, version,
options and operands. Reader and writer look codecs up here and know no operator
themselves. Operator versions follow TFLite's `tools/versioning/op_version.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import ai_edge_litert.schema_py_generated as schema
import numpy as np

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import (
    Activation,
    DType,
    Graph,
    Op,
    Padding,
    Pair,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.padding import PaddingScheme, same_padding, scheme_of

Builtin = schema.BuiltinOperator
BUILTIN_NAMES: dict[int, str] = {
    value: name for name, value in vars(Builtin).items() if isinstance(value, int)
}

_ACTIVATIONS: dict[int, Activation] = {
    schema.ActivationFunctionType.NONE: Activation.NONE,
    schema.ActivationFunctionType.RELU: Activation.RELU,
    schema.ActivationFunctionType.RELU6: Activation.RELU6,
    schema.ActivationFunctionType.RELU_N1_TO_1: Activation.RELU_N1_TO_1,
}
_ACTIVATION_CODES = {activation: code for code, activation in _ACTIVATIONS.items()}


class Source(Protocol):
    """What a decoder may ask of the TFLite operator it reads."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Any  # the generated options class, or None when the file has none

    def tensor(self, position: int) -> Tensor:
        """The input tensor at that position."""

    def result(self) -> Tensor:
        """The first output tensor."""

    def integers(self, position: int) -> tuple[int, ...]:
        """The values of a constant integer input."""

    def refuse(self, reason: str, fix: str) -> UnsupportedError:
        """An error that names the operator."""


@dataclass(frozen=True)
class Encoded:
    """One TFLite operator to be written. `inputs` are tensor names; "" is an absent one."""

    code: int
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options_type: int = schema.BuiltinOptions.NONE
    options: Any = None
    extra: tuple[Tensor, ...] = ()  # constants that only the file needs


Decoder = Callable[[Source], Op]
Encoder = Callable[[Any, Graph], Sequence[Encoded]]
DECODERS: dict[int, Decoder] = {}
ENCODERS: dict[type[Op], Encoder] = {}
OPTIONS: dict[int, tuple[int, type[Any]]] = {}

F = TypeVar("F", bound=Callable[..., Any])


def _decodes(*codes: int, options: str = "") -> Callable[[F], F]:
    """Register a decoder and the name of the options table that its builtin codes carry."""

    def register(function: F) -> F:
        for code in codes:
            DECODERS[code] = function
            if options:
                kind = getattr(schema.BuiltinOptions, options)
                OPTIONS[code] = (kind, getattr(schema, options))
        return function

    return register


def _encodes(kind: type[Op]) -> Callable[[F], F]:
    def register(function: F) -> F:
        ENCODERS[kind] = function
        return function

    return register


def _encoded(
    op: Op,
    code: int,
    version: int,
    options: str = "",
    inputs: tuple[str, ...] | None = None,
    extra: tuple[Tensor, ...] = (),
    **fields: object,
) -> list[Encoded]:
    """An `Encoded` whose options object is named and filled by keyword."""
    built = getattr(schema, options + "T")() if options else None
    for field, value in fields.items():
        if not hasattr(built, field):
            raise AttributeError(f"{options} has no field {field}")
        setattr(built, field, value)
    kind = getattr(schema.BuiltinOptions, options) if options else schema.BuiltinOptions.NONE
    return [
        Encoded(
            code, version, op.inputs if inputs is None else inputs, op.outputs, kind, built, extra
        )
    ]


def _version(graph: Graph, tensor: str, *, float32: int = 1, int8: int = 2, int16: int = 3) -> int:
    """The operator version that a tensor's storage type asks for."""
    dtype = graph[tensor].dtype
    return int16 if dtype is DType.INT16 else float32 if dtype is DType.FLOAT32 else int8


def _integers(op: Op, suffix: str, values: Sequence[int]) -> Tensor:
    data = np.asarray(values, np.int32)
    return Tensor(f"{op.name}/{suffix}", data.shape, DType.INT32, None, data)


def _pairs_tensor(op: ir.Pad) -> Tensor:
    data = np.stack([op.before, op.after], axis=1).astype(np.int32)
    return Tensor(f"{op.name}/paddings", data.shape, DType.INT32, None, data)


def _spatial(tensor: Tensor) -> Pair:
    return tensor.shape[1], tensor.shape[2]


def _read_activation(source: Source) -> Activation:
    code = source.options.FusedActivationFunction() if source.options else 0
    if code not in _ACTIVATIONS:
        raise source.refuse(
            f"fused activation {code} has no integer form", "use ReLU, ReLU6 or no activation"
        )
    return _ACTIVATIONS[code]


def _read_window(source: Source, kernel: Pair, dilation: Pair = (1, 1)) -> tuple[Pair, Padding]:
    """Stride and explicit padding of a convolution or pooling."""
    options = source.options
    stride = (options.StrideH(), options.StrideW())
    if min(*stride, *dilation, *kernel) < 1:
        raise source.refuse(f"stride {stride} or dilation {dilation} below 1", "re-export it")
    if options.Padding() == schema.Padding.VALID:
        return stride, Padding()
    return stride, same_padding(_spatial(source.tensor(0)), kernel, stride, dilation)


def _write_padding(
    op: Op, padding: Padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> int:
    scheme = scheme_of(padding, size, kernel, stride, dilation)
    if scheme is None:
        raise UnsupportedError(
            f"{op.kind} {op.name!r} pads {padding}, which is neither SAME nor VALID in TFLite",
            fix="legalize the graph for a TFLite target first; that makes the padding explicit",
        )
    same = scheme is PaddingScheme.SAME
    return int(schema.Padding.SAME if same else schema.Padding.VALID)


def _weight_version(graph: Graph, op: Op, *, int8: int, int16: int, int4: int) -> int:
    if graph[op.inputs[1]].dtype is DType.INT4:
        return int4
    return _version(graph, op.inputs[0], int8=int8, int16=int16)


def _conv_options(op: ir.Conv2D | ir.DepthwiseConv2D, graph: Graph, kernel: Pair) -> dict[str, Any]:
    size = _spatial(graph[op.inputs[0]])
    return {
        "padding": _write_padding(op, op.padding, size, kernel, op.stride, op.dilation),
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "dilationHFactor": op.dilation[0],
        "dilationWFactor": op.dilation[1],
        "fusedActivationFunction": _ACTIVATION_CODES[op.activation],
    }


def _zero_bias(op: ir.Conv2D | ir.DepthwiseConv2D, graph: Graph) -> tuple[Tensor, ...]:
    """A bias of zeros where the graph has none: runtimes refuse a convolution without one."""
    if len(op.inputs) > 2 and op.inputs[2]:
        return ()
    source, weight = graph[op.inputs[0]], graph[op.inputs[1]]
    channels = graph[op.output].shape[3]
    if source.quantization is None or weight.quantization is None:
        zeros = np.zeros(channels, np.float32)
        return (Tensor(f"{op.name}/zero_bias", (channels,), DType.FLOAT32, None, zeros),)
    dtype = DType.INT64 if source.dtype is DType.INT16 else DType.INT32
    scales = source.quantization.scale * weight.quantization.scale
    axis = 0 if weight.quantization.is_per_channel else None
    quantization = Quantization(scales, np.zeros(scales.shape, np.int64), axis)
    zeros = np.zeros(channels, dtype.numpy)
    return (Tensor(f"{op.name}/zero_bias", (channels,), dtype, quantization, zeros),)


@_decodes(Builtin.CONV_2D, options="Conv2DOptions")
def _read_conv(source: Source) -> Op:
    weight = source.tensor(1)
    kernel = _spatial(weight)
    dilation = (source.options.DilationHFactor(), source.options.DilationWFactor())
    stride, padding = _read_window(source, kernel, dilation)
    groups, rest = divmod(source.tensor(0).shape[3], max(1, weight.shape[3]))
    if rest or not groups:
        raise source.refuse("weight channels do not divide the input's", "re-export the model")
    activation = _read_activation(source)
    return ir.Conv2D(
        source.name, source.inputs, source.outputs, stride, dilation, padding, groups, activation
    )


@_encodes(ir.Conv2D)
def _write_conv(op: ir.Conv2D, graph: Graph) -> Sequence[Encoded]:
    int8 = 6 if op.groups > 1 else 3
    version = _weight_version(graph, op, int8=int8, int16=max(4, int8), int4=7)
    fields = _conv_options(op, graph, _spatial(graph[op.inputs[1]]))
    extra = _zero_bias(op, graph)
    inputs = (*op.inputs[:2], *(tensor.name for tensor in extra)) if extra else op.inputs
    return _encoded(op, Builtin.CONV_2D, version, "Conv2DOptions", inputs, extra, **fields)


@_decodes(Builtin.DEPTHWISE_CONV_2D, options="DepthwiseConv2DOptions")
def _read_depthwise(source: Source) -> Op:
    kernel = _spatial(source.tensor(1))
    dilation = (source.options.DilationHFactor(), source.options.DilationWFactor())
    stride, padding = _read_window(source, kernel, dilation)
    multiplier, rest = divmod(source.tensor(1).shape[3], max(1, source.tensor(0).shape[3]))
    if rest or not multiplier:
        raise source.refuse("weight channels are no multiple of the input's", "re-export it")
    activation = _read_activation(source)
    return ir.DepthwiseConv2D(
        source.name,
        source.inputs,
        source.outputs,
        stride,
        dilation,
        padding,
        multiplier,
        activation,
    )


@_encodes(ir.DepthwiseConv2D)
def _write_depthwise(op: ir.DepthwiseConv2D, graph: Graph) -> Sequence[Encoded]:
    version = _weight_version(graph, op, int8=3, int16=5, int4=7)
    fields = _conv_options(op, graph, _spatial(graph[op.inputs[1]]))
    extra = _zero_bias(op, graph)
    inputs = (*op.inputs[:2], *(tensor.name for tensor in extra)) if extra else op.inputs
    return _encoded(
        op,
        Builtin.DEPTHWISE_CONV_2D,
        version,
        "DepthwiseConv2DOptions",
        inputs,
        extra,
        depthMultiplier=op.multiplier,
        **fields,
    )


@_decodes(Builtin.FULLY_CONNECTED, options="FullyConnectedOptions")
def _read_fully_connected(source: Source) -> Op:
    if source.options.WeightsFormat() != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise source.refuse("shuffled weights", "convert without weight shuffling")
    keep = bool(source.options.KeepNumDims())
    return ir.FullyConnected(
        source.name, source.inputs, source.outputs, _read_activation(source), keep
    )


@_encodes(ir.FullyConnected)
def _write_fully_connected(op: ir.FullyConnected, graph: Graph) -> Sequence[Encoded]:
    weight = graph[op.inputs[1]]
    per_channel = weight.quantization is not None and weight.quantization.scale.size > 1
    int8 = 12 if per_channel else 5 if op.keep_dims else 4
    version = _weight_version(graph, op, int8=int8, int16=max(7, int8), int4=max(10, int8))
    return _encoded(
        op,
        Builtin.FULLY_CONNECTED,
        version,
        "FullyConnectedOptions",
        fusedActivationFunction=_ACTIVATION_CODES[op.activation],
        keepNumDims=op.keep_dims,
    )


@_decodes(Builtin.BATCH_MATMUL, options="BatchMatMulOptions")
def _read_batch_matmul(source: Source) -> Op:
    options = source.options
    return ir.BatchMatMul(
        source.name, source.inputs, source.outputs, bool(options.AdjX()), bool(options.AdjY())
    )


@_encodes(ir.BatchMatMul)
def _write_batch_matmul(op: ir.BatchMatMul, graph: Graph) -> Sequence[Encoded]:
    version = _version(graph, op.inputs[0])
    return _encoded(
        op,
        Builtin.BATCH_MATMUL,
        version,
        "BatchMatMulOptions",
        adjX=op.adjoint_x,
        adjY=op.adjoint_y,
    )


@_decodes(Builtin.ADD, options="AddOptions")
def _read_add(source: Source) -> Op:
    return ir.Add(source.name, source.inputs, source.outputs, _read_activation(source))


@_decodes(Builtin.SUB, options="SubOptions")
def _read_sub(source: Source) -> Op:
    return ir.Sub(source.name, source.inputs, source.outputs, _read_activation(source))


@_decodes(Builtin.MUL, options="MulOptions")
def _read_mul(source: Source) -> Op:
    return ir.Mul(source.name, source.inputs, source.outputs, _read_activation(source))


@_encodes(ir.Add)
def _write_add(op: ir.Add, graph: Graph) -> Sequence[Encoded]:
    return _encoded(
        op,
        Builtin.ADD,
        _version(graph, op.output),
        "AddOptions",
        fusedActivationFunction=_ACTIVATION_CODES[op.activation],
        potScaleInt16=False,
    )


@_encodes(ir.Sub)
def _write_sub(op: ir.Sub, graph: Graph) -> Sequence[Encoded]:
    return _encoded(
        op,
        Builtin.SUB,
        _version(graph, op.output, int16=5),
        "SubOptions",
        fusedActivationFunction=_ACTIVATION_CODES[op.activation],
        potScaleInt16=False,
    )


@_encodes(ir.Mul)
def _write_mul(op: ir.Mul, graph: Graph) -> Sequence[Encoded]:
    version = _version(graph, op.output, int16=4)
    activation = _ACTIVATION_CODES[op.activation]
    return _encoded(op, Builtin.MUL, version, "MulOptions", fusedActivationFunction=activation)


def _read_pool(source: Source, kind: type[ir.AveragePool2D] | type[ir.MaxPool2D]) -> Op:
    kernel = (source.options.FilterHeight(), source.options.FilterWidth())
    stride, padding = _read_window(source, kernel)
    activation = _read_activation(source)
    return kind(source.name, source.inputs, source.outputs, kernel, stride, padding, activation)


@_decodes(Builtin.AVERAGE_POOL_2D, options="Pool2DOptions")
def _read_average_pool(source: Source) -> Op:
    return _read_pool(source, ir.AveragePool2D)


@_decodes(Builtin.MAX_POOL_2D, options="Pool2DOptions")
def _read_max_pool(source: Source) -> Op:
    return _read_pool(source, ir.MaxPool2D)


def _write_pool(op: ir.AveragePool2D | ir.MaxPool2D, graph: Graph, code: int) -> Sequence[Encoded]:
    size = _spatial(graph[op.inputs[0]])
    return _encoded(
        op,
        code,
        _version(graph, op.output),
        "Pool2DOptions",
        padding=_write_padding(op, op.padding, size, op.kernel, op.stride),
        strideH=op.stride[0],
        strideW=op.stride[1],
        filterHeight=op.kernel[0],
        filterWidth=op.kernel[1],
        fusedActivationFunction=_ACTIVATION_CODES[op.activation],
    )


@_encodes(ir.AveragePool2D)
def _write_average_pool(op: ir.AveragePool2D, graph: Graph) -> Sequence[Encoded]:
    return _write_pool(op, graph, Builtin.AVERAGE_POOL_2D)


@_encodes(ir.MaxPool2D)
def _write_max_pool(op: ir.MaxPool2D, graph: Graph) -> Sequence[Encoded]:
    return _write_pool(op, graph, Builtin.MAX_POOL_2D)


@_decodes(Builtin.MEAN, options="ReducerOptions")
def _read_mean(source: Source) -> Op:
    rank = len(source.tensor(0).shape)
    axes = tuple(sorted({axis % rank for axis in source.integers(1)}))
    keep = bool(source.options.KeepDims())
    return ir.Mean(source.name, source.inputs[:1], source.outputs, axes, keep)


@_encodes(ir.Mean)
def _write_mean(op: ir.Mean, graph: Graph) -> Sequence[Encoded]:
    axes = _integers(op, "axes", op.axes)
    return _encoded(
        op,
        Builtin.MEAN,
        _version(graph, op.output),
        "ReducerOptions",
        inputs=(op.inputs[0], axes.name),
        extra=(axes,),
        keepDims=op.keep_dims,
    )


_RELUS = {
    Builtin.RELU: Activation.RELU,
    Builtin.RELU6: Activation.RELU6,
    Builtin.RELU_N1_TO_1: Activation.RELU_N1_TO_1,
}
for _code, _activation in _RELUS.items():

    @_decodes(_code)
    def _read_relu(source: Source, activation: Activation = _activation) -> Op:
        return ir.Relu(source.name, source.inputs, source.outputs, activation)


@_encodes(ir.Relu)
def _write_relu(op: ir.Relu, graph: Graph) -> Sequence[Encoded]:
    code = {activation: code for code, activation in _RELUS.items()}[op.activation]
    return _encoded(op, code, 1 if code == Builtin.RELU_N1_TO_1 else _version(graph, op.output))


@_decodes(Builtin.MAXIMUM, options="MaximumMinimumOptions")
def _read_maximum(source: Source) -> Op:
    return ir.Clip(source.name, source.inputs[:1], source.outputs, _bound(source), np.inf)


@_decodes(Builtin.MINIMUM, options="MaximumMinimumOptions")
def _read_minimum(source: Source) -> Op:
    return ir.Clip(source.name, source.inputs[:1], source.outputs, -np.inf, _bound(source))


def _bound(source: Source) -> float:
    """The real value of the constant that clamps."""
    bound = source.tensor(1)
    if bound.data is None or bound.data.size != 1:
        raise source.refuse("is no clamp: its second operand is no constant scalar", "use clip")
    code = float(bound.data.reshape(-1)[0])
    if bound.quantization is None:
        return code
    scale, zero = bound.quantization.scalar
    return (code - zero) * float(scale)


@_encodes(ir.Clip)
def _write_clip(op: ir.Clip, graph: Graph) -> Sequence[Encoded]:
    """MAXIMUM with the lower bound, then MINIMUM with the upper, in the tensor's own codes."""
    result = graph[op.output]
    both = ((Builtin.MAXIMUM, "low", op.low), (Builtin.MINIMUM, "high", op.high))
    steps = [step for step in both if np.isfinite(step[2])]
    encoded: list[Encoded] = []
    source = op.inputs[0]
    for code, side, real in steps:
        bound = replace(_clamp_bound(result, real), name=f"{op.name}/{side}")
        last = len(encoded) + 1 == len(steps)
        middle = replace(result, name=f"{op.name}/clamped")
        encoded.append(
            Encoded(
                code,
                1 if result.dtype is DType.FLOAT32 else 2,
                (source, bound.name),
                op.outputs if last else (middle.name,),
                schema.BuiltinOptions.MaximumMinimumOptions,
                schema.MaximumMinimumOptionsT(),
                (bound,) if last else (bound, middle),
            )
        )
        source = middle.name
    return encoded


def _clamp_bound(result: Tensor, real: float) -> Tensor:
    """The constant of a clamp: the nearest code of the clamped tensor."""
    value = real
    if result.quantization is not None:
        scale, zero = result.quantization.scalar
        code = np.rint(np.float64(real) / np.float64(scale)) + zero
        value = float(np.clip(code, result.dtype.qmin, result.dtype.qmax))
    data = np.array([value], result.dtype.numpy)
    return replace(result, shape=(1,), data=data)


@_decodes(Builtin.HARD_SWISH)
def _read_hard_swish(source: Source) -> Op:
    return ir.HardSwish(source.name, source.inputs, source.outputs)


@_encodes(ir.HardSwish)
def _write_hard_swish(op: ir.HardSwish, graph: Graph) -> Sequence[Encoded]:
    return _encoded(op, Builtin.HARD_SWISH, 1, "HardSwishOptions")


@_decodes(Builtin.LOGISTIC)
def _read_logistic(source: Source) -> Op:
    return ir.Logistic(source.name, source.inputs, source.outputs)


@_encodes(ir.Logistic)
def _write_logistic(op: ir.Logistic, graph: Graph) -> Sequence[Encoded]:
    return _encoded(op, Builtin.LOGISTIC, _version(graph, op.output))


@_decodes(Builtin.TANH)
def _read_tanh(source: Source) -> Op:
    return ir.Tanh(source.name, source.inputs, source.outputs)


@_encodes(ir.Tanh)
def _write_tanh(op: ir.Tanh, graph: Graph) -> Sequence[Encoded]:
    return _encoded(op, Builtin.TANH, _version(graph, op.output))


@_decodes(Builtin.GELU, options="GeluOptions")
def _read_gelu(source: Source) -> Op:
    approximate = bool(source.options.Approximate())
    return ir.Gelu(source.name, source.inputs, source.outputs, approximate)


@_encodes(ir.Gelu)
def _write_gelu(op: ir.Gelu, graph: Graph) -> Sequence[Encoded]:
    version = _version(graph, op.output)
    return _encoded(op, Builtin.GELU, version, "GeluOptions", approximate=op.approximate)


@_decodes(Builtin.SOFTMAX, options="SoftmaxOptions")
def _read_softmax(source: Source) -> Op:
    return ir.Softmax(source.name, source.inputs, source.outputs, float(source.options.Beta()))


@_encodes(ir.Softmax)
def _write_softmax(op: ir.Softmax, graph: Graph) -> Sequence[Encoded]:
    version = _version(graph, op.output)
    return _encoded(op, Builtin.SOFTMAX, version, "SoftmaxOptions", beta=op.beta)


@_decodes(Builtin.CONCATENATION, options="ConcatenationOptions")
def _read_concat(source: Source) -> Op:
    axis = source.options.Axis() % max(1, len(source.result().shape))
    if _read_activation(source) is not Activation.NONE:
        raise source.refuse("concatenation with a fused activation", "apply it before")
    return ir.Concat(source.name, source.inputs, source.outputs, axis)


@_encodes(ir.Concat)
def _write_concat(op: ir.Concat, graph: Graph) -> Sequence[Encoded]:
    axis = op.axis % len(graph[op.output].shape)
    version = _version(graph, op.output)
    return _encoded(op, Builtin.CONCATENATION, version, "ConcatenationOptions", axis=axis)


@_decodes(Builtin.RESHAPE, options="ReshapeOptions")
@_decodes(Builtin.SQUEEZE, options="SqueezeOptions")
@_decodes(Builtin.EXPAND_DIMS, options="ExpandDimsOptions")
def _read_reshape(source: Source) -> Op:
    shape = source.result().shape
    return ir.Reshape(source.name, source.inputs[:1], source.outputs, shape)


@_encodes(ir.Reshape)
def _write_reshape(op: ir.Reshape, graph: Graph) -> Sequence[Encoded]:
    shape = _integers(op, "shape", op.shape)
    return _encoded(
        op,
        Builtin.RESHAPE,
        1,
        "ReshapeOptions",
        inputs=(op.inputs[0], shape.name),
        extra=(shape,),
        newShape=list(op.shape),
    )


@_decodes(Builtin.TRANSPOSE, options="TransposeOptions")
def _read_transpose(source: Source) -> Op:
    permutation = source.integers(1)
    return ir.Transpose(source.name, source.inputs[:1], source.outputs, permutation)


@_encodes(ir.Transpose)
def _write_transpose(op: ir.Transpose, graph: Graph) -> Sequence[Encoded]:
    permutation = _integers(op, "permutation", op.permutation)
    return _encoded(
        op,
        Builtin.TRANSPOSE,
        _version(graph, op.output, int16=4),
        "TransposeOptions",
        inputs=(op.inputs[0], permutation.name),
        extra=(permutation,),
    )


@_decodes(Builtin.PAD, options="PadOptions")
@_decodes(Builtin.PADV2, options="PadV2Options")
def _read_pad(source: Source) -> Op:
    flat = source.integers(1)
    value = source.integers(2)[0] if len(source.inputs) > 2 else None
    return ir.Pad(source.name, source.inputs[:1], source.outputs, flat[0::2], flat[1::2], value)


@_encodes(ir.Pad)
def _write_pad(op: ir.Pad, graph: Graph) -> Sequence[Encoded]:
    paddings = _pairs_tensor(op)
    result = graph[op.output]
    version = _version(graph, op.output)
    if op.value is None:
        inputs = (op.inputs[0], paddings.name)
        return _encoded(op, Builtin.PAD, version, "PadOptions", inputs, (paddings,))
    data = np.array([op.value], result.dtype.numpy)
    value = Tensor(f"{op.name}/value", (1,), result.dtype, result.quantization, data)
    operands = (op.inputs[0], paddings.name, value.name)
    return _encoded(op, Builtin.PADV2, version, "PadV2Options", operands, (paddings, value))


@_decodes(Builtin.SLICE, options="SliceOptions")
def _read_slice(source: Source) -> Op:
    begin, size = source.integers(1), source.integers(2)
    shape = source.tensor(0).shape
    end = tuple(
        extent if count < 0 else start + count
        for start, count, extent in zip(begin, size, shape, strict=True)
    )
    ones = (1,) * len(shape)
    return ir.StridedSlice(source.name, source.inputs[:1], source.outputs, begin, end, ones)


@_decodes(Builtin.STRIDED_SLICE, options="StridedSliceOptions")
def _read_strided_slice(source: Source) -> Op:
    options = source.options
    if options.EllipsisMask() or options.NewAxisMask() or options.ShrinkAxisMask():
        raise source.refuse("ellipsis, new-axis or shrink-axis masks", "slice without them")
    shape = source.tensor(0).shape
    begin, end, stride = (source.integers(position) for position in (1, 2, 3))
    if not len(begin) == len(end) == len(stride) == len(shape):
        raise source.refuse("begin, end and strides do not cover every axis", "re-export it")
    if min(stride) < 1:
        raise source.refuse("a stride below 1", "slice forwards")
    resolved = [slice(b, e).indices(n)[:2] for b, e, n in zip(begin, end, shape, strict=True)]
    starts = tuple(
        0 if options.BeginMask() >> axis & 1 else pair[0] for axis, pair in enumerate(resolved)
    )
    ends = tuple(
        shape[axis] if options.EndMask() >> axis & 1 else pair[1]
        for axis, pair in enumerate(resolved)
    )
    return ir.StridedSlice(source.name, source.inputs[:1], source.outputs, starts, ends, stride)


@_encodes(ir.StridedSlice)
def _write_strided_slice(op: ir.StridedSlice, graph: Graph) -> Sequence[Encoded]:
    extra = (
        _integers(op, "begin", op.begin),
        _integers(op, "end", op.end),
        _integers(op, "strides", op.stride),
    )
    inputs = (op.inputs[0], *(tensor.name for tensor in extra))
    version = _version(graph, op.output, int16=4)
    return _encoded(op, Builtin.STRIDED_SLICE, version, "StridedSliceOptions", inputs, extra)


def _read_resize(
    source: Source, kind: type[ir.ResizeNearest] | type[ir.ResizeBilinear]
) -> ir.ResizeNearest | ir.ResizeBilinear:
    height, width = source.integers(1)
    return kind(
        source.name,
        source.inputs[:1],
        source.outputs,
        (height, width),
        bool(source.options.AlignCorners()),
        bool(source.options.HalfPixelCenters()),
    )


@_decodes(Builtin.RESIZE_NEAREST_NEIGHBOR, options="ResizeNearestNeighborOptions")
def _read_resize_nearest(source: Source) -> Op:
    return _read_resize(source, ir.ResizeNearest)


@_decodes(Builtin.RESIZE_BILINEAR, options="ResizeBilinearOptions")
def _read_resize_bilinear(source: Source) -> Op:
    return _read_resize(source, ir.ResizeBilinear)


def _write_resize(
    op: ir.ResizeNearest | ir.ResizeBilinear, graph: Graph, code: int, options: str
) -> Sequence[Encoded]:
    size = _integers(op, "size", op.size)
    int8 = 3 if op.half_pixel_centers else 2
    return _encoded(
        op,
        code,
        _version(graph, op.output, float32=3 if op.half_pixel_centers else 1, int8=int8, int16=4),
        options,
        inputs=(op.inputs[0], size.name),
        extra=(size,),
        alignCorners=op.align_corners,
        halfPixelCenters=op.half_pixel_centers,
    )


@_encodes(ir.ResizeNearest)
def _write_resize_nearest(op: ir.ResizeNearest, graph: Graph) -> Sequence[Encoded]:
    options = "ResizeNearestNeighborOptions"
    return _write_resize(op, graph, Builtin.RESIZE_NEAREST_NEIGHBOR, options)


@_encodes(ir.ResizeBilinear)
def _write_resize_bilinear(op: ir.ResizeBilinear, graph: Graph) -> Sequence[Encoded]:
    return _write_resize(op, graph, Builtin.RESIZE_BILINEAR, "ResizeBilinearOptions")


@_decodes(Builtin.QUANTIZE)
def _read_quantize(source: Source) -> Op:
    return ir.Quantize(source.name, source.inputs, source.outputs)


@_encodes(ir.Quantize)
def _write_quantize(op: ir.Quantize, graph: Graph) -> Sequence[Encoded]:
    if graph[op.inputs[0]].dtype is DType.FLOAT32:
        version = _version(graph, op.output, int8=1, int16=3)
    else:
        version = max(_version(graph, op.inputs[0]), _version(graph, op.output))
    return _encoded(op, Builtin.QUANTIZE, version, "QuantizeOptions")


@_decodes(Builtin.DEQUANTIZE)
def _read_dequantize(source: Source) -> Op:
    return ir.Dequantize(source.name, source.inputs, source.outputs)


@_encodes(ir.Dequantize)
def _write_dequantize(op: ir.Dequantize, graph: Graph) -> Sequence[Encoded]:
    return _encoded(op, Builtin.DEQUANTIZE, _version(graph, op.inputs[0]), "DequantizeOptions")
