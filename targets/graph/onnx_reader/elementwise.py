"""Operators that work element by element, and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation as Clamp
from edgesmith.targets.graph.ir import Array, Op
from edgesmith.targets.graph.onnx_reader.quantizers import clip_codes
from edgesmith.targets.graph.onnx_reader.site import Axes, Site, operator
from edgesmith.targets.graph.onnx_reader.values import (
    Activation,
    Constant,
    Erf,
    HardSigmoid,
    Quotient,
    SquareRoot,
    Value,
)

_CLAMPS = {
    (0.0, math.inf): Clamp.RELU,
    (0.0, 6.0): Clamp.RELU6,
    (-1.0, 1.0): Clamp.RELU_N1_TO_1,
}
_BINARY: dict[str, type[Op]] = {"Add": ir.Add, "Sub": ir.Sub, "Mul": ir.Mul}
_UNARY: dict[str, type[Op]] = {
    "Sigmoid": ir.Logistic,
    "Tanh": ir.Tanh,
    "HardSwish": ir.HardSwish,
}


@operator(*_BINARY)
def _binary(site: Site) -> Activation:
    return _combined(site, _BINARY[site.node.op], site.value(0), site.value(1))


@operator("Div")
def _divide(site: Site) -> Activation:
    """Division by a constant is multiplication by its reciprocal."""
    if isinstance(site.value(1), Activation):
        left, right = site.activation(0), site.activation(1)
        if _broadcast(site, left.shape, right.shape) != left.shape:
            site.refuse("divides by a larger activation", "divide by a constant")
        return _combined(site, Quotient, left, right)
    divisor = site.constant(1, "divisor")
    reals = divisor.reals().astype(np.float64)
    if reals.size == 0 or not np.all(reals):
        site.broken("divides by zero")
    reciprocals = 1.0 / reals
    if np.abs(reciprocals).max() > np.finfo(np.float32).max:
        site.broken("divides by a number whose reciprocal is no float32")
    inverse = Constant(reciprocals.astype(np.float32), f"{divisor.label}/reciprocal")
    return _combined(site, ir.Mul, site.value(0), inverse)


def _combined(site: Site, kind: type[Op], left: Value, right: Value) -> Activation:
    shape = _broadcast(site, left.shape, right.shape)
    activations = site.computed((left, right))
    if len(activations) == 2 and left.shape == right.shape == shape:
        first, second = activations
        if first.view == second.view:
            tensor = site.emit(kind, [first.tensor, second.tensor])
            return replace(site.made(tensor, first.view, image=first.image), pending=first.pending)
    # The operand with most elements says how memory lies; images go first among equals.
    leader = max(activations, key=lambda value: (math.prod(value.shape), value.image))
    constant = right if isinstance(right, Constant) else left
    if len(activations) == 1 and isinstance(constant, Constant) and constant.array.size == 1:
        scalar = site.placed(constant, Axes((), 0))
        names = [leader.tensor, scalar] if leader is left else [scalar, leader.tensor]
        tensor = site.emit(kind, names)
        view = leader.view.padded(len(shape))
        site.importer.describe(tensor.name, view)
        return replace(leader, tensor=tensor.name, view=view, label=site.label)
    padded = replace(leader, view=leader.view.padded(len(shape)))
    spread, axes = site.spread(padded)
    names = [
        spread.tensor if value is leader else site.placed(value, axes) for value in (left, right)
    ]
    return site.made(site.emit(kind, names), axes.view(shape), image=leader.image)


def _broadcast(site: Site, left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in np.broadcast_shapes(left, right))
    except ValueError:
        site.broken(f"combines the shapes {list(left)} and {list(right)}")


@operator(*_UNARY)
def _unary(site: Site) -> Activation:
    return site.alike(_UNARY[site.node.op], site.activation(0))


@operator("HardSigmoid")
def _hard_sigmoid(site: Site) -> Activation:
    alpha, beta = site.node.number("alpha", 0.2), site.node.number("beta", 0.5)
    if site.importer.quantized and not HardSigmoid.gates_hard_swish(alpha, beta):
        site.refuse(f"has alpha {alpha:g} and beta {beta:g}", "use x * HardSigmoid(x, 1/6, 1/2)")
    return site.alike(HardSigmoid, site.activation(0), alpha=alpha, beta=beta)


@operator("Relu")
def _relu(site: Site) -> Activation:
    return site.alike(ir.Relu, site.activation(0), activation=Clamp.RELU)


@operator("Clip")
def _clip(site: Site) -> Value:
    value = site.value(0)
    low, high = (site.constant(p, "bound").array if site.has(p) else None for p in (1, 2))
    if isinstance(value, Activation):
        if value.code_type is not None:
            return clip_codes(site, value, low, high)
    elif not value.is_codes and value.array.dtype.kind in "iu":
        return clip_codes(site, value, low, high)
    else:
        site.refuse(f"clips the constant {value.label!r}", "clip it before the export")
    bounds = (_real_bound(site, low, -math.inf), _real_bound(site, high, math.inf))
    if not bounds[0] < bounds[1]:
        site.broken(f"clips to the empty range {list(bounds)}")
    if bounds == (-math.inf, math.inf):
        return replace(value, label=site.label)
    if bounds in _CLAMPS:
        return site.alike(ir.Relu, value, activation=_CLAMPS[bounds])
    return site.alike(ir.Clip, value, low=bounds[0], high=bounds[1])


def _real_bound(site: Site, bound: Array | None, default: float) -> float:
    if bound is None or bound.size == 0:
        return default
    if bound.size != 1 or bound.dtype != np.float32:
        site.broken("clips reals with bounds that are no float32 scalars")
    value = float(bound.reshape(-1)[0])
    limit = float(np.finfo(np.float32).max)
    return default if abs(value) >= limit else value


@operator("Gelu")
def _gelu(site: Site) -> Activation:
    form = site.node.text("approximate", "none")
    if form not in ("none", "tanh"):
        site.broken(f"has the unknown approximation {form!r}")
    return site.alike(ir.Gelu, site.activation(0), approximate=form == "tanh")


@operator("Erf", "Sqrt")
def _curve(site: Site) -> Activation:
    kind = Erf if site.node.op == "Erf" else SquareRoot
    return site.alike(kind, site.activation(0))


@operator("Pow")
def _power(site: Site) -> Activation:
    exponent = site.constant(1, "exponent").reals()
    if exponent.size != 1 or float(exponent.reshape(-1)[0]) != 2.0:
        site.refuse("is no square", "write it as products")
    value = site.activation(0)
    tensor = site.emit(ir.Mul, [value.tensor, value.tensor])
    site.importer.describe(tensor.name, value.view)
    return replace(value, tensor=tensor.name, label=site.label)


@operator("Softmax")
def _softmax(site: Site) -> Activation:
    return site.alike(ir.Softmax, _rows(site, "makes all ones"), beta=1.0)


def _rows(site: Site, of_one: str) -> Activation:
    """The first operand with the node's axis innermost in memory."""
    value = site.activation(0)
    axis = site.axis(site.node.integer("axis", -1), value.view.rank)
    group = value.view.logical[axis]
    if not group:
        site.refuse(f"works on an axis of size 1, which {of_one}", "remove it")
    if value.view.physical[-1:] != (group,):
        value, _ = site.spread(value)
        rest = tuple(item for item in value.view.physical if item != group)
        value = replace(site.importer.arrange(value, (*rest, group)), image=False, pending=True)
    return value


