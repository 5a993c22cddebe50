"""Convolution and fully connected on the DSP kernels: int8 activations, int8 and int4 weights.

What they do not cover is declined, and the portable kernels take over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

Misfit = Callable[[packing.Codes, DspTail], str | None]


@dataclass(frozen=True)
class _Format:
    """A way to store weights, and the loop that reads it.

    `shared` are the factors of the channels that share a sum; `misfit` says why a layer cannot
    be stored so. `rows` is whether a loop for single rows of activations reads it too.
    """

    suffix: str
    pack: Callable[[packing.Codes, int], packing.Words]
    shared: tuple[int, ...]
    expand: str
    misfit: Misfit
    rows: bool = True


def _byte_misfit(rows: packing.Codes, tail: DspTail) -> str | None:
    if not packing.fits_matrix_s8(rows):
        return "weight -128 beside a negative one"
    if tail.sums[1::2].max(initial=0) >= 1 << 23:
        return "a sum may reach 2**23"
    return None


def _nibble_misfit(rows: packing.Codes, tail: DspTail) -> str | None:
    offset = packing.NIBBLE_OFFSET * 128 * rows.shape[1]
    if tail.sums[3::4].max(initial=0) >= 1 << 19:
        return "a sum may reach 2**19"
    if tail.sums[2::4].max(initial=0) + offset >= 1 << 23:
        return "a sum with offset may reach 2**23"
    return None


def _no_misfit(rows: packing.Codes, tail: DspTail) -> str | None:
    return None


WIDE = _Format("wide_s8", packing.pack_matrix_wide, (1,), "expand", _no_misfit, rows=False)
BYTES = _Format("s8", packing.pack_matrix_s8, packing.BYTE_PAIR, "expand", _byte_misfit)
NIBBLES = _Format("s4", packing.pack_matrix_s4, packing.NIBBLES, "expand_summed", _nibble_misfit)

# Weight type -> formats, the best first; the last takes everything.
FORMATS = {DType.INT8: (BYTES, WIDE), DType.INT4: (NIBBLES, BYTES, WIDE)}

# Bytes of a window row that take less time where rows are joined.
SHORT_RUN = 8


@dataclass(frozen=True)
class _Kernel:
    """A kernel in one format: its argument struct, its files, and channels at a time."""

    name: str
    form: _Format
    group: int = 4
    variant: str = ""

    @property
    def function(self) -> str:
        return f"es_dsp_{self.name}{self.variant}_{self.form.suffix}"

    @property
    def sources(self) -> tuple[str, ...]:
        core = "matrix" if self.group == 4 else "row"
        files = [f"{self.name}_{self.form.suffix}", self.name, f"{core}_{self.form.suffix}"]
        files += ["matrix", "bytes"]
        files += ["join"] if self.name == "conv" else []
        files += [self.form.expand] if core == "matrix" else []
        return tuple(f"dsp/dsp_{stem}.c" for stem in files)


@dataclass(frozen=True, eq=False)
class _Layer:
    """What every lowering here starts from: weights [O, K], their format and their tail."""

    rows: packing.Codes
    form: _Format
    tail: DspTail
    zero: int

    @property
    def outputs(self) -> int:
        return len(self.rows)

    def shared_fields(self, group: int) -> tuple[tuple[str, Value], ...]:
        weights = Array(self.form.pack(self.rows, group), Role.WEIGHTS)
        return (("weights", weights), ("outputs", self.tail.struct(group, self.form.shared)))


def _layer(op: ir.Op, site: Site, *, apart: bool = True) -> _Layer | str:
    """The layer, or why it is declined; `apart` as for `channel_tail`."""
    reference = reference_call(op, site)
    source, weight = reference.tensor(0), reference.tensor(1)
    if source.dtype is not DType.INT8 or reference.output.dtype is not DType.INT8:
        return "only int8 activations are written"
    if weight.dtype not in FORMATS:
        return f"{weight.dtype} weights are not written"
    linear.require_symmetric(reference, weight)
    outputs = weight.shape[0]
    rows = reference.constant(1).astype(np.int8).reshape(outputs, -1)
    tail = linear.make_tail(
        reference,
        getattr(op, "activation", ir.Activation.NONE),
        linear.weight_scales(reference, weight, outputs),
        outputs,
    )
    zero = source.q.scalar[1]
    found = channel_tail(tail, rows, zero, apart=apart)
    if isinstance(found, str):
        return found
    form = next(form for form in FORMATS[weight.dtype] if form.misfit(rows, found) is None)
    return _Layer(rows, form, found, zero)


def _call(
    op: ir.Op, layer: _Layer, kernel: _Kernel, fields: dict[str, Value], scratch: int, macs: int
) -> Call:
    shared = layer.shared_fields(kernel.group)
    return Call(
        name=op.name,
        kind=op.kind,
        function=kernel.function,
        sources=kernel.sources,
        arguments=Struct(f"es_dsp_{kernel.name}_args", (*shared, *fields.items())),
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
    op: ir.Op, layer: _Layer, size: tuple[int, int], strides: tuple[int, int], source: int
) -> Call:
    """A matrix product with `size` (rows, columns) pixels, `strides` bytes apart.

    `source` is the bytes of the input.
    """
    depth = layer.rows.shape[1]
    kernel = _Kernel("pointwise", layer.form)
    rows, columns = size
    starts = (np.arange(rows)[:, None] * strides[0] + np.arange(columns) * strides[1]).reshape(-1)
    pixels = len(starts)
    done = np.minimum(np.arange(2, pixels + 2, 2), pixels)
    lead = _lead(done * layer.outputs, starts[np.minimum(done, pixels - 1)], source)
    fields: dict[str, Value] = {
        "depth": depth,
        "rows": rows,
        "columns": columns,
        "row_bytes": strides[0],
        "column_bytes": strides[1],
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
            size = (1, math.prod(source[:3]))
            return _pointwise(op, layer, size, (0, source[3]), math.prod(source))
        if source[0] == 1:
            strides = (op.stride[0] * row, op.stride[1] * source[3])
            return _pointwise(op, layer, result[1:3], strides, math.prod(source))
    if _suits_band(op, weight.shape, result):
        return _band_convolution(op, layer, weight.shape, source, result)
    return _ring_convolution(op, layer, weight.shape, source, result)


def _suits_band(op: ir.Conv2D, weight: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether windows are best laid out as one run each: rows that are few bytes, or no words.

    Where rows of outputs have an odd number of columns, the ring pairs the last one with the
    next row's first.
    """
    run = weight[2] * weight[3]
    short = run % 4 != 0 or run <= SHORT_RUN
    return short and op.dilation == (1, 1) and weight[3] <= 4 and result[2] % 2 == 0


