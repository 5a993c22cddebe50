"""Fake-quantized networks: Brevitas layers and activation quantizers with given numbers.

Brevitas supplies the layers (`QuantConv1d`, `QuantConv2d`, `QuantLinear`), the
activation layer (`QuantIdentity`) and their proxies, so that its calibration,
bias correction and training tools work on the network. What one quantizer
computes is written here (`AffineQuantizer`): Brevitas adds the zero point before
it rounds, which moves ties; ONNX's QuantizeLinear rounds first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import brevitas.nn as qnn
import numpy as np
import numpy.typing as npt
import torch
from brevitas.function.ops_ste import binary_sign_ste, round_ste
from brevitas.inject import ExtendedInjector
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from torch import Tensor, nn

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.formats import stored_values
from edgesmith.quantize.network import Network, conv_arguments, float_module, key
from edgesmith.quantize.ops import Conv, Linear
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.weights import WeightScales

Quantized = tuple[Tensor, Tensor, Tensor, Tensor]


class AffineQuantizer(nn.Module):
    """Brevitas' `tensor_quant`: x -> (dequantized x, scale, zero point, bit width).

    Rounding is ONNX QuantizeLinear's: nearest, ties to even, then the zero point
    is added, then saturation. Gradients pass straight through the rounding. With
    `codes` set, these are the result whatever x is. Of float formats, `codes` are
    the values at scale 1.
    """

    scale: Tensor
    zero_point: Tensor
    bit_width: Tensor
    codes: Tensor | None

    def __init__(self, scale: Tensor, zero_point: int, fmt: QFormat) -> None:
        super().__init__()
        self.format = fmt
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.tensor(float(zero_point)))
        self.register_buffer("bit_width", torch.tensor(float(fmt.bits)))
        self.register_buffer("codes", None)

    def freeze(self, codes: npt.NDArray[np.integer]) -> None:
        """From now on the quantized values are these codes."""
        self.codes = torch.from_numpy(stored_values(codes, self.format))

    def forward(self, x: Tensor) -> Quantized:
        codes = self.nearest(x / self.scale) if self.codes is None else self.codes
        values = (codes - self.zero_point) * self.scale
        return values, self.scale, self.zero_point, self.bit_width

    def nearest(self, scaled: Tensor) -> Tensor:
        """The format's values nearest to `scaled`, zero point added."""
        if self.format.is_float:
            largest = self.format.largest
            return round_to_float(torch.clamp(scaled, -largest, largest), self.format)
        if self.format.is_binary:
            signs: Tensor = binary_sign_ste(scaled)
            return signs
        codes = round_ste(scaled) + self.zero_point
        return torch.clamp(codes, self.format.qmin, self.format.qmax)


def round_to_float(x: Tensor, fmt: QFormat) -> Tensor:
    """Values within the range of a float format, rounded to it as `formats.round_to` does.

    Gradients pass straight through.
    """
    result: Tensor = _RoundToFloat.apply(x, fmt)  # type: ignore[no-untyped-call]
    return result


class _RoundToFloat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fmt: QFormat) -> Tensor:
        lowest = 2 - (1 << (fmt.exponent_bits - 1))
        exponent = (torch.frexp(x).exponent - 1).clamp_min(lowest)
        step = torch.ldexp(torch.ones_like(x), exponent - fmt.mantissa_bits)
        return torch.round(x / step) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _ActivationInjector(ExtendedInjector):  # type: ignore[misc]
    proxy_class = ActQuantProxyFromInjector
    signed = True
    narrow_range = False


class _WeightInjector(ExtendedInjector):  # type: ignore[misc]
    proxy_class = WeightQuantProxyFromInjector
    signed = True
    narrow_range = True


