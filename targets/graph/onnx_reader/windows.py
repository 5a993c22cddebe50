"""Operators with windows over images: convolution, pooling, resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Padding, Pair
from edgesmith.targets.graph.onnx_reader.layout import View
from edgesmith.targets.graph.onnx_reader.site import Site, operator
from edgesmith.targets.graph.onnx_reader.values import Activation, Constant
from edgesmith.targets.graph.padding import same_padding

_MAX_RESIZED = 1 << 16


def _pair(site: Site, values: tuple[int, ...] | None, spatial: int, default: int) -> Pair:
    """Per-axis values as (height, width); a 1-D operator has height 1."""
    given = (default,) * spatial if values is None else values
    if len(given) != spatial:
        site.broken(f"has {len(given)} values for {spatial} spatial axes")
    return (given[0], given[1]) if spatial == 2 else (1, given[0])


def _size(view: View) -> Pair:
    shape = view.shape
    return (shape[2], shape[3]) if view.rank == 4 else (1, shape[2])


def _padding(site: Site, view: View, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    scheme = site.node.text("auto_pad", "NOTSET")
    if min(*stride, *dilation, *kernel) < 1:
        site.broken(f"has kernel {kernel}, stride {stride}, dilation {dilation}")
    if scheme == "VALID":
        return Padding()
    if scheme in ("SAME_UPPER", "SAME_LOWER"):
        same = same_padding(_size(view), kernel, stride, dilation)
        if scheme == "SAME_UPPER":
            return same
        return Padding(same.bottom, same.top, same.right, same.left)
    if scheme != "NOTSET":
        site.broken(f"has the unknown auto_pad {scheme!r}")
    spatial = view.rank - 2
    pads = site.node.integers("pads") or (0,) * (2 * spatial)
    top, left = _pair(site, pads[:spatial], spatial, 0)
    bottom, right = _pair(site, pads[spatial:], spatial, 0)
    if spatial == 1:
        top = bottom = 0
    if min(top, bottom, left, right) < 0:
        site.refuse(f"has negative pads {list(pads)}", "crop with a slice instead")
    return Padding(top, bottom, left, right)


def _image_view(shape: tuple[int, ...], rank: int) -> View:
    """The view of a channels-last tensor [N,H,W,C] that ONNX sees with `rank` axes."""
    batch, height, width, channels = shape
    sizes = (batch, channels, height, width) if rank == 4 else (batch, channels, width)
    view = View.of(sizes)
    return view.arranged(view.channels_last)


def _made(site: Site, tensor: ir.Tensor, rank: int) -> Activation:
    return site.made(tensor, _image_view(tensor.shape, rank), image=True)


@operator("Conv")
def _conv(site: Site) -> Activation:
    value = site.image(site.activation(0))
    weight = site.constant(1, "weight")
    rank, spatial = value.view.rank, value.view.rank - 2
    if weight.array.ndim != rank:
        site.broken(f"has a weight of shape {list(weight.shape)} for {spatial} spatial axes")
    kernel = _pair(site, weight.shape[2:], spatial, 1)
    if site.node.integers("kernel_shape") not in (None, weight.shape[2:]):
        site.broken(f"has a kernel_shape that is not its weight's {list(weight.shape[2:])}")
    stride = _pair(site, site.node.integers("strides"), spatial, 1)
    dilation = _pair(site, site.node.integers("dilations"), spatial, 1)
    padding = _padding(site, value.view, kernel, stride, dilation)
    groups, channels, made = site.node.integer("group", 1), value.shape[1], weight.shape[0]
    filters = weight.reshaped((*weight.shape[:2], *kernel))
    if filters is None:
        site.refuse("has a weight quantized along its kernel", "quantize along output channels")
    common = {"stride": stride, "dilation": dilation, "padding": padding}
    if groups == channels > 1 and weight.shape[1] == 1 and made % channels == 0:
        stored = filters.transposed((1, 2, 3, 0))
        names = _operands(site, value, stored)
        multiplier = made // channels
        tensor = site.emit(ir.DepthwiseConv2D, names, multiplier=multiplier, **common)
    else:
        names = _operands(site, value, filters.transposed((0, 2, 3, 1)))
        tensor = site.emit(ir.Conv2D, names, groups=groups, **common)
    return _made(site, tensor, rank)


def _operands(site: Site, value: Activation, weight: Constant) -> list[str]:
    bias = [site.importer.constant(site.constant(2, "bias"))] if site.has(2) else []
    return [value.tensor, site.importer.constant(weight), *bias]


@operator("AveragePool", "MaxPool")
def _pool(site: Site) -> Activation:
    value = site.image(site.activation(0))
    rank, spatial = value.view.rank, value.view.rank - 2
    kernel = _pair(site, site.node.integers("kernel_shape"), spatial, 1)
    stride = _pair(site, site.node.integers("strides"), spatial, 1)
    if _pair(site, site.node.integers("dilations"), spatial, 1) != (1, 1):
        site.refuse("is dilated", "pool without dilation")
    if len(site.node.outputs) > 1 and any(
        name in site.importer.readers for name in site.node.outputs[1:]
    ):
        site.refuse("gives indices", "pool without return_indices")
    padding = _padding(site, value.view, kernel, stride, (1, 1))
    extended = padding
    if site.node.integer("ceil_mode"):
        extended = _ceiled(_size(value.view), kernel, stride, padding)
    source = value.tensor
    maximum = site.node.op == "MaxPool"
    if not maximum and padding != Padding() and site.node.integer("count_include_pad"):
        if extended != padding:
            site.refuse("counts padding and rounds its size up", "set count_include_pad to 0")
        # Counted padding is real zeros, which an explicit Pad adds.
        before = (0, padding.top, padding.left, 0)
        after = (0, padding.bottom, padding.right, 0)
        label = f"{site.label}/padded"
        source = site.importer.emit(ir.Pad, [source], label, before=before, after=after).name
        extended = Padding()
    kind = ir.MaxPool2D if maximum else ir.AveragePool2D
    tensor = site.emit(kind, [source], kernel=kernel, stride=stride, padding=extended)
    return _made(site, tensor, rank)


def _ceiled(size: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Padding:
    """Padding that makes the output as large as rounding up does; windows start inside."""
    ends = []
    for axis, (before, after) in enumerate(
        ((padding.top, padding.bottom), (padding.left, padding.right))
    ):
        span = size[axis] + before + after - kernel[axis]
        out = -(-span // stride[axis]) + 1
        if (out - 1) * stride[axis] >= size[axis] + before:
            out -= 1
        ends.append(max(after, (out - 1) * stride[axis] + kernel[axis] - size[axis] - before))
    return Padding(padding.top, ends[0], padding.left, ends[1])


@operator("GlobalAveragePool")
def _global_average(site: Site) -> Activation:
    value = site.image(site.activation(0))
    tensor = site.emit(ir.Mean, [value.tensor], axes=(1, 2), keep_dims=True)
    return _made(site, tensor, value.view.rank)


@operator("GlobalMaxPool")
def _global_max(site: Site) -> Activation:
    value = site.image(site.activation(0))
    kernel = _size(value.view)
    tensor = site.emit(ir.MaxPool2D, [value.tensor], kernel=kernel, stride=(1, 1))
    return _made(site, tensor, value.view.rank)


Positions = npt.NDArray[np.float32]


def _onnx_positions(site: Site, size: int, out: int, scale: float) -> Positions:
    """Where ONNX samples the input, per output position (operator Resize, opset 19)."""
    x = np.arange(out, dtype=np.float32)
    mode = site.node.text("coordinate_transformation_mode", "half_pixel")
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, np.float32)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return np.asarray((x + np.float32(0.5)) / np.float32(scale) - np.float32(0.5), np.float32)
    if mode == "asymmetric":
        return np.asarray(x / np.float32(scale), np.float32)
    if mode == "align_corners":
        step = (size - 1) / (out - 1) if out > 1 else 0.0
        return np.asarray(x * np.float32(step), np.float32)
    site.refuse(
        f"uses the coordinates {mode!r}", "use half_pixel, align_corners or asymmetric coordinates"
    )


def _tflite_positions(size: int, out: int, align: bool, half: bool) -> Positions:
    """The same of TFLite's resize kernels (`kernels/internal/reference/resize_*.h`)."""
    x = np.arange(out, dtype=np.float32)
    if align and out > 1:
        return np.asarray(x * np.float32((size - 1) / (out - 1)), np.float32)
    scale = np.float32(size / out)
    if half:
        return np.asarray((x + np.float32(0.5)) * scale - np.float32(0.5), np.float32)
    return np.asarray(x * scale, np.float32)


