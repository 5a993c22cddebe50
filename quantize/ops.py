"""The operators that can be quantized, one frozen dataclass each; its fields are its attributes.

`run` is the float definition, in torch's axis order. Five class-level facts
drive everything else, so that adding an operator needs no change elsewhere but
a normalization rule and an ONNX emitter:

- `shares_quantizer`: TFLite demands one scale and zero point for output and operands;
- `fixed_output`: TFLite fixes the output's scale and zero point (bits -> both);
- `fuses_activation`: TFLite can clamp inside the operator, before rounding;
- `homogeneous`: run(s * x) = s * run(x) for any positive scale per channel (axis 1);
- `parameters`: operand position -> format of a constant that is no activation.

Source of the first three: the TFLite 8-bit quantization specification.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesmith.pipeline.values import QFormat

FixedOutput = Mapping[int, tuple[float, int]]


@dataclass(frozen=True)
class Op:
    """Base of all operators; `kind` is the name that overrides match."""

    kind: ClassVar[str] = "op"
    shares_quantizer: ClassVar[bool] = False
    fixed_output: ClassVar[FixedOutput | None] = None
    fuses_activation: ClassVar[bool] = False
    homogeneous: ClassVar[bool] = False
    parameters: ClassVar[Mapping[int, QFormat]] = {}

    def run(self, *inputs: Tensor) -> Tensor:
        """The operator on float tensors."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What overrides match; more precise than `kind` for some operators."""
        return self.kind


@dataclass(frozen=True)
class Layer(Op):
    """An operator with weight and bias, run by a module of the network, not by `run`."""

    fuses_activation: ClassVar[bool] = True


@dataclass(frozen=True)
class Conv(Layer):
    """1-D or 2-D convolution, by the length of its attributes; symmetric zero padding."""

    kind: ClassVar[str] = "conv"
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def label(self) -> str:
        depthwise = self.groups > 1 and self.groups == self.in_channels
        return f"{'depthwise_' if depthwise else ''}conv{len(self.kernel)}d"


@dataclass(frozen=True)
class Linear(Layer):
    """x [..., in] -> [..., out]."""

    kind: ClassVar[str] = "linear"
    in_features: int
    out_features: int


@dataclass(frozen=True)
class BatchNorm(Op):
    """Inference batch normalization over axis 1; exists only until it is folded."""

    kind: ClassVar[str] = "batch_norm"


@dataclass(frozen=True)
class MatMul(Op):
    kind: ClassVar[str] = "matmul"

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.matmul(*inputs)


@dataclass(frozen=True)
class Add(Op):
    kind: ClassVar[str] = "add"
    fuses_activation: ClassVar[bool] = True

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + inputs[1]


@dataclass(frozen=True)
class Sub(Op):
    kind: ClassVar[str] = "sub"
    fuses_activation: ClassVar[bool] = True

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0] - inputs[1]


@dataclass(frozen=True)
class Mul(Op):
    kind: ClassVar[str] = "mul"
    fuses_activation: ClassVar[bool] = True

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]


@dataclass(frozen=True)
class Relu(Op):
    kind: ClassVar[str] = "relu"
    shares_quantizer: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True

    def run(self, *inputs: Tensor) -> Tensor:
        return F.relu(inputs[0])


@dataclass(frozen=True)
class Clamp(Op):
    """Clamp to real bounds; None leaves that side open."""

    kind: ClassVar[str] = "clamp"
    shares_quantizer: ClassVar[bool] = True
    low: float | None = None
    high: float | None = None

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.clamp(inputs[0], self.low, self.high)

    @property
    def label(self) -> str:
        return "relu6" if (self.low, self.high) == (0.0, 6.0) else self.kind


@dataclass(frozen=True)
class Pool(Op):
    """Base of pools; 1-D or 2-D by the length of the attributes."""

    shares_quantizer: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()


@dataclass(frozen=True)
class AveragePool(Pool):
    """Padded positions are not counted."""

    kind: ClassVar[str] = "avg_pool"

    def run(self, *inputs: Tensor) -> Tensor:
        pool = F.avg_pool1d if len(self.kernel) == 1 else F.avg_pool2d
        return pool(inputs[0], self.kernel, self.stride, self.padding, count_include_pad=False)


@dataclass(frozen=True)
class MaxPool(Pool):
    kind: ClassVar[str] = "max_pool"

    def run(self, *inputs: Tensor) -> Tensor:
        pool = F.max_pool1d if len(self.kernel) == 1 else F.max_pool2d
        pooled: Tensor = pool(inputs[0], self.kernel, self.stride, self.padding)
        return pooled


@dataclass(frozen=True)
class Mean(Op):
    """Mean over `axes` (non-negative, sorted), with its own output scale."""

    kind: ClassVar[str] = "mean"
    axes: tuple[int, ...] = ()
    keep_dims: bool = False

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean(self.axes, self.keep_dims)


@dataclass(frozen=True)
class HardSwish(Op):
    kind: ClassVar[str] = "hardswish"

    def run(self, *inputs: Tensor) -> Tensor:
        return F.hardswish(inputs[0])


