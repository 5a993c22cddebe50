"""What the matrix kernels for DSP cores share: weight formats, layers and their calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c import packing
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.dsp_tail import DspTail, channel_tail
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.program import Array, Call, Overlap, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import linear

Misfit = Callable[[packing.Codes, DspTail], str | None]


@dataclass(frozen=True)
class Format:
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


WIDE = Format("wide_s8", packing.pack_matrix_wide, (1,), "expand", _no_misfit, rows=False)
BYTES = Format("s8", packing.pack_matrix_s8, packing.BYTE_PAIR, "expand", _byte_misfit)
NIBBLES = Format("s4", packing.pack_matrix_s4, packing.NIBBLES, "expand_summed", _nibble_misfit)

# Weight type -> formats, the best first; the last takes everything.
FORMATS = {DType.INT8: (BYTES, WIDE), DType.INT4: (NIBBLES, BYTES, WIDE)}


@dataclass(frozen=True)
class Kernel:
    """A kernel in one format: its argument struct, its files, and channels at a time."""

    name: str
    form: Format
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
class Layer:
    """What every lowering here starts from: weights [O, K], their format and their tail."""

    rows: packing.Codes
    form: Format
    tail: DspTail
    zero: int

    @property
    def outputs(self) -> int:
        return len(self.rows)

    def shared_fields(self, group: int) -> tuple[tuple[str, Value], ...]:
        weights = Array(self.form.pack(self.rows, group), Role.WEIGHTS)
        return (("weights", weights), ("outputs", self.tail.struct(group, self.form.shared)))


def matrix_layer(op: ir.Op, site: Site, *, apart: bool = True) -> Layer | str:
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
    return Layer(rows, form, found, zero)


def kernel_call(
    op: ir.Op, layer: Layer, kernel: Kernel, fields: dict[str, Value], scratch: int, macs: int
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
        scratch_bytes=ceil_to(scratch, 8),
        macs=macs,
    )


def ceil_to(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def pair_bytes(depth: int) -> int:
    """Scratch of two expanded pixels: 16-bit elements, and their sums for int4."""
    return 8 + 4 * ceil_to(depth, 4)


def lead_of(written: npt.NDArray[np.int64], needed: npt.NDArray[np.int64], nothing: int) -> Overlap:
    """`written[i]`: output bytes once step i is done; `needed[i]`: first input byte read later."""
    return Overlap(int((written[:-1] - needed[:-1]).max(initial=-nothing)))
