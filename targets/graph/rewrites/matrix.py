"""Matrix products as a target's other kernels compute them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Op, Quantization
from edgesmith.targets.graph.rewriting import Editor, Rule


@dataclass(frozen=True)
class PerChannelAsConvolution(Rule):
    """A fully connected layer with a scale per channel -> reshape, 1x1 convolution, reshape.

    y[n, o] = sum_i x[n, i] w[o, i] is the 1x1 convolution of x seen as [n, 1, 1, i].
    For targets whose fully connected kernel takes one weight scale only. The
    products and sums are the same; rounding is the convolution's.
    """

    name: ClassVar[str] = "per-channel-as-convolution"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.FullyConnected,)

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, ir.FullyConnected)
        weight = editor.operand(op, 1)
        if weight.data is None:
            return "computes its weight"
        if weight.quantization is None or not weight.quantization.is_per_channel:
            return "has one weight scale"
        return None if editor.readers(weight.name) == 1 else "shares its weight"

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, ir.FullyConnected)
        source, weight = editor.operand(op, 0), editor.operand(op, 1)
        assert weight.data is not None
        outputs, width = weight.shape
        rows = source.elements // width
        kernel = (outputs, 1, 1, width)
        editor.tensors[weight.name] = replace(
            weight,
            shape=kernel,
            data=weight.data.reshape(kernel),
            quantization=Quantization(weight.q.scale, weight.q.zero_point, 0),
        )
        image = (rows, 1, 1, width)
        seen = editor.add_tensor(replace(source, name=f"{op.output}/image", shape=image, data=None))
        editor.insert(ir.Reshape, (source.name,), seen, shape=image)
        result = editor[op.output]
        pixel = (rows, 1, 1, outputs)
        made = editor.add_tensor(replace(result, name=f"{op.output}/pixel", shape=pixel))
        inputs = (seen, *op.inputs[1:])
        editor.insert(ir.Conv2D, inputs, made, activation=op.activation)
        editor.emit(ir.Reshape(op.name, (made,), op.outputs, result.shape))
