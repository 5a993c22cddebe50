"""How far each layer drifts from one form of the model to the next.

Forms, in order: float, fake-quantized, the exported file in ONNX Runtime, fake-quantized
with a device's rounding (where the target has it), the reference executor, the deployed
artifact. A trace maps tensor names to real values [samples, ...] in the source model's axis
order, so forms compare element by element.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.results import DriftEdge, LayerRow
from edgesmith.pipeline.values import FLOAT8_STORAGE
from edgesmith.targets.graph.costs import macs, weight_bits, weight_bytes
from edgesmith.targets.graph.ir import Graph, Layout, Tensor

Reals = npt.NDArray[np.floating]
Trace = Mapping[str, Reals]
Codes = npt.NDArray[np.integer]

_WORST = 5


@dataclass(frozen=True)
class TraceOrder:
    """How the graph orders tensors, by name, where the source model orders them otherwise."""

    layouts: dict[str, Layout]


def real_values(tensor: Tensor, codes: Codes, layout: Layout | None = None) -> Reals:
    """Codes [samples, *IR shape] as real values [samples, elements] in the source's order.

    What is real already stays as it is.
    """
    if codes.dtype.kind == "f":
        return np.asarray(codes, np.float64).reshape(len(codes), -1)
    scale, zero = tensor.q.scalar
    reals = (codes.astype(np.float64) - zero) * np.float64(scale)
    ordered = reals if layout is None else layout.to_source(reals, (-1,))
    return np.asarray(ordered, np.float64).reshape(len(codes), -1)


def trace_of_codes(graph: Graph, codes: Mapping[str, Codes], order: TraceOrder) -> dict[str, Reals]:
    """The trace of a run that gave codes."""
    return {
        name: real_values(graph[name], array, order.layouts.get(name))
        for name, array in codes.items()
        if name in graph.tensors
    }


def edge(name: str, before: Reals, after: Reals, scale: float) -> DriftEdge:
    """Drift of one tensor. Shapes may differ in axes of length 1 only.

    SQNR is 10 log10(sum(before^2) / sum((before - after)^2)), None where nothing differs.
    """
    reference = before.astype(np.float64).reshape(-1)
    difference = np.abs(after.astype(np.float64).reshape(-1) - reference)
    lsb = difference / scale
    noise = float(np.sum(difference**2))
    signal = float(np.sum(reference**2))
    sqnr = None if noise == 0.0 or signal == 0.0 else float(10 * np.log10(signal / noise))
    # Half an LSB is what rounding the same code to float32 and back may show.
    return DriftEdge(
        edge=name,
        max_lsb=float(lsb.max(initial=0.0)),
        mean_lsb=float(lsb.mean()) if lsb.size else 0.0,
        differing=float(np.mean(lsb >= 0.5)) if lsb.size else 0.0,
        sqnr_db=sqnr,
    )


def layer_rows(graph: Graph, traces: Sequence[tuple[str, Trace]]) -> tuple[LayerRow, ...]:
    """One row per operator, with an edge for each two consecutive forms that know the tensor."""
    rows = []
    for index, op in enumerate(graph.ops):
        tensor = graph[op.output]
        known = [(form, trace[op.output]) for form, trace in traces if op.output in trace]
        edges = tuple(
            edge(f"{form} → {next_form}", before, after, _step(tensor))
            for (form, before), (next_form, after) in pairwise(known)
            if before.size == after.size
        )
        rows.append(
            LayerRow(
                index=index,
                name=op.name,
                op=op.kind,
                output_shape=tensor.shape,
                weight_bits=weight_bits(graph, op),
                activation_bits=tensor.dtype.bits,
                macs=macs(graph, op),
                weight_bytes=weight_bytes(graph, op),
                drift=edges,
            )
        )
    return tuple(rows)


def _step(tensor: Tensor) -> float:
    """What counts as one LSB: of an 8-bit float the step below its largest value, of float32 1."""
    if tensor.quantization is None:
        return 1.0
    fmt = FLOAT8_STORAGE.get(tensor.dtype.value)
    if fmt is None:
        return float(tensor.q.scalar[0])
    top = math.frexp(fmt.largest)[1] - 1
    return float(tensor.q.scalar[0]) * 2.0 ** (top - fmt.mantissa_bits)


def worst_layers(rows: Sequence[LayerRow]) -> tuple[str, ...]:
    """Names of the layers that quantization harms most, worst first.

    Judged by the SQNR of the first edge that the model has (float to fake-quantized;
    for a file, reference to deployed); layers without that edge are not compared.
    """
    edges = list(dict.fromkeys(each.edge for row in rows for each in row.drift))
    first = next((name for name in edges if name.startswith("float ")), next(iter(edges), ""))
    measured = [
        (each.sqnr_db, row.name)
        for row in rows
        for each in row.drift
        if each.edge == first and each.sqnr_db is not None
    ]
    return tuple(name for _, name in sorted(measured)[:_WORST])