@dataclass(frozen=True)
class Gelu(Op):
    """Exact, or `approximate` by tanh."""

    kind: ClassVar[str] = "gelu"
    approximate: bool = False

    def run(self, *inputs: Tensor) -> Tensor:
        return F.gelu(inputs[0], approximate="tanh" if self.approximate else "none")


@dataclass(frozen=True)
class LayerNorm(Op):
    """x, gamma and beta: normalization over the last axis, then gain and offset."""

    kind: ClassVar[str] = "layer_norm"
    parameters: ClassVar[Mapping[int, QFormat]] = {
        1: QFormat(16, symmetric=True, narrow=True),
        2: QFormat(32, symmetric=True, narrow=True),
    }
    epsilon: float = 1e-5

    def run(self, *inputs: Tensor) -> Tensor:
        x, gamma, beta = inputs
        return F.layer_norm(x, (x.shape[-1],), gamma, beta, self.epsilon)


@dataclass(frozen=True)
class Sigmoid(Op):
    kind: ClassVar[str] = "sigmoid"
    fixed_output: ClassVar[FixedOutput] = {8: (1 / 256, -128), 16: (1 / 32768, 0)}

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs[0])


@dataclass(frozen=True)
class Tanh(Op):
    kind: ClassVar[str] = "tanh"
    fixed_output: ClassVar[FixedOutput] = {8: (1 / 128, 0), 16: (1 / 32768, 0)}

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.tanh(inputs[0])


@dataclass(frozen=True)
class Softmax(Op):
    """softmax(beta * x) over `axis`."""

    kind: ClassVar[str] = "softmax"
    fixed_output: ClassVar[FixedOutput] = {8: (1 / 256, -128), 16: (1 / 32768, 0)}
    axis: int = 1
    beta: float = 1.0

    def run(self, *inputs: Tensor) -> Tensor:
        scaled = inputs[0] if self.beta == 1.0 else inputs[0] * self.beta
        return torch.softmax(scaled, self.axis)


@dataclass(frozen=True)
class Concat(Op):
    """A constant operand with one sample is repeated over the batch."""

    kind: ClassVar[str] = "concat"
    shares_quantizer: ClassVar[bool] = True
    axis: int = 1

    def run(self, *inputs: Tensor) -> Tensor:
        if self.axis == 0:
            return torch.cat(inputs, 0)
        batch = max(x.shape[0] for x in inputs)
        return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], self.axis)


@dataclass(frozen=True)
class Reshape(Op):
    """`shape` has one -1, where the batch size enters; `static` is the shape for one sample."""

    kind: ClassVar[str] = "reshape"
    shares_quantizer: ClassVar[bool] = True
    shape: tuple[int, ...] = ()
    static: tuple[int, ...] = ()

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(self.shape)


@dataclass(frozen=True)
class Transpose(Op):
    kind: ClassVar[str] = "transpose"
    shares_quantizer: ClassVar[bool] = True
    permutation: tuple[int, ...] = ()

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(self.permutation)


@dataclass(frozen=True)
class Pad(Op):
    """Zeros: `before[i]` and `after[i]` elements on axis i."""

    kind: ClassVar[str] = "pad"
    shares_quantizer: ClassVar[bool] = True
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def run(self, *inputs: Tensor) -> Tensor:
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return F.pad(inputs[0], list(itertools.chain.from_iterable(pairs)))


@dataclass(frozen=True)
class Slice(Op):
    """Elements begin, begin + step, ... below `end` of one axis; all three non-negative."""

    kind: ClassVar[str] = "slice"
    shares_quantizer: ClassVar[bool] = True
    axis: int = 1
    begin: int = 0
    end: int = 0
    step: int = 1

    def run(self, *inputs: Tensor) -> Tensor:
        index = [slice(None)] * self.axis + [slice(self.begin, self.end, self.step)]
        return inputs[0][tuple(index)]


@dataclass(frozen=True)
class Resize(Op):
    """Spatial resize of [N, C, H, W] to `size`."""

    kind: ClassVar[str] = "resize"
    shares_quantizer: ClassVar[bool] = True
    homogeneous: ClassVar[bool] = True
    size: tuple[int, ...] = ()
    mode: Literal["nearest", "bilinear"] = "nearest"
    align_corners: bool = False

    def run(self, *inputs: Tensor) -> Tensor:
        align = self.align_corners if self.mode == "bilinear" else None
        return F.interpolate(inputs[0], size=self.size, mode=self.mode, align_corners=align)


@dataclass(frozen=True)
class Requantize(Op):
    """The same values in another format; placement inserts it where formats meet."""

    kind: ClassVar[str] = "requantize"

    def run(self, *inputs: Tensor) -> Tensor:
        return inputs[0]


Activation = Relu | Clamp
FUSABLE: tuple[Activation, ...] = (Relu(), Clamp(0.0, 6.0), Clamp(-1.0, 1.0))
"""The clamps that TFLite has as fused activations."""
