"""Why an image does not fit in flash, in words: which layers hold the bytes, what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgesmith.pipeline.errors import DoesNotFitError
from edgesmith.targets.c.compiler import Compiled
from edgesmith.targets.c.formats import C_OPS
from edgesmith.targets.c.lowerings import sparse
from edgesmith.targets.c.program import Role
from edgesmith.targets.c.text import arrays_in, shown
from edgesmith.targets.graph.ir import DType, Graph, Op

_SHOWN = 5
_CODE = 8 * 1024  # more than the kernels of another weight type take


@dataclass(frozen=True)
class LayerWeights:
    """Bytes of a layer's weights, and how many of them int4 weights would save."""

    name: str
    bytes: int
    int4_saves: int


def layer_weights(compiled: Compiled) -> tuple[LayerWeights, ...]:
    """Of every call; an array that calls share counts for the first."""
    graph = compiled.scheduled
    ops = {op.name: op for op in graph.ops}
    seen: set[bytes] = set()
    found = []
    for call in compiled.program.calls:
        total = 0
        for array in arrays_in(call.arguments):
            content = array.data.tobytes()
            if array.role is Role.WEIGHTS and content not in seen:
                seen.add(content)
                total += len(content)
        plain = call.expanded is None and call.function != sparse.FUNCTION
        saved = _int4_saves(graph, ops.get(call.name)) if total and plain else 0
        found.append(LayerWeights(call.name, total, saved))
    return tuple(found)


def _int4_saves(graph: Graph, op: Op | None) -> int:
    """Half of the codes of int8 weights that could be int4; nothing where they are narrower."""
    if op is None or not any(form.weight == "int4" for form in C_OPS.get(op.kind, ())):
        return 0
    weight = graph[op.inputs[1]]
    return weight.elements // 2 if weight.is_constant and weight.dtype is DType.INT8 else 0


def flash_shortfall(
    compiled: Compiled, used: int, limit: int, what: str = "the image needs"
) -> DoesNotFitError:
    """The error for an image of `used` bytes where flash has `limit`."""
    weights = layer_weights(compiled)
    largest = sorted(weights, key=lambda layer: (-layer.bytes, layer.name))[:_SHOWN]
    lines = [
        f"{what} {used:,} bytes of flash, {used - limit:,} more than the {limit:,} there are",
        f"weights take {sum(each.bytes for each in weights):,} of them, the most in",
        *(f"  {each.bytes:>9,} bytes  {shown(each.name)}" for each in largest if each.bytes),
    ]
    return DoesNotFitError("\n  ".join(lines), fix=_advice(weights, used - limit))


def _advice(weights: Sequence[LayerWeights], excess: int) -> str:
    """int4 weights in the fewest layers that make it fit, where any do."""
    needed = excess + _CODE
    saving = 0
    chosen: list[str] = []
    for layer in sorted(weights, key=lambda each: (-each.int4_saves, each.name)):
        if saving >= needed or not layer.int4_saves:
            break
        saving += layer.int4_saves
        chosen.append(shown(layer.name))
    if saving >= needed:
        if len(chosen) > _SHOWN:
            where = f"the {len(chosen)} layers with most int8 weights"
        else:
            where = ", ".join(map(repr, chosen))
        return f"int4 weights in {where} save about {saving:,} bytes; or a device with more flash"
    other = "a narrower network or a device with more flash"
    if not saving:
        return f"{other}; no weights are left that could be int4"
    return f"{other}; int4 weights wherever they can be save {saving:,} bytes, too few alone"
