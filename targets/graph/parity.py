"""The parity report: every tensor as it was scored against as it ships.

The shipped side is read back from the artifact, never taken from memory.
Converters reorder constants (channels-first to channels-last); a reader records
where every element went, and parity compares along exactly that record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ParityError
from edgesmith.pipeline.results import Parity, ParityRow
from edgesmith.pipeline.values import FLOAT32
from edgesmith.quantize.formats import stored_codes
from edgesmith.quantize.searched import Role, Searched, SearchedTensor
from edgesmith.targets.graph.ir import DType, Graph, IntArray, Tensor

Array = npt.NDArray[np.generic]


def _in_shipped_order(codes: Array, positions: IntArray | None) -> Array:
    """Scored codes, flat, in the order in which the converter says that it stores them."""
    flat = codes.reshape(-1)
    return flat if positions is None else flat[positions.reshape(-1)]


def _difference(scored: SearchedTensor, shipped: Tensor, positions: IntArray | None) -> str:
    """What differs, in words; empty when nothing does."""
    if scored.dtype != shipped.dtype:
        return f"type {scored.dtype} became {shipped.dtype}"
    quantization = shipped.quantization
    if quantization is None and shipped.dtype is DType.FLOAT32:
        return _codes_difference(scored, shipped, positions)
    if quantization is None:
        return "the shipped tensor has no scale"
    if not np.array_equal(scored.scale.reshape(-1), quantization.scale):
        return f"scale {_brief(scored.scale)} became {_brief(quantization.scale)}"
    if not np.array_equal(scored.zero_point.reshape(-1), quantization.zero_point):
        return f"zero point {_brief(scored.zero_point)} became {_brief(quantization.zero_point)}"
    if (scored.axis is None) != (quantization.axis is None) and scored.scale.size > 1:
        return f"axis {scored.axis} became {quantization.axis}"
    return _codes_difference(scored, shipped, positions)


def _codes_difference(scored: SearchedTensor, shipped: Tensor, positions: IntArray | None) -> str:
    if scored.codes is None:
        return ""
    if shipped.data is None:
        return "the constant is computed at run time"
    if scored.codes.size != shipped.data.size:
        return f"{scored.codes.size} codes became {shipped.data.size}"
    expected = _in_shipped_order(scored.codes, positions)
    data = shipped.data
    if shipped.dtype is DType.FLOAT32:
        data = stored_codes(data, FLOAT32)
    differing = int(np.sum(expected != data.reshape(-1)))
    return f"{differing} of {expected.size} codes differ" if differing else ""


def _brief(values: Array) -> str:
    flat = values.reshape(-1)
    return repr(flat[0].item()) if flat.size == 1 else f"({flat[0].item()!r}, ...)"


def _rows(
    scored: Searched, shipped: Graph, positions: Mapping[str, IntArray]
) -> Iterator[ParityRow]:
    for item in scored.tensors:
        tensor = shipped.tensors.get(item.name)
        elements = item.codes.size if item.codes is not None else 0
        if tensor is None:
            yield ParityRow(
                item.name, item.role, item.dtype, elements, False, "missing from the artifact"
            )
            continue
        reason = _difference(item, tensor, positions.get(item.name))
        yield ParityRow(
            item.name, item.role, item.dtype, elements or tensor.elements, not reason, reason
        )


def _unscored(scored: Searched, shipped: Graph) -> Iterator[ParityRow]:
    """Shipped tensors that nobody scored: they take the scale of a scored one, or are zeros."""
    known = {
        (item.dtype, item.scale.tobytes(), item.zero_point.tobytes())
        for item in scored.tensors
        if item.role == "activation"
    }
    for tensor in shipped.tensors.values():
        if tensor.name in scored.by_name or tensor.quantization is None:
            continue
        quantization = tensor.quantization
        zeros = tensor.data is not None and not tensor.data.any()
        key = (
            str(tensor.dtype),
            quantization.scale.tobytes(),
            quantization.zero_point.tobytes(),
        )
        reason = "" if zeros or key in known else "its scale and zero point were never scored"
        yield ParityRow(
            tensor.name, "derived", str(tensor.dtype), tensor.elements, not reason, reason
        )


def compare(
    scored: Searched, shipped: Graph, positions: Mapping[str, IntArray] | None = None
) -> Parity:
    """Compare what was scored with what an artifact holds.

    Tensors of the artifact that were not scored (a pool's output, padding made
    explicit) must carry the scale and zero point of one that was.

    Args:
        positions: how a reader reordered constants (`Graph.positions`); a constant
            without an entry must stand in the scored order.
    """
    rows = (*_rows(scored, shipped, positions or {}), *_unscored(scored, shipped))
    different = [row for row in rows if not row.same]
    ordered = (*different, *(row for row in rows if row.same))
    return Parity(len(rows), len(different), ordered)


def as_searched(graph: Graph) -> Searched:
    """A graph that was read from a file, as the scored side: for models quantized already."""
    weights = {op.inputs[1] for op in graph.ops if len(op.inputs) > 1}
    found = []
    for tensor in graph.tensors.values():
        quantization = tensor.quantization
        if quantization is None:
            continue
        role: Role = "weight" if tensor.name in weights else "bias"
        found.append(
            SearchedTensor(
                tensor.name,
                "activation" if tensor.data is None else role,
                str(tensor.dtype),
                quantization.scale,
                quantization.zero_point,
                quantization.axis,
                None if tensor.data is None else tensor.data.astype(np.int64),
            )
        )
    return Searched(tuple(found))


def require_parity(parity: Parity, artifact: str) -> None:
    """Stop the deployment where anything differs.

    Raises:
        ParityError: names the first differing tensors.
    """
    if not parity.different:
        return
    named = "; ".join(
        f"{row.tensor!r} ({row.role}): {row.difference}" for row in parity.rows[:5] if not row.same
    )
    raise ParityError(
        f"{parity.different} of {parity.compared} tensors of {artifact} differ from what was "
        f"scored: {named}",
        fix="this is a defect in a converter, not in the model: please report it with the model; "
        "parity.json in the stage's folder lists every tensor",
    )
