"""QuantizeLinear, DequantizeLinear, and Clip on the codes between them.

Unsigned codes become signed by subtracting half their range from codes and zero
point, which changes no real value: uint8 with zero point 128 is int8 with 0.
A Clip on codes narrows the format: Brevitas writes int4 as int8 clipped to
[-7, 7] or [-8, 7]. Weights become int4 or int2 then. Activations keep the type of
their codes, and a clamp of their own: no kernel has narrower ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph.ir import Array, DType, Quantization
from edgesmith.targets.graph.onnx_reader.site import Site, operator
from edgesmith.targets.graph.onnx_reader.values import (
    Activation,
    Bounds,
    Constant,
    FakeQuantize,
    Format,
    Value,
)

_OUTPUT_TYPES = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4"}
_PACKED_BOUNDS = {"uint4": (0, 15), "int4": (-8, 7)}


@dataclass(frozen=True, eq=False)
class _Parameters:
    """Scale and zero point of one node; `kind` is the NumPy name of the codes' type."""

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    kind: str
    bounds: Bounds | None

    @property
    def is_scalar(self) -> bool:
        return self.scale.size == 1


def _parameters(site: Site, kind: str | None, bounds: Bounds | None) -> _Parameters:
    """Read scale and zero point; `kind` and `bounds` are the codes' where they are known."""
    scale = site.constant(1, "scale")
    if site.node.integer("block_size"):
        site.refuse("quantizes in blocks", "quantize per tensor or per channel")
    if scale.array.dtype != np.float32 or scale.array.ndim > 1 or scale.array.size < 1:
        site.broken(f"has a scale of type {scale.array.dtype} and shape {list(scale.shape)}")
    values = np.asarray(scale.array, np.float32).reshape(-1)
    if not (np.isfinite(values).all() and (values > 0).all()):
        site.broken(f"has the scale {scale.label!r} that is not finite and positive")
    zero = np.zeros(values.shape, np.int64)
    if site.has(2):
        stored = site.constant(2, "zero point")
        if stored.array.dtype.kind not in "iu" or stored.array.size != values.size:
            site.broken(f"has {stored.array.size} zero points for {values.size} scales")
        zero = stored.array.astype(np.int64).reshape(-1)
        kind, bounds = kind or stored.array.dtype.name, bounds or stored.bounds
    elif kind is None:
        kind = _OUTPUT_TYPES.get(site.node.integer("output_dtype", 2))
        if kind is None:
            site.refuse("gives codes of an unknown type", "use int8, uint8, int16 or int4")
        bounds = _PACKED_BOUNDS.get(kind)
        kind = kind.replace("int4", "int8")
    return _Parameters(values, zero, kind, bounds)


def _storage(kind: str, bounds: Bounds | None) -> tuple[DType, int]:
    """The signed type that holds such codes, and what to subtract from unsigned ones."""
    unsigned = kind.startswith("u")
    bits = int(kind.removeprefix("u").removeprefix("int"))
    if bounds is not None:
        low, high = bounds
        for narrow in (2, 4, 8):
            half = 1 << (narrow - 1)
            fits = low >= 0 and high < 2 * half if unsigned else -half <= low and high < half
            if narrow < bits and fits:
                bits = narrow
                break
    return DType(f"int{bits}"), (1 << (bits - 1)) if unsigned else 0


def _format(site: Site, parameters: _Parameters) -> Format:
    if not parameters.is_scalar:
        site.refuse(
            f"quantizes an activation with {parameters.scale.size} scales",
            "quantize activations per tensor",
        )
    if parameters.kind.endswith(("32", "64")):
        site.refuse(f"quantizes an activation to {parameters.kind}", "use int8 or int16")
    dtype, shift = _storage(parameters.kind, None)
    zero = int(parameters.zero_point[0]) - shift
    if not dtype.qmin <= zero <= dtype.qmax:
        site.broken(f"has zero point {zero + shift}, which {parameters.kind} codes do not reach")
    bounds = None
    if parameters.bounds is not None:
        low, high = parameters.bounds
        bounds = (low - shift, high - shift)
    if bounds is not None and bounds[0] <= dtype.qmin and dtype.qmax <= bounds[1]:
        bounds = None
    return Format(dtype, float(parameters.scale[0]), zero, bounds)


@operator("QuantizeLinear")
def _quantize(site: Site) -> Value:
    value = site.value(0)
    parameters = _parameters(site, None, None)
    if isinstance(value, Constant):
        return _quantized_constant(site, value, parameters)
    real = site.importer.settle(site.activation(0))
    return _fake_quantized(site, real, _format(site, parameters), parameters.kind)


def _fake_quantized(
    site: Site, value: Activation, form: Format, code_type: str | None
) -> Activation:
    tensor = site.importer.emit(FakeQuantize, [value.tensor], _name(site), format=form)
    site.importer.describe(tensor.name, value.view)
    return replace(
        value,
        tensor=tensor.name,
        label=tensor.name,
        code_type=code_type,
        format=form if code_type else None,
    )


def _name(site: Site) -> str:
    """The name of the reals that the codes stand for: the DequantizeLinear's output."""
    output = site.label
    for _ in range(2):
        readers = site.importer.readers.get(output, [])
        for reader in readers:
            if reader.op == "DequantizeLinear" and reader.outputs:
                return reader.outputs[0]
        if len(readers) != 1 or readers[0].op != "Clip" or not readers[0].outputs:
            break
        output = readers[0].outputs[0]
    # Codes that leave the graph: `<group>_q` by the convention of our own writer.
    return site.label if readers else site.label.removesuffix("_q")


