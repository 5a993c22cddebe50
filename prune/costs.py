"""What a pruned module costs on the target: counted there, or multiply-accumulates where not.

A candidate is quantized in a moment: a layer's cost depends on its shape and formats, hardly on its
values. Scales are those of a few samples: with some, sums take a slower kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import DoesNotFitError, PruningError
from edgesmith.pipeline.jsonvalue import adapter
from edgesmith.pipeline.values import Kind
from edgesmith.prune.options import FORMATS
from edgesmith.prune.surgery import Conv
from edgesmith.prune.values import CostFigure
from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.cost import CostModel, Figure, Metric, cost_model
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx

if TYPE_CHECKING:
    from edgesmith.targets.base import Target
    from edgesmith.targets.graph.ir import Graph

Inputs = npt.NDArray[np.float32]
QUICK = PTQOptions(ranges="min-max", equalize=False, bias_correction=False)
SAMPLES = 8
"""Inputs that give representative scales."""


def quick(quantize_parameters: Mapping[str, Any]) -> PTQOptions:
    """The formats of a `quantize` stage's parameters, quantized without care for accuracy.

    Raises:
        pydantic.ValidationError: they are none; the spec's check refuses them before.
    """
    formats = {key: quantize_parameters[key] for key in FORMATS if key in quantize_parameters}
    rest = {"ranges": "min-max", "equalize": False, "bias_correction": False}
    found: PTQOptions = adapter(PTQOptions).validate_python({**formats, **rest})
    return found


def noise(sample_shape: tuple[int, ...]) -> Inputs:
    """[SAMPLES, *sample shape], for where scales do not matter."""
    inputs = np.random.default_rng(0).standard_normal((SAMPLES, *sample_shape))
    return inputs.astype(np.float32)


def exported(model: nn.Module, inputs: Inputs, formats: PTQOptions) -> bytes:
    """The QDQ ONNX file of a model, with scales of a few inputs [N, *sample shape]."""
    found: bytes = to_onnx(quantize(model, inputs, formats, seed=0)).SerializeToString()
    return found


class Costs(Protocol):
    """Costs of whole models, all in one unit."""

    note: str
    """What a reader must know about these numbers; may be empty."""
    counted: bool
    """Whether they are counts of the target, which no second measurement can contradict."""

    def measure(self, models: Sequence[nn.Module]) -> list[CostFigure]:
        """One figure per model."""


def costs_on(
    target: Target,
    folder: Path,
    inputs: Inputs,
    metric: str | None = None,
    formats: PTQOptions = QUICK,
) -> Costs:
    """The target's own costs, or multiply-accumulates where it has no cost model.

    Args:
        folder: where the cost model keeps what it measures.
        inputs: [N, *sample shape], `SAMPLES` of the training split.
        metric: what is to fall; the target's usual one if None.

    Raises:
        PruningError: the target has no such metric.
    """
    known = target.describe().cost_metrics
    if metric is not None and metric not in known:
        raise PruningError(
            f"target {target.name!r} has no {metric} figure",
            fix=f"choose a metric of {', '.join(known)}" if known else "leave `metric` out",
        )
    if not known:
        return MacCosts(inputs.shape[1:], target.name)
    table = cost_model(target, folder)
    return TargetCosts(target, table, inputs, Metric(metric or known[0]), formats)


class TargetCosts:
    """Costs that the target's cost model has measured.

    Args:
        inputs: [N, *sample shape], which scales are taken from.
        metric: what is to fall.
        formats: how the deployed model will be quantized.
    """

    note = ""

    def __init__(
        self,
        target: Target,
        table: CostModel,
        inputs: Inputs,
        metric: Metric,
        formats: PTQOptions,
    ) -> None:
        self._target = target
        self._table = table
        self._inputs = inputs
        self._metric = metric
        self._formats = formats
        self.counted = table.counted

    def measure(self, models: Sequence[nn.Module]) -> list[CostFigure]:
        """Costs of models, layers that nobody knows measured together.

        Raises:
            ToolMissingError, ToolFailedError: they cannot be measured.
        """
        graphs = [self.lowered(model) for model in models]
        self._table.fill(graphs)
        return [self._figure(graph) for graph in graphs]

    def lowered(self, model: nn.Module) -> Graph:
        """The legalized graph of a model."""
        graph = read_onnx(exported(model, self._inputs, self._formats), "candidate")
        return legalize(graph, self._target.describe())

    def _figure(self, graph: Graph) -> CostFigure:
        try:
            figures = self._table.model(graph).figures
        except DoesNotFitError:  # what is pruned may fit; until then its layers' sum must do
            parts = [self._table.layer(op, graph).figures for op in graph.ops]
            figures = {self._metric: _sum([part[self._metric] for part in parts])}
        found = figures[self._metric]
        basis = f"cost model of {self._target.name}"
        return CostFigure(found.value, found.unit, found.kind, basis)


def _sum(figures: Sequence[Figure]) -> Figure:
    first = figures[0]
    total = sum(each.value for each in figures)
    return Figure(total, first.unit, first.kind, first.samples, total, total)


class MacCosts:
    """Multiply-accumulates of convolutions and linear layers, counted in one forward pass."""

    counted = False

    def __init__(self, sample_shape: tuple[int, ...], target: str) -> None:
        self._shape = sample_shape
        self.note = (
            f"target {target!r} has no cost model: pruning was guided by multiply-accumulates of"
            " convolutions and linear layers, which is no measurement"
        )

    def measure(self, models: Sequence[nn.Module]) -> list[CostFigure]:
        """MACs of one sample."""
        basis = "counted multiply-accumulates"
        return [
            CostFigure(macs(each, self._shape), "MACs", Kind.ESTIMATED, basis) for each in models
        ]


@torch.no_grad()
def macs(model: nn.Module, sample_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and linear layers on one sample."""
    total = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (*Conv, nn.Linear))
        total += output.numel() * math.prod(layer.weight.shape[1:])

    layers = [m for m in model.modules() if isinstance(m, (*Conv, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = model.training
    model.eval()(torch.zeros(1, *sample_shape))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return total
