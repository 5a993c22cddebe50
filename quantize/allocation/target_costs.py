"""What groups cost on a target in every format, asked of the target's cost model.

One uniformly quantized model per pair of formats is exported and legalized as it would ship; the
cost model measures the layers that it does not know yet. Changes of format between neighbours
are costed as the `Quantize` that the exported model would have there.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from edgesmith.pipeline.errors import AllocationError
from edgesmith.pipeline.lowering import read_model
from edgesmith.pipeline.values import Kind
from edgesmith.quantize.engines.options import OWN
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.network import INPUT, Step
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.base import Target
from edgesmith.targets.cost import CostModel, Metric
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.legalizer import legalize

FloatArray = npt.NDArray[np.float32]
ADDITIVE = (Metric.INSTRUCTIONS, Metric.CYCLES, Metric.TIME)
"""Metrics of which a model's total is the sum of its layers'."""


@dataclass(frozen=True)
class GroupCost:
    """One group in one weight and one activation format."""

    group: str
    weight: str
    activation: str
    value: float


@dataclass(frozen=True)
class EdgeCost:
    """Converting what `source` gives into the format that `consumer` computes in."""

    source: str
    consumer: str
    given: str
    wanted: str
    value: float


@dataclass(frozen=True)
class TargetCosts:
    """All of them, in one unit.

    Args:
        base: what an inference costs beside its groups.
        error: mean relative error of the cost model against whole models; None if not known.
    """

    target: str
    metric: Metric
    unit: str
    kind: Kind
    base: float
    groups: tuple[GroupCost, ...]
    edges: tuple[EdgeCost, ...]
    error: float | None


def target_costs(
    model: nn.Module,
    calibration: FloatArray,
    options: PTQOptions,
    weights: Sequence[str],
    activations: Sequence[str],
    *,
    target: Target,
    costs: CostModel,
    metric: Metric = Metric.INSTRUCTIONS,
) -> TargetCosts:
    """Cost of every group in every combination of formats.

    Args:
        calibration: a few inputs [N, *sample shape]; ranges have no influence on cost.
        weights, activations: names of formats; at least one each.
        metric: instructions, cycles or time.

    Raises:
        AllocationError: a metric that does not add up over layers, or that the target lacks.
        UnsupportedError: a format or operator that the target lacks.
        ToolMissingError, ToolFailedError: a layer is not known and cannot be measured.
    """
    if metric not in ADDITIVE:
        raise AllocationError(
            f"{metric} of a model is not the sum of its layers'",
            fix=f"allocate by {', '.join(ADDITIVE)}, or by weight-bytes",
        )
    plain = replace(
        options,
        ranges="min-max",
        learned_rounding=None,
        gptq=None,
        smooth_quant=None,
        bias_correction=False,
        engine=OWN,
        neural_compressor=None,
    )
    graphs: dict[tuple[str, str], Graph] = {}
    steps: tuple[Step, ...] = ()
    for weight, activation in itertools.product(weights, activations):
        uniform = replace(plain, weights=weight, activations=activation, overrides=())
        quantized = quantize(model, calibration, uniform, seed=0)
        steps = quantized.placement.steps
        with tempfile.TemporaryDirectory(prefix="edgesmith-allocate-") as folder:
            path = Path(folder) / "model.onnx"
            export_qdq(quantized, path)
            graphs[weight, activation] = legalize(read_model(path), target.describe())
    costs.fill(list(graphs.values()))
    found = {formats: costs.model(graph) for formats, graph in graphs.items()}
    first = next(iter(found.values()))
    if metric not in first.figures:
        raise AllocationError(
            f"the cost model of {first.target!r} gives no {metric}",
            fix=f"allocate by {', '.join(each for each in first.figures if each in ADDITIVE)}",
        )
    return TargetCosts(
        target=first.target,
        metric=metric,
        unit=first[metric].unit,
        kind=first[metric].kind,
        base=first.overhead[metric].value,
        groups=tuple(
            GroupCost(layer.name, *formats, layer[metric].value)
            for formats, model_cost in found.items()
            for layer in model_cost.layers
        ),
        edges=_edges(steps, {a: graphs[weights[0], a] for a in activations}, costs, metric),
        error=None if first.error is None else first.error.metrics[metric].mean,
    )


def _edges(
    steps: tuple[Step, ...], graphs: Mapping[str, Graph], costs: CostModel, metric: Metric
) -> tuple[EdgeCost, ...]:
    made = {INPUT, *(step.name for step in steps)}
    found = []
    for step in steps:
        for source in step.inputs:
            if source not in made or step.op.shares_quantizer:
                continue  # a constant has its reader's format, tied tensors that of each other
            for given, wanted in itertools.permutations(graphs, 2):
                one, other = graphs[given].tensors.get(source), graphs[wanted].tensors.get(source)
                if one is not None and other is not None:
                    value = costs.edge(one, other)[metric].value
                    found.append(EdgeCost(source, step.name, given, wanted, value))
    return tuple(found)