def fake_quantize(
    network: Network,
    placement: Placement,
    activations: Mapping[str, Affine],
    weights: Mapping[str, WeightScales],
) -> Network:
    """The network with Brevitas layers and one shared quantizer module per tied set.

    Args:
        network: the float network with the placement's steps; copied, not changed.
        activations: quantizer -> scale and zero point.
        weights: layer step -> weight scales. Biases stay float here.
    """
    quantizers = {
        name: _activation(affine)
        for name, affine in activations.items()
        if not affine.format.is_float32
    }
    layers: dict[str, nn.Module] = {}
    for step in network.layer_steps():
        assert isinstance(step.op, Conv | Linear)
        source = network.layer(step.name)
        with torch.random.fork_rng(devices=[]):
            # Brevitas' layers draw initial weights.
            layer = _layer(step.op, weights[step.name], source.weight.ndim)
        layer.weight.data = source.weight.detach().clone()
        assert source.bias is not None
        layer.bias.data = source.bias.detach().clone()
        layers[step.name] = layer
    constants = {
        name: torch.from_numpy(_through(activations[placement.quantizer_of[name]], value.numpy()))
        for name, value in network.constants().items()
    }
    quantizer_of = {
        name: root
        for name, root in placement.quantizer_of.items()
        if name not in constants and root in quantizers
    }
    made = Network(network.steps, layers, constants, quantizers, quantizer_of)
    return made.requires_grad_(False)


def inference(network: Network) -> Network:
    """A fake-quantized network's function, bit by bit, without what only training needs: weights
    are dequantized once, activations rounded in place. A network of a class of its own computes
    otherwise, and is given back as it is.
    """
    if type(network) is not Network:
        return network
    layers: dict[str, nn.Module] = {}
    for step in network.layer_steps():
        assert isinstance(step.op, Conv | Linear)
        source, layer = network.layer(step.name), float_module(step.op)
        layer.weight.data, *_ = weight_quantizer(network, step.name)(source.weight)
        assert source.bias is not None
        assert layer.bias is not None
        layer.bias.data = source.bias
        layers[step.name] = layer
    quantizers = {
        name: _Rounded(_affine_quantizer(network.quantizers[key(name)]))
        for name in set(network.quantizer_of.values())
    }
    made = Network(network.steps, layers, network.constants(), quantizers, network.quantizer_of)
    return made.requires_grad_(False)


class _Rounded(nn.Module):
    """What an `AffineQuantizer` makes of values, without gradients."""

    def __init__(self, quantizer: AffineQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        quantizer, fmt = self.quantizer, self.quantizer.format
        if fmt.is_float or fmt.is_binary:
            values: Tensor = quantizer(x)[0]
            return values
        scale, zero_point = quantizer.scale, quantizer.zero_point
        codes = (x / scale).round_().add_(zero_point).clamp_(fmt.qmin, fmt.qmax)
        return codes.sub_(zero_point).mul_(scale)


def _affine_quantizer(layer: nn.Module) -> AffineQuantizer:
    return next(each for each in layer.modules() if isinstance(each, AffineQuantizer))


def _through(affine: Affine, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return affine.dequantize(affine.codes(values))


def _activation(affine: Affine) -> nn.Module:
    quantizer = AffineQuantizer(torch.tensor(affine.scale), affine.zero_point, affine.format)
    layer: nn.Module = qnn.QuantIdentity(act_quant=_ActivationInjector.let(tensor_quant=quantizer))
    return layer


def _layer(op: Conv | Linear, scales: WeightScales, rank: int) -> nn.Module:
    shaped = torch.from_numpy(scales.scale.reshape(-1, *[1] * (rank - 1)).copy())
    quant = _WeightInjector.let(tensor_quant=AffineQuantizer(shaped, 0, scales.format))
    layer: nn.Module
    if isinstance(op, Linear):
        layer = qnn.QuantLinear(op.in_features, op.out_features, bias=True, weight_quant=quant)
        return layer
    kind = qnn.QuantConv1d if len(op.kernel) == 1 else qnn.QuantConv2d
    layer = kind(**conv_arguments(op), weight_quant=quant)
    return layer


def weight_quantizer(network: Network, step: str) -> AffineQuantizer:
    """The quantizer of a layer's weights."""
    found = network.layer(step).weight_quant.tensor_quant  # type: ignore[union-attr]
    assert isinstance(found, AffineQuantizer)
    return found