_ROUNDINGS: Mapping[str, Callable[[Positions], Positions]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _same_samples(site: Site, sizes: tuple[int, int, float], align: bool, half: bool) -> bool:
    """Whether TFLite's sampling with these flags is what ONNX asks for on one axis."""
    size, out, scale = sizes
    wanted = _onnx_positions(site, size, out, scale)
    found = _tflite_positions(size, out, align, half)
    if site.node.text("mode", "nearest") == "linear":
        first, second = np.clip(wanted, 0, size - 1), np.clip(found, 0, size - 1)
        return bool(np.allclose(first, second, atol=1e-3))
    rounding = site.node.text("nearest_mode", "round_prefer_floor")
    if rounding not in _ROUNDINGS:
        site.broken(f"has the unknown nearest_mode {rounding!r}")
    # Half-pixel nearest in TFLite is floor((x + 1/2) * scale): the offset is not taken back.
    nearest = np.floor(found + np.float32(0.5)) if align or half else np.floor(found)
    wanted = np.clip(_ROUNDINGS[rounding](wanted), 0, size - 1)
    return bool(np.array_equal(wanted, np.clip(nearest, 0, size - 1)))


def _target(site: Site, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes and scales of all axes."""
    if site.has(3):
        sizes = site.integers(3, "sizes")
        if len(sizes) == len(shape) and min(sizes, default=0) > 0:
            return sizes, tuple(out / size for out, size in zip(sizes, shape, strict=True))
    elif site.has(2):
        factors = site.constant(2, "scales").array.reshape(-1)
        if factors.dtype == np.float32 and factors.size == len(shape):
            scales = tuple(float(factor) for factor in factors.tolist())
            if 0 < min(scales) <= max(scales) < _MAX_RESIZED:
                sizes = tuple(int(np.floor(n * s)) for n, s in zip(shape, scales, strict=True))
                return sizes, scales
    site.broken("has neither valid scales nor valid sizes")


_REFUSED: Mapping[str, tuple[object, str]] = {
    "antialias": (0, "antialiasing"),
    "exclude_outside": (0, "excluded outside positions"),
}


@operator("Resize")
def _resize(site: Site) -> Activation:
    value = site.image(site.activation(0))
    shape = value.shape
    mode = site.node.text("mode", "nearest")
    if len(shape) != 4 or mode not in ("nearest", "linear"):
        site.refuse(f"resizes {len(shape)} axes by {mode!r}", "use nearest or bilinear on images")
    if site.node.integers("axes") is not None:
        site.refuse("names axes", "give scales or sizes of all four axes")
    for name, (allowed, words) in _REFUSED.items():
        if site.node.integer(name) != allowed:
            site.refuse(f"uses {words}", "resize without it")
    sizes, scales = _target(site, shape)
    if sizes[:2] != shape[:2] or max(sizes[2:]) > _MAX_RESIZED or min(sizes) < 1:
        site.refuse(f"resizes {list(shape)} to {list(sizes)}", "resize height and width only")
    axes = [(shape[axis], sizes[axis], scales[axis]) for axis in (2, 3)]
    kind = ir.ResizeBilinear if mode == "linear" else ir.ResizeNearest
    for align, half in ((False, False), (False, True), (True, False)):
        if all(_same_samples(site, axis, align, half) for axis in axes):
            tensor = site.emit(
                kind,
                [value.tensor],
                size=(sizes[2], sizes[3]),
                align_corners=align,
                half_pixel_centers=half,
            )
            return _made(site, tensor, 4)
    site.refuse(
        "samples at positions that TFLite's resize cannot",
        "use nearest with asymmetric coordinates and floor, or bilinear",
    )