def _band_convolution(
    op: ir.Conv2D,
    layer: _Layer,
    weight: tuple[int, ...],
    source: tuple[int, int, int, int],
    result: tuple[int, int, int, int],
) -> Call:
    count, height, width, channels = source
    outputs, kernel_height, kernel_width, _ = weight
    depth = layer.rows.shape[1]
    by_column = layer.rows.reshape(weight).transpose(0, 2, 1, 3).reshape(outputs, depth)
    layer = replace(layer, rows=np.ascontiguousarray(by_column))
    reach = (result[2] - 1) * op.stride[1] + kernel_width
    columns = max(reach, op.padding.left + width)
    # What a last window's last word, or a store of four bytes, reaches beyond.
    band = _ceil(columns * kernel_height * channels + 3, 4)
    words = _ceil(depth, 4) // 4
    fields: dict[str, Value] = {
        "zero": layer.zero,
        "in_rows": height,
        "in_columns": width,
        "channels": channels,
        "top": op.padding.top,
        "left": op.padding.left,
        "window_rows": kernel_height,
        "words": words,
        "row_stride": op.stride[0],
        "step": op.stride[1] * kernel_height * channels,
        "out_rows": result[1],
        "out_columns": result[2],
        "band_bytes": band,
        "images": count,
    }
    macs = math.prod(result) * depth
    scratch = _pair_bytes(depth) + band
    call = _call(op, layer, _Kernel("band", layer.form), fields, scratch, macs)
    rows, image = np.arange(result[1]), np.arange(count)[:, None]
    written = (image * result[1] + rows + 1) * result[2] * result[3]
    first = np.clip((rows + 1) * op.stride[0] - op.padding.top, 0, height)
    needed = (image * height + first) * width * channels
    needed[:, -1] = (image[:, 0] + 1) * height * width * channels
    lead = _lead(written.reshape(-1), needed.reshape(-1), math.prod(source))
    return replace(call, overlaps={op.inputs[0]: lead})


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
    join = run % 4 != 0 or run <= SHORT_RUN
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
    call = _call(op, layer, _Kernel("conv", layer.form), fields, scratch, macs)
    rows = np.arange(result[1])
    loaded = np.clip(rows * op.stride[0] + ring_rows - op.padding.top, 0, height)
    image = np.arange(count)[:, None]
    written = (image * result[1] + rows + 1) * result[2] * result[3]
    needed = (image * height + loaded) * width * channels
    # A later image is read from its first row on, even where this one's last rows are not.
    needed[:, -1] = (image[:, 0] + 1) * height * width * channels
    lead = _lead(written.reshape(-1), needed.reshape(-1), math.prod(source))
    return replace(call, overlaps={op.inputs[0]: lead})


