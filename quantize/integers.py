"""Between a fake-quantized network and its integers, both ways.

`collect` rounds once and writes down every code; `assemble` builds the network
that is scored from what was written down.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from edgesmith.pipeline.errors import CheckpointError
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.fakequant import fake_quantize, weight_quantizer
from edgesmith.quantize.formats import stored_codes
from edgesmith.quantize.network import INPUT, Network, Step
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.searched import Searched, SearchedTensor
from edgesmith.quantize.weights import WeightScales, bias_codes


def collect(
    fake: Network,
    floating: Network,
    placement: Placement,
    activations: Mapping[str, Affine],
    weights: Mapping[str, WeightScales],
) -> Searched:
    """All integers of a calibrated network, in execution order.

    Args:
        fake: its weights and corrected biases are rounded; frozen codes are taken as they are.
        floating: its constants are rounded.
    """
    tensors = [_activation(INPUT, placement, activations)]
    for step in placement.steps:
        for name in step.inputs:
            if name in floating.constant_names and all(t.name != name for t in tensors):
                affine = activations[placement.quantizer_of[name]]
                codes = affine.codes(floating.constant(name).numpy())
                tensors.append(_tensor(name, affine, codes))
        if step.name in weights:
            tensors += _layer(fake, step, activations, placement, weights[step.name])
        tensors.append(_activation(step.name, placement, activations))
    return Searched(tuple(tensors))


def _activation(
    name: str, placement: Placement, activations: Mapping[str, Affine]
) -> SearchedTensor:
    return _tensor(name, activations[placement.quantizer_of[name]], None)


def _tensor(name: str, affine: Affine, codes: npt.NDArray[np.int64] | None) -> SearchedTensor:
    return SearchedTensor(
        name,
        "activation" if codes is None else "weight",
        affine.format.activation_storage,
        np.array([affine.scale], np.float32),
        np.array([affine.zero_point], np.int64),
        codes=codes,
    )


def _layer(
    fake: Network,
    step: Step,
    activations: Mapping[str, Affine],
    placement: Placement,
    scales: WeightScales,
) -> tuple[SearchedTensor, SearchedTensor]:
    layer = fake.layer(step.name)
    assert layer.bias is not None
    frozen = weight_quantizer(fake, step.name).codes
    weight = layer.weight.detach().numpy()
    codes = scales.codes(weight) if frozen is None else stored_codes(frozen.numpy(), scales.format)
    source = activations[placement.quantizer_of[step.inputs[0]]]
    bias = layer.bias.detach().numpy()
    axis = 0 if len(scales.scale) == len(bias) > 1 else None
    zero_points = np.zeros(scales.scale.shape, np.int64)
    return (
        SearchedTensor(
            f"{step.name}.weight",
            "weight",
            scales.format.storage,
            scales.scale,
            zero_points,
            axis,
            codes,
        ),
        _bias(f"{step.name}.bias", bias, scales, source, axis),
    )


def _bias(
    name: str,
    bias: npt.NDArray[np.float32],
    scales: WeightScales,
    source: Affine,
    axis: int | None,
) -> SearchedTensor:
    """Integers at input scale * weight scale; float32 as it is where either is a float."""
    if scales.format.is_float or source.format.is_float:
        return SearchedTensor.of_floats(name, bias)
    bits = 64 if source.format.bits == 16 else 32
    codes = bias_codes(bias, scales, source.scale, bits)
    zero_points = np.zeros(scales.scale.shape, np.int64)
    scale = scales.bias(source.scale)
    return SearchedTensor(name, "bias", f"int{bits}", scale, zero_points, axis, codes)


def assemble(floating: Network, placement: Placement, searched: Searched) -> Network:
    """The fake-quantized network of these integers.

    Raises:
        CheckpointError: the integers belong to another network.
    """
    _check_names(floating, placement, searched)
    activations = {
        quantizer: affine_of(searched[quantizer], fmt)
        for quantizer, fmt in placement.formats.items()
    }
    weights: dict[str, WeightScales] = {}
    for step in floating.layer_steps():
        fmt = placement.policy.groups[step.name].weight
        assert fmt is not None
        weights[step.name] = WeightScales(searched[f"{step.name}.weight"].scale, fmt)
    fake = fake_quantize(floating, placement, activations, weights)
    for step in fake.layer_steps():
        codes, bias = (searched[f"{step.name}.{part}"] for part in ("weight", "bias"))
        layer = fake.layer(step.name)
        assert codes.codes is not None
        assert layer.bias is not None
        weight_quantizer(fake, step.name).freeze(codes.codes)
        layer.weight.data = torch.from_numpy(codes.dequantized())
        layer.bias.data = torch.from_numpy(bias.dequantized())
    return fake


def affine_of(tensor: SearchedTensor, fmt: QFormat) -> Affine:
    """How an activation is quantized."""
    return Affine(np.float32(tensor.scale[0]), int(tensor.zero_point[0]), fmt)


def _check_names(floating: Network, placement: Placement, searched: Searched) -> None:
    shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(placement.policy.groups)
    shapes |= {name: tuple(value.shape) for name, value in floating.constants().items()}
    for step in floating.layer_steps():
        layer = floating.layer(step.name)
        shapes[f"{step.name}.weight"] = tuple(layer.weight.shape)
        shapes[f"{step.name}.bias"] = tuple(layer.weight.shape[:1])
    found = {t.name: None if t.codes is None else t.codes.shape for t in searched.tensors}
    wrong = sorted(name for name in shapes.keys() | found.keys() if _differ(name, shapes, found))
    if wrong:
        raise CheckpointError(
            f"the searched integers do not belong to this model: {', '.join(wrong[:3])}"
            f"{' and others' if len(wrong) > 3 else ''} differ in name or shape",
            fix="load them with the model and options that were quantized",
        )


def _differ(
    name: str,
    expected: Mapping[str, tuple[int, ...] | None],
    found: Mapping[str, tuple[int, ...] | None],
) -> bool:
    return name not in expected or name not in found or expected[name] != found[name]
