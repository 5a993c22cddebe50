"""Fusable groups: batch norms and scales folded, clamps fused behind the operator they follow.

`prepare` is the whole way from a user's model to the float network that is
quantized, and proves that both compute the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.draft import Draft
from edgesmith.quantize.network import Network, Step, float_module
from edgesmith.quantize.normalize import normalize
from edgesmith.quantize.ops import FUSABLE, BatchNorm, Clamp, Conv, Linear, Mul, Relu, Softmax
from edgesmith.quantize.trace import check_finite, float_copy, trace

TOLERANCE = 1e-4
"""Largest accepted change of an output by folding, relative to the largest output."""


def prepare(model: nn.Module, samples: Tensor) -> Network:
    """The float network of fusable groups that computes what `model` computes.

    Args:
        model: any torch module with one input and one output; it is not changed.
        samples: a few inputs [N, *sample shape], on which both are compared.

    Raises:
        NonFiniteWeightsError: NaN or infinite weights.
        UnsupportedError: an operator that cannot be quantized.
        QuantizationError: the model cannot be traced, does not run on the
            samples, or computes something else than its operators say.
    """
    model = float_copy(model)
    network = build(draft_of(model, samples[:1]))
    check_finite(network)
    _compare(model, network, samples)
    return network


def draft_of(model: nn.Module, sample: Tensor) -> Draft:
    """The groups of a model in eval mode, whose weights are not looked at.

    Args:
        sample: one input [1, *sample shape].

    Raises:
        UnsupportedError: an operator that cannot be quantized.
        QuantizationError: the model cannot be traced, or does not run on the sample.
    """
    draft = normalize(trace(model, sample))
    fold_batch_norms(draft)
    fold_softmax_scales(draft)
    fuse_activations(draft)
    drop_dead(draft)
    return draft


def fold_batch_norms(draft: Draft) -> None:
    """Fold each batch norm into the layer before it, or make it a depthwise 1x1 convolution.

    With y = scale * (W x + b) + shift per output channel, the folded layer has
    weight scale * W and bias scale * b + shift, computed in float64.
    """
    uses = _uses(draft)
    linear = {step.name for step in draft.steps if isinstance(step.op, Linear)}
    renamed: dict[str, str] = {}
    kept: list[Step] = []
    for original in draft.steps:
        step = _renamed(original, renamed)
        if not isinstance(step.op, BatchNorm):
            kept.append(step)
            continue
        source = step.inputs[0]
        scale, shift = draft.norms[step.name]
        # A linear layer's channels are the last axis, batch norm's are axis 1.
        other_axis = source in linear and draft.ranks[source] > 2
        if source in draft.weights and uses[source] == 1 and not other_axis:
            draft.weights[source] = _folded(draft.weights[source], scale, shift)
            draft.statistics[source] = draft.statistics.pop(step.name)
            # The next batch norm in a row sees the same source, and its users instead.
            uses[source] = uses[step.name]
            renamed[step.name] = source
        else:
            kept.append(_depthwise(draft, step, source, scale, shift))
    draft.steps = kept
    draft.output = renamed.get(draft.output, draft.output)


def _folded(layer: tuple[Tensor, Tensor], scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    weight, bias = layer
    per_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return (weight.double() * per_channel).float(), (bias.double() * scale + shift).float()


def _depthwise(draft: Draft, step: Step, source: str, scale: Tensor, shift: Tensor) -> Step:
    axes = draft.ranks[step.name] - 2
    if axes not in (1, 2):
        raise QuantizationError(
            f"batch norm {step.name!r} does not follow a convolution or linear layer directly, and"
            f" its input has {axes + 2} axes",
            fix="move it directly behind the layer, or drop it",
        )
    ones = (1,) * axes
    op = Conv(len(scale), len(scale), ones, ones, (0,) * axes, ones, len(scale))
    draft.weights[step.name] = (scale.float().reshape(-1, 1, *ones), shift.float())
    return Step(step.name, op, (source,))


def fold_softmax_scales(draft: Draft) -> None:
    """softmax(x * s) -> softmax with beta s, for one positive number s: attention's 1 / sqrt(d)."""
    uses = _uses(draft)
    made = {step.name: step for step in draft.steps}
    for index, step in enumerate(draft.steps):
        scaled = made.get(step.inputs[0])
        if not (isinstance(step.op, Softmax) and scaled and isinstance(scaled.op, Mul)):
            continue
        numbers = [name for name in scaled.inputs if _positive_number(draft, name)]
        if len(numbers) != 1 or uses[scaled.name] != 1:
            continue
        beta = step.op.beta * float(draft.constants[numbers[0]])
        source = tuple(name for name in scaled.inputs if name != numbers[0])
        draft.steps[index] = replace(step, op=replace(step.op, beta=beta), inputs=source)
    # The products that nobody reads any more go with `drop_dead`.


