"""Does an artifact compute what the reference executor defines, operator by operator?

Teacher-forced on the artifact's own trace: every operator's reference output is
computed from the inputs that the artifact saw, so errors do not accumulate and
one operator's fault is found where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import KernelMismatchError
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.reference import PROFILES, run_op

Codes = npt.NDArray[np.integer]

_TOLERANCE = 0.01


@dataclass(frozen=True)
class OpAgreement:
    """One operator of an artifact against the reference: largest difference, share that differs."""

    op: str
    kind: str
    max_lsb: int
    differing: float
    budget_lsb: int


def agreements(
    graph: Graph, trace: Mapping[str, Codes], description: TargetDescription
) -> Iterator[OpAgreement]:
    """Compare every operator whose result the trace has.

    A result that the artifact does not show (a reordering that its file stores
    otherwise) is computed by the reference, so that its readers are compared too.

    Args:
        trace: tensor name -> codes [samples, *shape], as the artifact computed them;
            with the graph inputs.
    """
    profile = PROFILES[description.rounding_profile]
    values: dict[str, npt.NDArray[np.generic]] = dict(trace)
    for op in graph.ops:
        expected = run_op(graph, op, values, profile)
        if op.output not in trace:
            values[op.output] = expected
            continue
        difference = np.abs(trace[op.output].astype(np.int64) - expected.astype(np.int64))
        budget = description.lsb(op.kind, graph[op.output].dtype)
        yield OpAgreement(
            op.name, op.kind, int(difference.max(initial=0)), float(np.mean(difference > 0)), budget
        )


def require_agreement(
    graph: Graph, trace: Mapping[str, Codes], description: TargetDescription
) -> tuple[OpAgreement, ...]:
    """All comparisons, if every operator is within the target's budget.

    Raises:
        KernelMismatchError: names the operators that are not.
    """
    found = tuple(agreements(graph, trace, description))
    beyond = [each for each in found if each.max_lsb > each.budget_lsb]
    if beyond:
        named = "; ".join(
            f"{each.kind} {each.op!r} differs by {each.max_lsb} LSB where {each.budget_lsb} "
            f"are allowed ({100 * each.differing:.2g} % of elements)"
            for each in beyond[:5]
        )
        raise KernelMismatchError(
            f"{len(beyond)} of {len(found)} operators on {description.name!r} compute other codes "
            f"than the reference executor: {named}",
            fix="this is a defect of the runtime or of a converter: check the runtime's version, "
            "and report it with the model",
        )
    return found


def require_same_outputs(
    deployed: npt.NDArray[Any], reference: npt.NDArray[Any], target: str
) -> None:
    """Compare the outputs of an artifact without an IntegerGraph, [samples, ...] each.

    Sums in another order move values that lie between two codes to the other one, and layers
    behind carry that on: so single samples may differ, but not half of them.

    Raises:
        KernelMismatchError: the median over samples of the largest difference is more than
            1 % of the largest output.
    """
    difference = np.abs(deployed - reference).reshape(len(deployed), -1).max(axis=1)
    largest = float(np.abs(reference).max())
    if not float(np.median(difference)) <= _TOLERANCE * largest:
        raise KernelMismatchError(
            f"outputs on {target!r} differ from the same file without graph optimizations by"
            f" {float(np.median(difference)):.3g} at the median, of {largest:.3g} at most",
            fix="this is a defect of the runtime: check its version, and report it with the model",
        )


def require_same_codes(
    graph: Graph,
    deployed: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, npt.NDArray[Any]],
    description: TargetDescription,
) -> dict[str, float]:
    """Compare the bit patterns of 8-bit floats, where a target says how many may differ.

    Args:
        deployed, reference: tensor -> dequantized values [samples, ...]. A tensor has one scale,
            so its values are equal where its codes are.

    Returns:
        Tensor -> share of codes that differ.

    Raises:
        KernelMismatchError: more codes of a tensor differ than the description allows.
    """
    budget = description.differing_codes
    shares = {
        name: float(np.mean(values != reference[name]))
        for name, values in deployed.items()
        if name in reference and graph[name].dtype.is_float8
    }
    if budget is None or not shares:
        return shares
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] > budget:
        raise KernelMismatchError(
            f"{100 * shares[worst]:.3g} % of the codes of {worst!r} on {description.name!r} differ "
            f"from the reference executor's, where {100 * budget:g} % are allowed",
            fix="this is a defect of the runtime or its driver: check their versions, and report"
            " it with the model",
        )
    return shares