def _uniform(op: ir.FullyConnected, site: Site) -> Call | None:
    """One row of whole words and one multiplier for all channels: per channel only a bias."""
    layer = _layer(op, site, apart=False)
    if isinstance(layer, str) or layer.form is not BYTES:
        return None
    outputs, depth = layer.rows.shape
    pair = layer.tail.channels.uniform
    rows = site.tensor(op.inputs[0]).elements // depth
    whole = depth % 4 == 0 and max(outputs, depth // 4) < 1 << 16
    shift = 0 if pair is None else pair[1] & 0xFF
    if pair is None or rows > 1 or not whole or shift == 0 or layer.tail.limits != (-128, 127):
        return None
    starts = layer.tail.channels.starts(8, BYTES.shared)
    fields: tuple[tuple[str, Value], ...] = (
        ("weights", Array(BYTES.pack(layer.rows, 8), Role.WEIGHTS)),
        ("words", depth // 4),
        ("count", outputs),
        ("multiplier", pair[0]),
        ("rounding", int(np.uint32(pair[1]).view(np.int32))),
        ("biases", Array(starts, Role.BIAS)),
    )
    return Call(
        name=op.name,
        kind=op.kind,
        function="es_dsp_fully_connected_uniform_s8",
        sources=("dsp/dsp_fully_connected_uniform_s8.c",),
        arguments=Struct("es_dsp_fully_connected_uniform_args", fields),
        reads=(op.inputs[0],),
        writes=(op.output,),
        macs=layer.rows.size,
    )


@lowers(ir.FullyConnected, kernels=KernelSet.DSP)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call | Declined:
    """One row straight from its bytes; several rows as the pixels of a 1x1 convolution."""
    uniform = _uniform(op, site)
    if uniform is not None:
        return uniform
    layer = _layer(op, site)
    if isinstance(layer, str):
        return Declined(layer)
    depth = layer.rows.shape[1]
    rows = site.tensor(op.inputs[0]).elements // depth
    if rows > 1 or not layer.form.rows:
        if depth % 4 == 0:
            return _pointwise(op, layer, (1, rows), (0, depth), rows * depth)
        same = ir.Conv2D(op.name, op.inputs, op.outputs, activation=op.activation)
        shapes = ((layer.outputs, 1, 1, depth), (1, 1, rows, depth), (1, 1, rows, layer.outputs))
        return replace(_ring_convolution(same, layer, *shapes), kind=op.kind)
    variant, scratch = ("_padded", _ceil(depth, 4)) if depth % 4 else ("", 0)
    kernel = _Kernel("fully_connected", layer.form, 8, variant)
    fields: dict[str, Value] = {"depth": depth, "rows": rows}
    return _call(op, layer, kernel, fields, scratch, rows * layer.rows.size)