def _positive_number(draft: Draft, name: str) -> bool:
    value = draft.constants.get(name)
    return value is not None and value.numel() == 1 and float(value) > 0


def fuse_activations(draft: Draft) -> None:
    """Put relu, relu6 and clamp to [-1, 1] into the group of the operator they follow alone."""
    uses = _uses(draft)
    kept: dict[str, Step] = {}
    renamed: dict[str, str] = {}
    for original in draft.steps:
        step = _renamed(original, renamed)
        source = kept.get(step.inputs[0])
        if (
            source is not None
            and isinstance(step.op, Relu | Clamp)
            and step.op in FUSABLE
            and source.op.fuses_activation
            and source.activation is None
            and uses[source.name] == 1
        ):
            kept[source.name] = replace(source, activation=step.op)
            uses[source.name] = uses[step.name]
            renamed[step.name] = source.name
        else:
            kept[step.name] = step
    draft.steps = list(kept.values())
    draft.output = renamed.get(draft.output, draft.output)


def _renamed(step: Step, renamed: Mapping[str, str]) -> Step:
    return replace(step, inputs=tuple(renamed.get(name, name) for name in step.inputs))


def drop_dead(draft: Draft) -> None:
    """Drop steps, and what belongs to them, whose result the output does not need."""
    needed = {draft.output}
    for step in reversed(draft.steps):
        if step.name in needed:
            needed.update(step.inputs)
    draft.steps = [step for step in draft.steps if step.name in needed]
    draft.weights = {name: pair for name, pair in draft.weights.items() if name in needed}
    draft.constants = {name: value for name, value in draft.constants.items() if name in needed}
    draft.statistics = {name: each for name, each in draft.statistics.items() if name in needed}


def _uses(draft: Draft) -> Counter[str]:
    """How many operands each tensor is; the network's output counts as one."""
    uses = Counter(name for step in draft.steps for name in step.inputs)
    uses[draft.output] += 1
    return uses


def build(draft: Draft) -> Network:
    """The float network of a draft."""
    layers: dict[str, nn.Module] = {}
    for step in draft.steps:
        if isinstance(step.op, Conv | Linear):
            layer = float_module(step.op)
            weight, bias = draft.weights[step.name]
            layer.weight.data, layer.bias.data = weight, bias  # type: ignore[union-attr]
            layers[step.name] = layer
    network = Network(draft.steps, layers, draft.constants, statistics=draft.statistics)
    return network.requires_grad_(False)


@torch.no_grad()
def _compare(model: nn.Module, network: Network, samples: Tensor) -> None:
    """One sample at a time against the whole batch, which also shows mixing of samples."""
    expected = model(samples.clone())
    actual = torch.cat([network(sample) for sample in torch.split(samples, 1)])
    if not torch.isfinite(expected).all():
        raise QuantizationError(
            f"{type(model).__name__} returns NaN or infinite values on the calibration data",
            fix="check the checkpoint, and that the data is normalized as in training",
        )
    worst = float((actual - expected).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise QuantizationError(
            f"the operators of {type(model).__name__}, one by one, give an output that differs by"
            f" {worst:.3g} from the model's own",
            fix="look for in-place operators on tensors that are used again, for operators that mix"
            " the samples of a batch, and for random behaviour in eval mode",
        )
