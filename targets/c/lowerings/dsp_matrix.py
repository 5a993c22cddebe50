"""Convolution and fully connected on the DSP kernels: int8 activations, int8 and int4 weights.

What they do not cover is declined, and the portable kernels take over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c import packing
from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.dsp_tail import DspTail, channel_tail
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.program import Array, Call, KernelSet, Overlap, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Padding
from edgesmith.targets.graph.reference import linear

MATRIX_GROUP, ROW_GROUP = 4, 8

# Sums of the second channel of a pair must fit 24 bits.
PAIR_LIMIT = 1 << 23


@dataclass(frozen=True)
class _Kernel:
    """A family of kernels: its argument struct, its files, and channels at a time."""

    arguments: str
    function: str
    group: int
    sources: tuple[str, ...]


def _kernel(name: str, core: str, bits: int, variant: str = "") -> _Kernel:
    files = [f"{name}_s{bits}", name, f"{core}_s{bits}", "matrix", "bytes"]
    if name == "conv":
        files.append("join")
    if core == "matrix":
        files += ["expand" if bits == 8 else "expand_summed"]
    group = ROW_GROUP if core == "row" else MATRIX_GROUP
    sources = tuple(f"dsp/dsp_{stem}.c" for stem in files)
    return _Kernel(f"es_dsp_{name}", f"es_dsp_{name}{variant}", group, sources)


@dataclass(frozen=True, eq=False)
class _Layer:
    """What every lowering here starts from: weights [O, K] and their tail."""

    rows: packing.Codes
    bits: int
    tail: DspTail
    zero: int

    @property
    def outputs(self) -> int:
        return len(self.rows)

    def weights(self, group: int) -> Array:
        pack = packing.pack_matrix_s8 if self.bits == 8 else packing.pack_matrix_s4
        return Array(pack(self.rows, group), Role.WEIGHTS)

    def struct(self, group: int) -> Struct:
        shared = packing.BYTE_PAIR if self.bits == 8 else packing.NIBBLES
        return self.tail.struct(group, shared)


def _layer(op: ir.Op, site: Site) -> _Layer | str:
    reference = reference_call(op, site)
    source, weight = reference.tensor(0), reference.tensor(1)
    if source.dtype is not DType.INT8 or reference.output.dtype is not DType.INT8:
        return "only int8 activations are written"
    if weight.dtype not in (DType.INT8, DType.INT4):
        return f"{weight.dtype} weights are not written"
    linear.require_symmetric(reference, weight)
    outputs = weight.shape[0]
    rows = reference.constant(1).reshape(outputs, -1)
    tail = linear.make_tail(
        reference,
        getattr(op, "activation", ir.Activation.NONE),
        linear.weight_scales(reference, weight, outputs),
        outputs,
    )
    zero = source.q.scalar[1]
    found = channel_tail(tail, rows, zero)
    if isinstance(found, str):
        return found
    refused = _exact(rows, weight.dtype.bits, found)
    return refused or _Layer(rows, weight.dtype.bits, found, zero)


def _exact(rows: packing.Codes, bits: int, tail: DspTail) -> str | None:
    """Why sums of channels that share a word could not be told apart."""
    if bits == 8:
        if not packing.fits_matrix_s8(rows):
            return "weight -128 beside a negative one"
        if tail.sums[1::2].max(initial=0) >= PAIR_LIMIT:
            return "a sum may reach 2**23"
    else:
        offset = packing.NIBBLE_OFFSET * 128 * rows.shape[1]
        if tail.sums[3::4].max(initial=0) >= 1 << 19:
            return "a sum of int4 products may reach 2**19"
        if tail.sums[2::4].max(initial=0) + offset >= 1 << 23:
            return "a sum of int4 products may reach 2**23"
    return None


def _call(
    op: ir.Op, layer: _Layer, kernel: _Kernel, fields: dict[str, Value], scratch: int, macs: int
) -> Call:
    shared = {"weights": layer.weights(kernel.group), "outputs": layer.struct(kernel.group)}
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"{kernel.function}_s{layer.bits}",
        sources=kernel.sources,
        arguments=Struct(f"{kernel.arguments}_args", (*shared.items(), *fields.items())),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=_ceil(scratch, 8),
        macs=macs,
    )


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _pair_bytes(depth: int) -> int:
    """Scratch of two expanded pixels: 16-bit elements, and their sums for int4."""
    return 8 + 4 * _ceil(depth, 4)


def _lead(written: npt.NDArray[np.int64], needed: npt.NDArray[np.int64], nothing: int) -> Overlap:
    """`written[i]`: output bytes once step i is done; `needed[i]`: first input byte read later."""
    return Overlap(int((written[:-1] - needed[:-1]).max(initial=-nothing)))


def _pointwise(
    op: ir.Op, layer: _Layer, images: tuple[int, int, int], strides: tuple[int, int, int]
) -> Call:
    """A matrix product with `images` (n, rows, columns) of pixels, `strides` bytes apart."""
    depth = layer.rows.shape[1]
    kernel = _kernel("pointwise", "matrix", layer.bits)
    count, rows, columns = images
    n, y, x = np.meshgrid(*(np.arange(size) for size in images), indexing="ij")
    starts = (n * strides[0] + y * strides[1] + x * strides[2]).reshape(-1)
    pixels = len(starts)
    done = np.minimum(np.arange(2, pixels + 2, 2), pixels)
    lead = _lead(done * layer.outputs, starts[np.minimum(done, pixels - 1)], strides[0] * count)
    fields: dict[str, Value] = {
        "depth": depth,
        "rows": rows,
        "columns": columns,
        "row_bytes": strides[1],
        "column_bytes": strides[2],
    }
    call = _call(op, layer, kernel, fields, _pair_bytes(depth), pixels * layer.rows.size)
    return replace(call, overlaps={op.inputs[0]: lead})


def _image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    count, height, width, channels = shape
    return count, height, width, channels


@lowers(ir.Conv2D, kernels=KernelSet.DSP)
def conv2d(op: ir.Conv2D, site: Site) -> Call | Declined:
    """Convolution in one group."""
    if op.groups != 1:
        return Declined("grouped convolution is not written")
    layer = _layer(op, site)
    if isinstance(layer, str):
        return Declined(layer)
    weight = site.tensor(op.inputs[1])
    source, result = (_image(site.tensor(n).shape) for n in (op.inputs[0], op.output))
    if weight.shape[1:3] == (1, 1) and op.padding == Padding() and source[3] % 4 == 0:
        row = source[2] * source[3]
        if op.stride == (1, 1):
            return _pointwise(op, layer, (1, 1, math.prod(source[:3])), (0, 0, source[3]))
        if source[0] == 1:
            strides = (0, op.stride[0] * row, op.stride[1] * source[3])
            return _pointwise(op, layer, result[:3], strides)
    return _ring_convolution(op, layer, weight.shape, source, result)


def _ring_convolution(
    op: ir.Conv2D,
    layer: _Layer,
    weight: tuple[int, ...],
    source: tuple[int, int, int, int],
    result: tuple[int, int, int, int],
) -> Call:
    count, height, width, channels = source
    _, kernel_height, kernel_width, _ = weight
    together = op.dilation[1] == 1 or kernel_width == 1
    runs = 1 if together else kernel_width
    run = kernel_width * channels if together else channels
    ring_rows = (kernel_height - 1) * op.dilation[0] + 1
    reach = (result[2] - 1) * op.stride[1] + (kernel_width - 1) * op.dilation[1] + 1
    ring_bytes = max(reach, op.padding.left + width) * channels
    depth = layer.rows.shape[1]
    # Runs of other than whole words must be joined; short ones take less time so.
    join = run % 4 != 0 or run <= 8
    fields: dict[str, Value] = {
        "zero": layer.zero,
        "in_rows": height,
        "in_row_bytes": width * channels,
        "left_bytes": op.padding.left * channels,
        "ring_bytes": ring_bytes,
        "ring_rows": ring_rows,
        "top": op.padding.top,
        "out_rows": result[1],
        "out_columns": result[2],
        "row_stride": op.stride[0],
        "column_bytes": op.stride[1] * channels,
        "window_rows": kernel_height,
        "row_dilation": op.dilation[0],
        "runs": runs,
        "run_bytes": run,
        "run_step": op.dilation[1] * channels,
        "join": int(join),
        "images": count,
    }
    # Two windows, each with a word that a last run may reach into.
    joined = 2 * (_ceil(depth, 4) + 4) if join else 0
    ring = _ceil(ring_rows * ring_bytes, 4)
    scratch = _pair_bytes(depth) + 4 * kernel_height * runs + ring + joined
    macs = math.prod(result) * depth
    call = _call(op, layer, _kernel("conv", "matrix", layer.bits), fields, scratch, macs)
    rows = np.arange(result[1])
    loaded = np.clip(rows * op.stride[0] + ring_rows - op.padding.top, 0, height)
    image = np.arange(count)[:, None]
    written = (image * result[1] + rows + 1) * result[2] * result[3]
    needed = (image * height + loaded) * width * channels
    # A later image is read from its first row on, even where this one's last rows are not.
    needed[:, -1] = (image[:, 0] + 1) * height * width * channels
    lead = _lead(written.reshape(-1), needed.reshape(-1), math.prod(source))
    return replace(call, overlaps={op.inputs[0]: lead})


@lowers(ir.FullyConnected, kernels=KernelSet.DSP)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call | Declined:
    """One row straight from its bytes; several rows as the pixels of a 1x1 convolution."""
    layer = _layer(op, site)
    if isinstance(layer, str):
        return Declined(layer)
    depth = layer.rows.shape[1]
    rows = site.tensor(op.inputs[0]).elements // depth
    if rows > 1 and depth % 4 == 0:
        return _pointwise(op, layer, (1, 1, rows), (0, 0, depth))
    kernel = _kernel("fully_connected", "row", layer.bits, "_padded" if depth % 4 else "")
    scratch = _ceil(depth, 4) if depth % 4 else 0
    fields: dict[str, Value] = {"depth": depth, "rows": rows}
    return _call(op, layer, kernel, fields, scratch, rows * layer.rows.size)
