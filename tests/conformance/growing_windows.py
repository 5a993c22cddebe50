"""Steps of random graphs that move a window: convolutions and pools."""

from __future__ import annotations

import math

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Padding, Pair
from edgesmith.targets.graph.padding import output_size, same_padding
from tests.conformance.growing import Growing


def _window(g: Growing) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride, dilation that fit some padding of at most the kernel less one."""
    high, wide = g.x.shape[1:3]
    kernel = (g.integer(1, min(4, high + 1)), g.integer(1, min(4, wide + 1)))
    stride = (g.integer(1, 3), g.integer(1, 3))
    dilation = (g.integer(1, 2), g.integer(1, 2)) if g.chance(0.15) else (1, 1)
    return kernel, stride, dilation


def _padding(g: Growing, kernel: Pair) -> Padding:
    if g.chance(0.4):
        return Padding()
    high, wide = kernel[0] - 1, kernel[1] - 1
    return Padding(g.integer(0, high), g.integer(0, high), g.integer(0, wide), g.integer(0, wide))


def _fits(
    g: Growing, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> bool:
    high, wide = g.x.shape[1:3]
    return min(output_size((high, wide), kernel, stride, padding, dilation)) >= 1


def conv(g: Growing) -> bool:
    x = g.x
    if len(x.shape) != 4:
        return False
    kernel, stride, dilation = _window(g)
    padding = _padding(g, kernel)
    if not _fits(g, kernel, stride, padding, dilation):
        return False
    divisors = [each for each in range(2, x.shape[3] + 1) if x.shape[3] % each == 0]
    groups = g.pick(divisors) if divisors and g.chance(0.35) else 1
    outputs = g.integer(1, max(1, 9 // groups)) * groups
    name, made = g.names()
    shape = (outputs, *kernel, x.shape[3] // groups)
    names = g.weights(shape, 0, math.prod(shape[1:]))
    bias = names[1] if g.chance(0.9) else ""
    operands = (x.name, names[0], bias)
    g.add(ir.Conv2D(name, operands, made, stride, dilation, padding, groups, g.activation()))
    return True


def depthwise(g: Growing) -> bool:
    x = g.x
    if len(x.shape) != 4:
        return False
    kernel, stride, dilation = _window(g)
    if g.chance(0.5):
        kernel, dilation = (3, 3), (1, 1)
        stride = (1, 1) if g.chance(0.5) else (2, 2)
    padding = _padding(g, kernel)
    if not _fits(g, kernel, stride, padding, dilation):
        return False
    factor = g.integer(2, 3) if g.chance(0.2) else 1
    name, made = g.names()
    operands = (x.name, *g.weights((1, *kernel, x.shape[3] * factor), 3, math.prod(kernel)))
    act = g.activation()
    g.add(ir.DepthwiseConv2D(name, operands, made, stride, dilation, padding, factor, act))
    return True


def pool(g: Growing) -> bool:
    x = g.x
    if len(x.shape) != 4:
        return False
    kernel, stride, _ = _window(g)
    kind = ir.AveragePool2D if g.chance(0.5) else ir.MaxPool2D
    if kind is ir.MaxPool2D:
        padding = _padding(g, kernel)
    else:  # other paddings have no meaning for averages in most runtimes
        same = same_padding((x.shape[1], x.shape[2]), kernel, stride)
        padding = same if g.chance(0.4) else Padding()
    if not _fits(g, kernel, stride, padding):
        return False
    name, made = g.names()
    g.add(kind(name, (x.name,), made, kernel, stride, padding, g.activation()), g.mostly(x.q))
    return True
