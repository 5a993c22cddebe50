"""What sensitivity is measured on: the very float network that post-training quantization rounds.

The steps before rounding are those of `ptq.quantize`, with its own functions: fold, place,
even out, find activation ranges, find weight scales. Where rounding is learned, it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import EmptySplitError
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.algorithms import CHECK_SAMPLES, even_out
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import Network, with_steps
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement, place
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.ranges import find_ranges
from edgesmith.quantize.weights import find_scales

FloatArray = npt.NDArray[np.float32]
Weights = dict[str, Tensor]
"""Layer -> a tensor of its weight's shape [O, ...]."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A float network ready to be rounded, and the data it is judged on.

    Args:
        network: folded and equalized; the names of its steps are the groups.
        samples: calibration inputs [N, *sample shape].
        options: of the quantization that is to follow; overrides have no influence.
        seed: of learned rounding.
    """

    model: nn.Module
    seed: int
    network: Network
    samples: Tensor
    options: PTQOptions
    placement: Placement
    ranges: Mapping[str, Affine]

    def weights(self) -> Weights:
        """The float weights of every layer."""
        steps = self.network.layer_steps()
        return {step.name: self.network.layer(step.name).weight.detach() for step in steps}

    def perturbation(self, weight_format: str) -> Weights:
        """dW = Q(W) - W of every layer, with the scales and the rounding of `ptq.quantize`.

        Learned rounding takes as long as it does there. Bias correction is not in it.
        """
        if self.options.learned_rounding is not None or self.options.gptq is not None:
            return self._learned(weight_format)
        placement = _placement(self.network, self.options, weights=weight_format)
        found: Weights = {}
        for step in self.network.layer_steps():
            layer = self.network.layer(step.name)
            assert layer.bias is not None
            weight = layer.weight.detach().numpy()
            fmt = placement.policy.groups[step.name].weight
            assert fmt is not None
            scales = find_scales(
                weight,
                layer.bias.detach().numpy(),
                self.ranges[self.placement.quantizer_of[step.inputs[0]]].scale,
                fmt,
                search=self.options.ranges == "mse",
            )
            found[step.name] = torch.from_numpy(scales.dequantize(scales.codes(weight)) - weight)
        return found

    def _learned(self, weight_format: str) -> Weights:
        options = replace(self.options, weights=weight_format, bias_correction=False)
        shipped = quantize(self.model, self.samples.numpy(), options, seed=self.seed).searched()
        return {
            name: torch.from_numpy(shipped[f"{name}.weight"].dequantized()) - weight
            for name, weight in self.weights().items()
        }

    def activations(self, activation_format: str) -> tuple[Placement, dict[str, Affine]]:
        """The placement with one activation format everywhere, and its ranges."""
        placement = _placement(self.network, self.options, activations=activation_format)
        return placement, _ranges(self.network, placement, self.samples, self.options)


def subject_of(
    model: nn.Module, calibration: FloatArray, options: PTQOptions | None = None, seed: int = 0
) -> Subject:
    """Prepare a model as `ptq.quantize` does.

    Args:
        model: torch module with one input [N, *sample shape] and one output; not changed.
        calibration: inputs [N, *sample shape].
        seed: of learned rounding.

    Raises:
        EmptySplitError: no calibration samples.
        QuantizationError, UnsupportedError, NonFiniteWeightsError: as `ptq.quantize`.
    """
    options = replace(options or PTQOptions(), overrides=())
    options.check()
    samples = torch.from_numpy(np.ascontiguousarray(calibration, np.float32))
    if samples.ndim == 0 or len(samples) == 0:
        raise EmptySplitError(
            "the calibration data has no samples", fix="give at least one; a few hundred is usual"
        )
    network = prepare(model, samples[:CHECK_SAMPLES])
    placement = _placement(network, options)
    network = with_steps(network, placement.steps)
    even_out(network, samples, options)
    ranges = _ranges(network, placement, samples, options)
    return Subject(model, seed, network, samples, options, placement, ranges)


def _placement(network: Network, options: PTQOptions, **formats: Any) -> Placement:
    return place(network.steps, network.constant_names, replace(options, **formats))


def _ranges(
    network: Network, placement: Placement, samples: Tensor, options: PTQOptions
) -> dict[str, Affine]:
    batches: Callable[[], Iterable[Tensor]] = lambda: torch.split(  # noqa: E731
        samples, options.batch_size
    )
    return find_ranges(with_steps(network, placement.steps), placement, batches, options)
