"""Why an image does not fit in flash, in words: which layers hold the bytes, what would help."""

from __future__ import annotations

from edgesmith.pipeline.errors import DoesNotFitError
from edgesmith.targets.c.compiler import Compiled
from edgesmith.targets.c.program import Role
from edgesmith.targets.c.text import arrays_in, shown

_SHOWN = 5


def layer_bytes(compiled: Compiled) -> dict[str, int]:
    """Call name -> bytes of its weights; an array that calls share counts for the first."""
    seen: set[bytes] = set()
    found = {}
    for call in compiled.program.calls:
        total = 0
        for array in arrays_in(call.arguments):
            content = array.data.tobytes()
            if array.role is Role.WEIGHTS and content not in seen:
                seen.add(content)
                total += len(content)
        found[call.name] = total
    return found


def flash_shortfall(compiled: Compiled, used: int, limit: int) -> DoesNotFitError:
    """The error for an image of `used` bytes where flash has `limit`."""
    weights = layer_bytes(compiled)
    largest = sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    lines = [
        f"the image needs {used:,} bytes of flash, {used - limit:,} more than the {limit:,} there "
        "are",
        f"weights take {sum(weights.values()):,} of them, the most in",
        *(f"  {size:>9,} bytes  {shown(name)}" for name, size in largest if size),
    ]
    needed = used - limit
    saving, chosen = 0, 0
    for _, size in largest:
        if saving >= needed:
            break
        saving += size // 2
        chosen += 1
    if saving >= needed:
        layers = "layer" if chosen == 1 else f"{chosen} layers"
        advice = f"int4 weights in the first {layers} above save {saving:,} bytes"
    else:
        advice = "int4 weights in all layers, a narrower network, or a device with more flash"
    return DoesNotFitError("\n  ".join(lines), fix=advice)