def _quantized_constant(site: Site, value: Constant, parameters: _Parameters) -> Constant:
    """Codes of constant reals, as ONNX Runtime rounds them (half to even, in float32)."""
    scale, zero = (
        np.asarray(_along_axis(site, array, value.array), np.float32)
        for array in (parameters.scale, parameters.zero_point)
    )
    if parameters.kind.endswith(("32", "64")) or value.array.dtype.kind != "f":
        site.broken(f"quantizes {value.array.dtype} to {parameters.kind}")
    kind = np.dtype(parameters.kind)
    low, high = parameters.bounds or (np.iinfo(kind).min, np.iinfo(kind).max)
    codes = np.clip(
        np.rint(np.asarray(value.array, np.float32) / scale).astype(np.float64) + zero, low, high
    )
    return Constant(codes.astype(kind), value.label, parameters.bounds)


def _along_axis(site: Site, values: Array, data: Array) -> Array:
    if values.size == 1:
        return values.reshape(())
    shape = [1] * data.ndim
    axis = site.axis(site.node.integer("axis", 1), data.ndim)
    if data.shape[axis] != values.size:
        site.broken(f"has {values.size} scales for axis {axis} of shape {list(data.shape)}")
    shape[axis] = -1
    return values.reshape(shape)


@operator("DequantizeLinear")
def _dequantize(site: Site) -> Value:
    value = site.value(0)
    if isinstance(value, Constant):
        return _dequantized_constant(site, value)
    if value.code_type is None:
        site.broken("dequantizes a value that was never quantized")
    parameters = _parameters(site, value.code_type, None)
    made = value.format
    if made is None:
        form = _format(site, parameters)
        return _fake_quantized(site, site.importer.settle(value), form, None)
    form = _format(site, replace(parameters, bounds=_unshifted(made, value.code_type)))
    if form != made:
        site.refuse(
            f"reads codes of scale {made.scale!r} and zero point {made.zero_point} "
            f"as scale {form.scale!r} and zero point {form.zero_point}",
            "give both sides of a QDQ pair the same scale and zero point",
        )
    return replace(value, code_type=None, format=None, label=site.label)


def _unshifted(form: Format, kind: str) -> Bounds | None:
    """The range of the codes as the file has them."""
    shift = (1 << (form.dtype.bits - 1)) if kind.startswith("u") else 0
    low, high = form.bounds or (form.dtype.qmin, form.dtype.qmax)
    return low + shift, high + shift


def _dequantized_constant(site: Site, value: Constant) -> Constant:
    if value.array.dtype.kind not in "iu" or value.is_codes or value.array.size == 0:
        site.broken(f"dequantizes the {value.array.dtype} constant {value.label!r}")
    kind = value.array.dtype.name
    if kind.endswith("64"):
        site.broken("dequantizes int64 codes, which ONNX does not define")
    parameters = _parameters(site, kind, value.bounds)
    dtype, shift = _storage(kind, value.bounds)
    axis = None
    if not parameters.is_scalar:
        _along_axis(site, parameters.scale, value.array)
        axis = site.axis(site.node.integer("axis", 1), value.array.ndim)
    zero = parameters.zero_point - shift
    codes = value.array.astype(np.int64) - shift
    if codes.min() < dtype.qmin or codes.max() > dtype.qmax:
        site.broken(f"has codes outside of {dtype} in {value.label!r}")
    label = site.label if value.label == f"{site.label}_q" else value.label
    quantization = Quantization(parameters.scale, zero, axis)
    return Constant(codes.astype(dtype.numpy), label, None, quantization, dtype, value.positions)


def clip_codes(site: Site, value: Value, low: Array | None, high: Array | None) -> Value:
    """Clip on integer codes: narrows the format that they are of."""
    bounds = (_bound(site, low, -(1 << 40)), _bound(site, high, 1 << 40))
    if bounds[0] > bounds[1]:
        site.broken(f"clips codes to the empty range {list(bounds)}")
    if isinstance(value, Constant):
        info = np.iinfo(value.array.dtype.name)
        inside = max(bounds[0], info.min), min(bounds[1], info.max)
        return replace(value, array=np.clip(value.array, *inside), bounds=inside)
    if value.format is None or value.code_type is None:
        site.refuse("clips the codes of a graph input", "quantize inside the graph")
    quantizer = site.node.inputs[0]
    if len(site.importer.readers[quantizer]) != 1:
        site.refuse("clips codes that something else reads unclipped", "quantize twice instead")
    return _narrowed(site, value, value.format, bounds)


def _narrowed(site: Site, value: Activation, form: Format, bounds: Bounds) -> Activation:
    """Give the FakeQuantize that made these codes the bounds of the narrower format."""
    importer = site.importer
    position = importer.positions[value.tensor]
    made = importer.ops[position]
    assert isinstance(made, FakeQuantize)
    assert value.code_type is not None
    shift = (1 << (form.dtype.bits - 1)) if value.code_type.startswith("u") else 0
    low, high = bounds[0] - shift, bounds[1] - shift
    inside = low <= form.dtype.qmin and form.dtype.qmax <= high
    narrow = replace(form, bounds=None if inside else (low, high))
    importer.ops[position] = replace(made, format=narrow)
    return replace(value, format=narrow)


def _bound(site: Site, value: Array | None, default: int) -> int:
    if value is None:
        return default
    if value.size != 1 or value.dtype.kind not in "iu":
        site.broken("clips codes with bounds that are no integers")
    return int(value.reshape(-1)[0])
