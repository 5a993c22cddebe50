"""Matrix products as a target's other kernels compute them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Op, Quantization, Tensor
from edgesmith.targets.graph.rewriting import Editor, Rule


@dataclass(frozen=True)
class PerChannelAsConvolution(Rule):
    """A fully connected layer with a scale per channel -> reshape, 1x1 convolution, reshape.

    y[n, o] = sum_i x[n, i] w[o, i] is the 1x1 convolution of x seen as [n, 1, 1, i].
    For targets whose fully connected kernel takes one weight scale only. The
    products and sums are the same; rounding is the convolution's.

    Args:
        taken: (activation, weight) types that the target's convolution takes per channel.
    """

    name: ClassVar[str] = "per-channel-as-convolution"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.FullyConnected,)

    taken: frozenset[tuple[str, str]] = frozenset()

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, ir.FullyConnected)
        weight = editor.operand(op, 1)
        if weight.data is None:
            return "computes its weight"
        if weight.quantization is None or not weight.quantization.is_per_channel:
            return "has one weight scale"
        if (editor.operand(op, 0).dtype.value, weight.dtype.value) not in self.taken:
            return "has types that no convolution takes"
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


@dataclass(frozen=True)
class SplitFullyConnected(Rule):
    """slice(W x + b) of output features -> slice(W) x + slice(b), where slices are all it is for.

    So attention's queries, keys and values are computed where they are needed, and the
    tensor that held all of them goes. The products and sums are the same.
    """

    name: ClassVar[str] = "split-fully-connected"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.StridedSlice,)

    def _cut(self, op: Op, editor: Editor) -> slice | None:
        """The output features that a slice takes, if it takes nothing else away."""
        assert isinstance(op, ir.StridedSlice)
        shape = editor.operand(op, 0).shape
        whole = op.begin[:-1] == (0,) * (len(shape) - 1) and op.end[:-1] == shape[:-1]
        return slice(op.begin[-1], op.end[-1]) if whole and set(op.stride) == {1} else None

    def check(self, op: Op, editor: Editor) -> str | None:
        source = op.inputs[0]
        product = editor.producer(source)
        if not isinstance(product, ir.FullyConnected) or not editor.removable(source):
            return "does not follow a fully connected layer whose result may go"
        if any(editor[name].data is None for name in filter(None, product.inputs[1:])):
            return "follows a layer that computes its weight"
        width, taken = editor[source].shape[-1], 0
        for reader in editor.graph.consumers[source]:
            cut = self._cut(reader, editor) if isinstance(reader, ir.StridedSlice) else None
            if cut is None:
                return "shares the layer with other readers"
            taken += cut.stop - cut.start
        return "would compute features twice" if taken > width else None

    def rewrite(self, op: Op, editor: Editor) -> None:
        product = editor.producer(op.inputs[0])
        cut = self._cut(op, editor)
        assert isinstance(product, ir.FullyConnected)
        assert cut is not None
        names = [
            editor.add_tensor(_sliced(editor[name], cut, f"{op.output}/{name}")) if name else ""
            for name in product.inputs[1:]
        ]
        if editor.read_once(op.inputs[0]):
            editor.drop(product)
        inputs = (product.inputs[0], *names)
        editor.emit(replace(product, name=op.name, inputs=inputs, outputs=op.outputs))


def _sliced(tensor: Tensor, cut: slice, name: str) -> Tensor:
    """Some of the first axis' entries of a constant, with their scales."""
    assert tensor.data is not None
    data = tensor.data[cut].copy()
    quantization = tensor.quantization
    if quantization is not None and quantization.axis is not None:
        scale, zero = quantization.scale[cut], quantization.zero_point[cut]
        quantization = Quantization(scale, zero, quantization.axis)
    return replace(tensor, name=name, shape=data.shape, data=data, quantization=quantization)


@dataclass(frozen=True)
class TransposeAsAdjoint(Rule):
    """x @ transpose(y), last two axes swapped -> x @ y with y adjoint; the same for x.

    The products and sums are the same. The transposed tensor goes if nobody else reads it.
    """

    name: ClassVar[str] = "transpose-as-adjoint"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.BatchMatMul,)

    def _swapped(self, name: str, editor: Editor) -> Op | None:
        """The transpose of the last two axes that makes a tensor which may go."""
        op = editor.producer(name)
        rank = len(editor[name].shape)
        swap = (*range(rank - 2), rank - 1, rank - 2)
        if not isinstance(op, ir.Transpose) or op.permutation != swap:
            return None
        return op if editor.read_once(name) else None

    def check(self, op: Op, editor: Editor) -> str | None:
        if any(self._swapped(name, editor) for name in op.inputs):
            return None
        return "multiplies no transposed tensor that may go"

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, ir.BatchMatMul)
        adjoint = [op.adjoint_x, op.adjoint_y]
        inputs = list(op.inputs)
        for position, name in enumerate(op.inputs):
            inner = self._swapped(name, editor)
            if inner is not None:
                editor.drop(inner)
                inputs[position] = inner.inputs[0]
                adjoint[position] = not adjoint[position]
        editor.emit(replace(op, inputs=tuple(inputs), adjoint_x=adjoint[0], adjoint_y=adjoint[1]))
