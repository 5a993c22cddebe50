"""The network that is trained: plain torch layers, light quantizers, the steps of a placement.

In training mode `forward` returns what the loss wants: logits, in front of a softmax that ends
the network. In eval mode it computes with the integers themselves: `integers` are collected, and
the module that is assembled from them runs. So whatever judges an epoch judges what would ship.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.quantize.affine import Affine
from edgesmith.quantize.fakequant import fake_quantize, weight_quantizer
from edgesmith.quantize.formats import stored_codes, stored_values
from edgesmith.quantize.integers import assemble, collect
from edgesmith.quantize.network import INPUT, Network, Step, key
from edgesmith.quantize.ops import Conv, Layer, Linear, Relu, Requantize, Reshape, Softmax
from edgesmith.quantize.qat.activations import ActivationQuantizer
from edgesmith.quantize.qat.layers import TrainedLayer
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.searched import Searched
from edgesmith.quantize.weights import WeightScales

if TYPE_CHECKING:
    from edgesmith.prune.masks import Masks
    from edgesmith.quantize.ptq import QuantizedModel


class TrainedNetwork(nn.Module):
    """Starts as `start`, with the same integers (`xnor` and `dorefa` weights have their own).

    Args:
        start: a quantized model; it is not changed.
        masks: layer -> [O, ...], True where a weight is trained; the others stay zero.
    """

    def __init__(self, start: QuantizedModel, options: QAT, masks: Masks | None = None) -> None:
        super().__init__()
        self._start = (start.floating, start.placement)  # a tuple: no module of this one
        self._searched = start.searched()
        self._steps, self._beta = _to_logits(start.placement.steps)
        self._frozen: tuple[Network, ...] = ()
        placement = start.placement
        made = {INPUT, *(step.name for step in placement.steps)}
        trained = {placement.quantizer_of[name] for name in made}
        self.layers = nn.ModuleDict()
        self.quantizers = nn.ModuleDict()
        self._fixed: dict[str, Affine] = {}
        for name, fmt in placement.formats.items():
            tensor = self._searched[name]
            affine = Affine(np.float32(tensor.scale[0]), int(tensor.zero_point[0]), fmt)
            if fmt.is_float32 or name not in trained:
                self._fixed[name] = affine
                continue
            moves = options.zero_points == "learn" and name not in placement.fixed
            quantizer = ActivationQuantizer(affine, moves_zero_point=moves)
            quantizer.logarithm.requires_grad_(
                options.scale_rate > 0 and name not in placement.fixed
            )
            self.quantizers[key(name)] = quantizer
        for step in start.floating.layer_steps():
            mask = (masks or {}).get(step.name)
            self.layers[key(step.name)] = self._layer(step, options, mask)
        for name, value in start.floating.constants().items():
            self.register_buffer(f"constant:{key(name)}", self._constant(name, value))

    def _layer(self, step: Step, options: QAT, mask: Tensor | None) -> TrainedLayer:
        assert isinstance(step.op, Conv | Linear)
        floating, placement = self._start
        source, stored = floating.layer(step.name), self._searched[f"{step.name}.weight"]
        fmt = placement.policy.groups[step.name].weight
        assert fmt is not None
        assert stored.codes is not None
        layer = TrainedLayer(
            step.op,
            source.weight.detach(),
            torch.from_numpy(self._searched[f"{step.name}.bias"].dequantized()),
            torch.from_numpy(stored_values(stored.codes, fmt)),
            WeightScales(stored.scale, fmt),
            placement.format_of(step.inputs[0]),
            mask=mask,
            quantizer=options.weight_quantizer,
        )
        layer.quantizer.requires_grad_(options.scale_rate > 0)
        return layer

    def _constant(self, name: str, value: Tensor) -> Tensor:
        """Float where its quantizer is trained, else already rounded."""
        fixed = self._fixed.get(self._start[1].quantizer_of[name])
        if fixed is None:
            return value.clone()
        return torch.from_numpy(fixed.dequantize(fixed.codes(value.numpy())))

    @property
    def weights(self) -> Iterator[nn.Parameter]:
        """Weights and biases."""
        for layer in self._trained_layers():
            yield from (layer.weight, layer.bias)

    @property
    def scales(self) -> Iterator[nn.Parameter]:
        """Logarithms of scales, and zero points, that are trained."""
        mine = {id(value) for value in self.weights}
        return (v for v in self.parameters() if v.requires_grad and id(v) not in mine)

    def forward(self, x: Tensor) -> Tensor:
        """Logits in training; in eval mode the assembled integers' output."""
        if not self.training:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                frozen: Tensor = self.frozen()(x.contiguous())
            return frozen
        values = self.trace(x)
        result = values[self._steps[-1].name]
        return result if self._beta == 1.0 else result * self._beta

    def trace(self, x: Tensor) -> dict[str, Tensor]:
        """Every quantized tensor up to the logits, by name, as training computes it."""
        quantizer_of = self._start[1].quantizer_of
        values = {
            name: self._quantized(name, self.get_buffer(f"constant:{key(name)}"))
            for name in self._start[0].constant_names
        }
        values[INPUT] = self._quantized(INPUT, x)
        for step in self._steps:
            operands = [values[name] for name in step.inputs]
            if isinstance(step.op, Layer):
                source = self._quantizer(quantizer_of[step.inputs[0]])
                scale = None if source is None else source.scale()
                result = self.layers[key(step.name)](*operands, scale)
            else:
                result = step.op.run(*operands)
            quantizer = self._quantizer(quantizer_of[step.name])
            clips = quantizer is not None and quantizer.clips_negative
            if step.activation is not None and not (clips and isinstance(step.activation, Relu)):
                result = step.activation.run(result)
            values[step.name] = self._quantized(step.name, result)
        return values

    def _quantized(self, name: str, value: Tensor) -> Tensor:
        quantizer = self._quantizer(self._start[1].quantizer_of[name])
        return value if quantizer is None else quantizer(value)

    def _quantizer(self, name: str) -> ActivationQuantizer | None:
        if key(name) not in self.quantizers:
            return None
        found = self.quantizers[key(name)]
        assert isinstance(found, ActivationQuantizer)
        return found

    def _trained_layers(self) -> Iterator[TrainedLayer]:
        for layer in self.layers.values():
            assert isinstance(layer, TrainedLayer)
            yield layer

    def frozen(self) -> Network:
        """The fake-quantized network that is assembled from the integers of now."""
        if not self._frozen:
            self._frozen = (assemble(*self._start, self.integers()),)
        return self._frozen[0]

    @torch.no_grad()
    def integers(self) -> Searched:
        """Every scale, zero point and code of now, rounded as in training."""
        floating, placement = self._start
        activations = dict(self._fixed)
        for name in placement.formats:
            quantizer = self._quantizer(name)
            if quantizer is not None:
                activations[name] = quantizer.affine()
        codes, scales = self._rounded()
        fake = fake_quantize(floating, placement, activations, scales)
        for step in fake.layer_steps():
            source, layer = self.layers[key(step.name)], fake.layer(step.name)
            assert isinstance(source, TrainedLayer)
            assert layer.bias is not None
            layer.bias.data = source.real_bias().clone()
            weight_quantizer(fake, step.name).freeze(codes[step.name])
        return collect(fake, floating, placement, activations, scales)

    def _rounded(self) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, WeightScales]]:
        """Stored codes, and scales, of every layer."""
        floating, placement = self._start
        codes, scales = {}, {}
        for step in floating.layer_steps():
            layer = self.layers[key(step.name)]
            assert isinstance(layer, TrainedLayer)
            source = self._quantizer(placement.quantizer_of[step.inputs[0]])
            values, scale = layer.frozen(None if source is None else source.scale())
            codes[step.name] = stored_codes(values, layer.format)
            scales[step.name] = WeightScales(scale, layer.format)
        return codes, scales

    def train(self, mode: bool = True) -> TrainedNetwork:
        """As torch's; the integers that eval mode runs on are collected again."""
        self._frozen = ()
        super().train(mode)
        return self

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's; see `train`."""
        self._frozen = ()
        return super().load_state_dict(state_dict, strict, assign)


def _to_logits(steps: tuple[Step, ...]) -> tuple[tuple[Step, ...], float]:
    """The steps up to what a last softmax gets, and its beta."""
    made = {step.name: index for index, step in enumerate(steps)}
    last = len(steps) - 1
    while isinstance(steps[last].op, Requantize | Reshape) and steps[last].inputs[0] in made:
        last = made[steps[last].inputs[0]]
    op = steps[last].op
    if isinstance(op, Softmax) and steps[last].inputs[0] in made:
        return steps[: made[steps[last].inputs[0]] + 1], op.beta
    return steps, 1.0
