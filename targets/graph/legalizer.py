"""IntegerGraph -> an IntegerGraph that a target takes, or one error that lists why not.

The target's description says what it takes; nothing here knows a target by name.
`rewrite` applies the rules of `rewrites/` in an order in which each finds what it
needs; `check` compares every operator with the description; `legalize` does both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Tensor
from edgesmith.targets.graph.rewrites.clamps import ClipAsRelu, DropIdleClip
from edgesmith.targets.graph.rewrites.matrix import (
    PerChannelAsConvolution,
    SplitFullyConnected,
    TransposeAsAdjoint,
)
from edgesmith.targets.graph.rewrites.movement import (
    DropIdle,
    MergeReshapes,
    MergeTransposes,
    TransposeAsReshape,
)
from edgesmith.targets.graph.rewrites.padding import (
    WINDOWED,
    ExplicitPadding,
    TrimPadding,
    padding_scheme,
)
from edgesmith.targets.graph.rewrites.scales import (
    AverageAsDepthwise,
    FixedScale,
    ShareConcatScale,
    ShareScale,
)
from edgesmith.targets.graph.rewriting import Rule, apply, without_dead_code

WEIGHTED = (ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected)
_RESCALING = (ir.Quantize, ir.Dequantize)


@dataclass(frozen=True)
class Refusal:
    """Why a target does not take one operator, and what would help."""

    op: str
    kind: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.kind} {self.op!r} {self.reason} (fix: {self.fix})"


def rules_for(description: TargetDescription) -> tuple[Rule, ...]:
    """The rewrites that a target needs, in order."""
    rules: list[Rule] = [TrimPadding()]
    if not description.explicit_padding:
        rules.append(ExplicitPadding())
    if "DepthwiseConv2D" in description.ops:
        rules.append(AverageAsDepthwise())
    rules.append(SplitFullyConnected())
    taken = _per_channel_types(description, "Conv2D")
    if taken and not _per_channel_types(description, "FullyConnected"):
        rules.append(PerChannelAsConvolution(taken))
    rules += [
        ShareScale(),
        ShareConcatScale(),
        FixedScale(),
        DropIdleClip(),
        ClipAsRelu(),
        TransposeAsAdjoint(),
        MergeTransposes(),
        TransposeAsReshape(),
        DropIdle(),
        MergeReshapes(),
        DropIdle(),
    ]
    return tuple(rules)


def _per_channel_types(description: TargetDescription, kind: str) -> frozenset[tuple[str, str]]:
    """Activation and weight types that an operator kind takes with a scale per channel."""
    forms = description.ops.get(kind, ())
    return frozenset((form.activation, str(form.weight)) for form in forms if form.per_channel)


def rewrite(
    graph: Graph, description: TargetDescription, *, keep: Collection[str] | None = None
) -> Graph:
    """The graph with everything rewritten that the target needs otherwise.

    Args:
        graph: a verified graph, integer or float.
        description: what the target takes.
        keep: tensors that must not disappear; None keeps all that the graph has, so
            that parity and drift reports find them.

    Raises:
        ModelFileError: the graph breaks an invariant.
    """
    alive = without_dead_code(graph)
    kept = tuple(alive.tensors) if keep is None else tuple(keep)
    return apply(alive, rules_for(description), kept)


def legalize(
    graph: Graph, description: TargetDescription, *, keep: Collection[str] | None = None
) -> Graph:
    """Rewrite for a target, then check; arguments as `rewrite` has them.

    Raises:
        TargetUnsupportedError: lists every operator that the target does not take.
        ModelFileError: the graph breaks an invariant.
    """
    legal = rewrite(graph, description, keep=keep)
    check(legal, description)
    return legal


def used_format(op: Op, graph: Graph) -> OpFormat:
    """The storage types that an operator uses; weight, bias and output None where it has none.

    The output's type is one of them only where it may be another than the input's.
    """
    operands = graph.operands(op)
    source = operands[0]
    assert source is not None
    if isinstance(op, ir.Quantize):
        return OpFormat(source.dtype.value, output=graph[op.output].dtype.value)
    if not isinstance(op, WEIGHTED):
        return OpFormat(source.dtype.value)
    weight, bias = operands[1], operands[2] if len(operands) > 2 else None
    assert weight is not None
    per_channel = weight.quantization is not None and weight.quantization.is_per_channel
    return OpFormat(
        source.dtype.value, weight.dtype.value, bias.dtype.value if bias else None, per_channel
    )


def takes(offered: OpFormat, used: OpFormat) -> bool:
    """Whether one offered combination covers what an operator uses.

    Per-channel kernels take one scale as well; an absent bias fits every kernel, and a
    combination that names no output fits every output.
    """
    return (
        offered.activation == used.activation
        and offered.weight == used.weight
        and used.bias in (None, offered.bias)
        and (offered.per_channel or not used.per_channel)
        and offered.output in (None, used.output)
    )


def check(graph: Graph, description: TargetDescription) -> None:
    """Compare every operator with what the target takes.

    Operators of float twins are compared by kind alone.

    Raises:
        TargetUnsupportedError: lists every operator with reason and fix.
    """
    refusals = [refusal for op in graph.ops for refusal in _refusals(op, graph, description)]
    if not refusals:
        return
    lines = "".join(f"\n  - {refusal}" for refusal in refusals)
    raise TargetUnsupportedError(
        f"{description.name!r} does not take {len(refusals)} operators of {graph.name!r}:{lines}",
        fix="apply the fix that stands behind each of them, or choose another target",
    )


def _refusals(op: Op, graph: Graph, description: TargetDescription) -> Iterator[Refusal]:
    def refusal(reason: str, fix: str) -> Refusal:
        return Refusal(op.name, op.kind, reason, fix)

    offered = description.ops.get(op.kind)
    if offered is None:
        yield refusal("is not among its operators", "replace it in the model")
        return
    if isinstance(op, WINDOWED) and not (
        (description.explicit_padding and not isinstance(op, ir.AveragePool2D))
        or padding_scheme(op, graph)
    ):
        yield refusal(
            f"pads {op.padding}, which is neither SAME nor VALID",
            "pad with an operator of its own, or count padded positions",
        )
    used = used_format(op, graph)
    if used.activation == DType.FLOAT32:
        return
    if not any(takes(item, used) for item in offered):
        alike = [item for item in offered if item.activation == used.activation] or offered
        choices = "; ".join(dict.fromkeys(_words(item) for item in alike)) or "nothing"
        change = "give both sides one type: " if used.output not in (None, used.activation) else ""
        yield refusal(f"uses {_words(used)}", f"{change}it takes {choices}")
    for reason, fix in _misfits(op, graph):
        yield refusal(reason, fix)


def _words(form: OpFormat) -> str:
    if form.output is not None:
        return f"{form.activation} activations in and {form.output} out"
    if form.weight is None:
        return f"{form.activation} activations"
    scales = "per channel" if form.per_channel else "per tensor"
    bias = f" and {form.bias} bias" if form.bias else ""
    return f"{form.activation} activations with {form.weight} weights {scales}{bias}"


def _misfits(op: Op, graph: Graph) -> Iterator[tuple[str, str]]:
    """What no kernel takes, whatever the target: mixed types, odd zero points, other biases."""
    if isinstance(op, _RESCALING):
        return
    activations = [graph[name] for name in op.outputs]
    operands = [tensor for tensor in graph.operands(op) if tensor is not None]
    activations += operands[:1] if isinstance(op, (*WEIGHTED, ir.LayerNorm)) else operands
    types = dict.fromkeys(str(tensor.dtype) for tensor in activations)
    if len(types) > 1:
        yield (
            f"mixes {' and '.join(types)} activations",
            "give them one type, or requantize between",
        )
    for tensor in activations:
        if tensor.dtype is DType.INT16 and np.any(tensor.q.zero_point):
            yield (
                f"has int16 tensor {tensor.name!r} with a zero point",
                "quantize int16 activations symmetrically",
            )
    if isinstance(op, WEIGHTED) and len(operands) > 2:
        yield from _bias_misfit(*operands[:3])


def _bias_misfit(source: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[str, str]]:
    if bias.quantization is None:
        return
    expected = np.asarray(source.q.scalar[0] * weight.q.scale, np.float32)
    given = bias.quantization.scale
    if given.shape != expected.shape or not np.allclose(given, expected, rtol=1e-6, atol=0.0):
        yield (
            f"has a bias {bias.name!r} whose scale is not input scale * weight scale",
            "store biases as int32 codes of that scale, or as float32",
        )
