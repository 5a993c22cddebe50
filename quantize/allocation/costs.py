"""What formats cost by shapes alone: stored weight bytes and bit operations.

Bit operations of a layer are its multiply-accumulates times bits of a weight times bits of an
activation (HAWQ-V3, arXiv:2011.10680; FLIQS counts the same); of a product of two
activations, bits of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.network import Network, shapes
from edgesmith.quantize.ops import Conv, Linear, MatMul

WEIGHT_BYTES = "weight-bytes"
BIT_OPERATIONS = "bit-operations"
UNITS: Mapping[str, str] = {WEIGHT_BYTES: "bytes", BIT_OPERATIONS: "bit operations"}

_STORED_BITS = (2, 4, 8, 16)


def stored_bits(fmt: QFormat) -> int:
    """Bits that one code takes in model files: the next of 2, 4, 8 and 16."""
    return next(bits for bits in _STORED_BITS if bits >= fmt.bits)


def weight_bytes(elements: int, fmt: QFormat) -> int:
    """Packed bytes of a weight tensor; scales and biases cost the same in every format."""
    return -(-elements * stored_bits(fmt) // 8)


def multiply_accumulates(network: Network, sample_shape: tuple[int, ...]) -> dict[str, int]:
    """Layers and matrix products -> multiply-accumulates of one sample."""
    outputs = shapes(network, sample_shape)
    found = {}
    for step in network.steps:
        op = step.op
        if isinstance(op, Conv):
            per_output = math.prod(op.kernel) * op.in_channels // op.groups
        elif isinstance(op, Linear):
            per_output = op.in_features
        elif isinstance(op, MatMul):
            sizes = (outputs[n] if n in outputs else network.constant(n).shape for n in step.inputs)
            per_output = int(next(sizes)[-1])
        else:
            continue
        found[step.name] = math.prod(outputs[step.name]) * per_output
    return found