@operator("LayerNormalization")
def _layer_norm(site: Site) -> Activation:
    rank = site.activation(0).view.rank
    if site.axis(site.node.integer("axis", -1), rank) != rank - 1:
        site.refuse("works on more than the last axis", "normalize over the last axis alone")
    if any(name in site.importer.readers for name in site.node.outputs[1:]):
        site.refuse("gives mean and deviation", "use its first output alone")
    value = _rows(site, "leaves nothing of its input")
    size = value.shape[-1]
    names = []
    for position in range(1, 3 if site.has(2) else 2):
        constant = site.constant(position, "gain" if position == 1 else "offset")
        if constant.shape != (size,):
            site.broken(f"has parameters of shape {list(constant.shape)} for rows of {size}")
        names.append(site.importer.constant(constant))
    epsilon = site.node.number("epsilon", 1e-5)
    tensor = site.emit(ir.LayerNorm, [value.tensor, *names], epsilon=epsilon)
    site.importer.describe(tensor.name, value.view)
    return replace(value, tensor=tensor.name, label=site.label)


@operator("BatchNormalization")
def _batch_norm(site: Site) -> Activation:
    """y = x * s + (shift - mean * s) with s = gain / sqrt(variance + epsilon)."""
    if site.importer.quantized:
        site.refuse("stands in a quantized model", "fold batch norms before quantizing")
    value = site.activation(0)
    gain, shift, mean, variance = (
        site.constant(position, "statistics").reals().astype(np.float64) for position in range(1, 5)
    )
    channels = value.shape[1] if value.view.rank > 1 else 0
    if {array.shape for array in (gain, shift, mean, variance)} != {(channels,)}:
        site.broken(f"has statistics that do not fit {channels} channels")
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gain / np.sqrt(variance + site.node.number("epsilon", 1e-5))
    if not np.isfinite(scale).all():
        site.broken("has a variance that is not positive")
    shape = (channels, *(1,) * (value.view.rank - 2))
    factor = Constant(scale.astype(np.float32).reshape(shape), f"{site.label}/scale")
    offset = Constant(
        (shift - mean * scale).astype(np.float32).reshape(shape), f"{site.label}/shift"
    )
    if value.view.rank in (3, 4):
        value = site.image(value)
    scaled = _combined(replace(site, alias=f"{site.label}/scaled"), ir.Mul, value, factor)
    return _combined(site, ir.Add, scaled, offset)
