"""An engine's numbers where the placement can hold them, the pipeline's own everywhere else.

Numbers are taken over exactly or not at all: nothing is rounded to fit. What is not taken
over is a `Deviation` with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import Granularity, QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.engines.base import ActivationChoice, Chosen, WeightChoice
from edgesmith.quantize.engines.values import Deviation
from edgesmith.quantize.fakequant import fake_quantize, weight_quantizer
from edgesmith.quantize.formats import power_of_two
from edgesmith.quantize.integers import collect
from edgesmith.quantize.network import Network
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.searched import Searched
from edgesmith.quantize.weights import WeightScales, find_scales

_UNTOUCHED = "left unquantized by the engine, ranges by this pipeline's rule"


@dataclass(frozen=True, eq=False)
class Adopted:
    """All numbers of a network.

    Args:
        activations: quantizer -> scale and zero point.
        codes: layer step -> the engine's weight codes, of the layers that have them.
    """

    activations: Mapping[str, Affine]
    weights: Mapping[str, WeightScales]
    codes: Mapping[str, npt.NDArray[np.int64]]
    taken: int
    of: int
    deviations: tuple[Deviation, ...]

    def integers(self, network: Network, placement: Placement) -> Searched:
        """Every scale, zero point and code."""
        fake = fake_quantize(network, placement, self.activations, self.weights)
        for step, codes in self.codes.items():
            weight_quantizer(fake, step).freeze(codes)
        return collect(fake, network, placement, self.activations, self.weights)


def adopt(
    chosen: Chosen,
    network: Network,
    placement: Placement,
    ruled: Mapping[str, Affine],
    *,
    search: bool,
) -> Adopted:
    """Take an engine's numbers over.

    Args:
        ruled: quantizer -> what the pipeline's rule gives.
        search: search weight scales for least error, of layers without the engine's.
    """
    activations: dict[str, Affine] = {}
    deviations: list[Deviation] = []
    members: dict[str, list[str]] = {}
    for tensor, quantizer in placement.quantizer_of.items():
        members.setdefault(quantizer, []).append(tensor)
    considered = taken = 0
    for quantizer, own in ruled.items():
        found = [one for name in members[quantizer] for one in chosen.activations.get(name, ())]
        if (own.format.is_float32 and not found) or quantizer in placement.parameters:
            activations[quantizer] = own
            continue
        reason = _refusal(own, found, fixed=quantizer in placement.fixed)
        considered += 1
        if reason is None:
            taken += 1
            activations[quantizer] = _affine(found[0], own.format)
        else:
            activations[quantizer] = own
            deviations.append(Deviation(quantizer, reason))
    weights, codes, more = _weights(chosen, network, placement, activations, search)
    inside = "quantized inside of the operator by the engine, which no target does"
    deviations += [*more, *(Deviation(step, inside) for step in chosen.inside)]
    return Adopted(activations, weights, codes, taken, considered, tuple(deviations))


def _refusal(own: Affine, found: list[ActivationChoice], *, fixed: bool) -> str | None:
    """Why a quantizer cannot have what the engine chose; None if it can."""
    fmt = own.format
    if not found:
        return "fixed by TFLite's rules" if fixed else _UNTOUCHED
    first = found[0]
    if fmt.is_float32:
        return "quantized by the engine, float32 by the formats of this spec"
    if any(other != first for other in found):
        return "tied tensors for which the engine has several scales"
    if fmt.name != first.format:
        return f"{fmt.name} by the formats of this spec, {first.format} by the engine"
    if fixed:
        same = _affine(first, fmt) == own
        return None if same else "other numbers by the engine, fixed by TFLite's rules"
    return _illegal(first, fmt)


def _illegal(choice: ActivationChoice, fmt: QFormat) -> str | None:
    scale = np.float32(choice.scale)
    if not (np.isfinite(scale) and scale > 0):
        return "a scale of the engine that is no positive number"
    if fmt.symmetric and choice.zero_point != 0:
        return f"{fmt.name} has no zero point, which the engine chose"
    if not fmt.is_float and not fmt.qmin <= choice.zero_point <= fmt.qmax:
        return "a zero point of the engine that is no code"
    if fmt.power_of_two_scale and power_of_two(np.array([scale]))[0] != scale:
        return "a scale of the engine that is no power of two"
    return None


def _affine(choice: ActivationChoice, fmt: QFormat) -> Affine:
    return Affine(np.float32(choice.scale), choice.zero_point, fmt)


def _weights(
    chosen: Chosen,
    network: Network,
    placement: Placement,
    activations: Mapping[str, Affine],
    search: bool,
) -> tuple[dict[str, WeightScales], dict[str, npt.NDArray[np.int64]], list[Deviation]]:
    weights: dict[str, WeightScales] = {}
    codes: dict[str, npt.NDArray[np.int64]] = {}
    deviations: list[Deviation] = []
    for step in network.layer_steps():
        layer = network.layer(step.name)
        fmt = placement.policy.groups[step.name].weight
        assert fmt is not None
        assert layer.bias is not None
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        source = activations[placement.quantizer_of[step.inputs[0]]]
        ruled = find_scales(weight, bias, source.scale, fmt, search=search)
        choice = chosen.weights.get(step.name)
        reason = _weight_refusal(choice, fmt, bias, source)
        if choice is None or reason is not None:
            weights[step.name] = ruled
            deviations.append(Deviation(f"{step.name}.weight", reason or _UNTOUCHED))
            continue
        scale = choice.scale
        if fmt.granularity is Granularity.PER_CHANNEL:
            scale = np.broadcast_to(scale, (len(weight),)).astype(np.float32)
        weights[step.name] = WeightScales(scale, fmt)
        codes[step.name] = choice.codes
        if not fmt.is_float:
            codes[step.name] = np.clip(choice.codes, fmt.qmin, fmt.qmax)
            deviations += _saturated(step.name, choice.codes, fmt)
    return weights, codes, deviations


def _weight_refusal(
    choice: WeightChoice | None, fmt: QFormat, bias: npt.NDArray[np.float32], source: Affine
) -> str | None:
    if choice is None:
        return _UNTOUCHED
    if fmt.name != choice.format:
        return f"{fmt.name} by the formats of this spec, {choice.format} by the engine"
    if not (np.isfinite(choice.scale) & (choice.scale > 0)).all():
        return "a scale of the engine that is no positive number"
    if fmt.granularity is Granularity.PER_TENSOR and len(choice.scale) > 1:
        return "one scale by the formats of this spec, one per channel by the engine"
    if fmt.power_of_two_scale and (power_of_two(choice.scale) != choice.scale).any():
        return "a scale of the engine that is no power of two"
    if fmt.is_float or source.format.is_float:
        return None
    # The codes of biases, at input scale * weight scale, have 32 bits.
    limits = 2.0**30 * float(source.scale) * choice.scale.astype(np.float64)
    if (np.abs(bias) > limits).any():
        return "a scale of the engine at which the bias does not fit 32 bits"
    return None


def _saturated(step: str, codes: npt.NDArray[np.int64], fmt: QFormat) -> Iterator[Deviation]:
    count = int((codes < fmt.qmin).sum())
    if count:
        reason = f"weight codes below {fmt.qmin}, which targets lack, moved up by one"
        yield Deviation(f"{step}.weight ({count} of {codes.size})", reason)
