"""The float ONNX operator, between the QDQ pairs, of every operator of `ops.py`."""

from __future__ import annotations

from functools import singledispatch

from edgesmith.quantize import ops
from edgesmith.quantize.network import Step
from edgesmith.quantize.onnx_nodes import Nodes

PLAIN: dict[type[ops.Op], str] = {
    ops.MatMul: "MatMul",
    ops.Add: "Add",
    ops.Sub: "Sub",
    ops.Mul: "Mul",
    ops.Relu: "Relu",
    ops.HardSwish: "HardSwish",
    ops.Sigmoid: "Sigmoid",
    ops.Tanh: "Tanh",
}
"""Operators without attributes."""


def emit(nodes: Nodes, step: Step) -> str:
    """Append the step's operator and fused clamp; the result's name."""
    inputs = [nodes.real(name) for name in step.inputs]
    result = _emit(step.op, nodes, step.name, inputs)
    if step.activation is None:
        return result
    return _emit(step.activation, nodes, f"{step.name}/activation", [result])


@singledispatch
def _emit(op: ops.Op, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add(PLAIN[type(op)], inputs, f"{name}/{op.kind}")


@_emit.register
def _(op: ops.Conv, nodes: Nodes, name: str, inputs: list[str]) -> str:
    weight, bias = nodes.real(f"{name}.weight"), nodes.real(f"{name}.bias")
    return nodes.add(
        "Conv",
        [*inputs, weight, bias],
        f"{name}/conv",
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.padding * 2,
        dilations=op.dilation,
        group=op.groups,
    )


@_emit.register
def _(op: ops.Linear, nodes: Nodes, name: str, inputs: list[str]) -> str:
    weight, bias = nodes.real(f"{name}.weight"), nodes.real(f"{name}.bias")
    if len(nodes.shapes[name]) == 2:
        return nodes.add("Gemm", [*inputs, weight, bias], f"{name}/gemm", transB=1)
    turned = nodes.add("Transpose", [weight], f"{name}/weight_t", perm=(1, 0))
    product = nodes.add("MatMul", [*inputs, turned], f"{name}/matmul")
    return nodes.add("Add", [product, bias], f"{name}/biased")


@_emit.register
def _(op: ops.Clamp, nodes: Nodes, name: str, inputs: list[str]) -> str:
    low = "" if op.low is None else nodes.number(f"{name}/low", op.low)
    high = "" if op.high is None else nodes.number(f"{name}/high", op.high)
    return nodes.add("Clip", [*inputs, low, high], f"{name}/clip")


@_emit.register
def _(op: ops.AveragePool, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add(
        "AveragePool",
        inputs,
        f"{name}/average_pool",
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.padding * 2,
        count_include_pad=0,
    )


@_emit.register
def _(op: ops.MaxPool, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add(
        "MaxPool",
        inputs,
        f"{name}/max_pool",
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=op.padding * 2,
    )


@_emit.register
def _(op: ops.Mean, nodes: Nodes, name: str, inputs: list[str]) -> str:
    axes = nodes.integers(f"{name}/axes", op.axes)
    return nodes.add("ReduceMean", [*inputs, axes], f"{name}/mean", keepdims=int(op.keep_dims))


@_emit.register
def _(op: ops.Gelu, nodes: Nodes, name: str, inputs: list[str]) -> str:
    form = "tanh" if op.approximate else "none"
    return nodes.add("Gelu", inputs, f"{name}/gelu", approximate=form)


@_emit.register
def _(op: ops.LayerNorm, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add(
        "LayerNormalization", inputs, f"{name}/layer_norm", axis=-1, epsilon=op.epsilon
    )


@_emit.register
def _(op: ops.Softmax, nodes: Nodes, name: str, inputs: list[str]) -> str:
    if op.beta != 1.0:
        beta = nodes.number(f"{name}/beta", op.beta)
        inputs = [nodes.add("Mul", [*inputs, beta], f"{name}/scaled")]
    return nodes.add("Softmax", inputs, f"{name}/softmax", axis=op.axis)


@_emit.register
def _(op: ops.Concat, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add("Concat", inputs, f"{name}/concat", axis=op.axis)


@_emit.register
def _(op: ops.Reshape, nodes: Nodes, name: str, inputs: list[str]) -> str:
    shape = nodes.integers(f"{name}/shape", op.static)
    return nodes.add("Reshape", [*inputs, shape], f"{name}/reshape")


@_emit.register
def _(op: ops.Transpose, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return nodes.add("Transpose", inputs, f"{name}/transpose", perm=op.permutation)


@_emit.register
def _(op: ops.Pad, nodes: Nodes, name: str, inputs: list[str]) -> str:
    pads = nodes.integers(f"{name}/pads", (*op.before, *op.after))
    return nodes.add("Pad", [*inputs, pads], f"{name}/pad", mode="constant")


@_emit.register
def _(op: ops.Slice, nodes: Nodes, name: str, inputs: list[str]) -> str:
    values = {"starts": op.begin, "ends": op.end, "axes": op.axis, "steps": op.step}
    parts = [nodes.integers(f"{name}/{part}", [value]) for part, value in values.items()]
    return nodes.add("Slice", [*inputs, *parts], f"{name}/slice")


@_emit.register
def _(op: ops.Resize, nodes: Nodes, name: str, inputs: list[str]) -> str:
    sizes = nodes.integers(f"{name}/sizes", nodes.shapes[name])
    nearest = op.mode == "nearest"
    # torch's nearest takes floor(i * in / out); its bilinear clamps half-pixel positions.
    coordinates = "align_corners" if op.align_corners else "half_pixel"
    return nodes.add(
        "Resize",
        [*inputs, "", "", sizes],
        f"{name}/resize",
        mode="nearest" if nearest else "linear",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric" if nearest else coordinates,
    )


@_emit.register
def _(op: ops.Requantize, nodes: Nodes, name: str, inputs: list[str]) -> str:
    return inputs[0]
