"""What a candidate is worth: it is cut out, quantized, and scored by its integers.

The sub-network is a plain module, its batch norms measured anew; it is quantized as the `quantize`
stage would, so the integers that are scored here are the integers that ship. Costs are the target's
own, of the graph as it would be deployed there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgesmith.nas.joint import Joint
from edgesmith.nas.space import Choice
from edgesmith.nas.statistics import recalibrated
from edgesmith.nas.values import ACCURACY, LOSS, ON
from edgesmith.pipeline.errors import DoesNotFitError, EdgesmithError
from edgesmith.pipeline.evaluation import predictions
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.training.loss import seen_loss
from edgesmith.pipeline.training.trainer import accuracy
from edgesmith.pipeline.values import Kind
from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, Ranges, quantize
from edgesmith.targets.base import Target
from edgesmith.targets.cost import CostModel, Figure, Metric
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx

Inputs = npt.NDArray[np.float32]

_MEMORY = (Metric.FLASH, Metric.ARENA)
_REMEMBERED = 16
"""Sub-networks that are kept: neighbours in a search often differ in formats alone."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The samples that candidates are made and judged with.

    Args:
        statistics: of the train split, for batch norms.
        calibration: for ranges.
        selection: for accuracy.
    """

    statistics: Inputs
    calibration: Inputs
    selection: Split


@dataclass(frozen=True, eq=False)
class _Cut:
    """A sub-network, and the ranges that were found in it."""

    module: nn.Module
    ranges: Ranges = field(default_factory=dict)


class Evaluator:
    """Scores candidates.

    Args:
        options: what they are quantized with, formats aside.
        costs: the target's; None leaves it to what shapes and formats say.
        seed: as the `quantize` stage has it.
        beside: other targets whose memory counts, and their costs.
    """

    def __init__(
        self,
        joint: Joint,
        evidence: Evidence,
        options: PTQOptions,
        target: Target,
        costs: CostModel | None,
        *,
        seed: int,
        beside: Sequence[tuple[Target, CostModel]] = (),
    ) -> None:
        self._joint = joint
        self.evidence = evidence
        self._options = options
        self._target = target
        self._costs = costs
        self._seed = seed
        self._beside = tuple(beside)
        self._cut = lru_cache(maxsize=_REMEMBERED)(self._cut_out)

    def __call__(self, choices: Mapping[str, Choice]) -> dict[str, float]:
        """`accuracy` in percent of the selection split, `loss` in nats there, what follows from
        shapes and formats, and every metric of the target's cost model.

        Raises:
            EdgesmithError: the candidate cannot be quantized, does not fit the target, or cannot be
                measured there.
        """
        with one_thread():
            return self.metrics(choices, self.quantized(choices))

    def uniform(self, weight: str, activation: str) -> dict[str, float]:
        """The same, of the trained model itself in one format of weights and one of activations;
        what follows from shapes and formats only where the search could choose them.

        Raises:
            EdgesmithError: as when called.
        """
        genes = self._joint.genes
        with one_thread():
            made = self._in_one(weight, activation)
            known = genes.takes(weight, activation)
            return self.metrics(genes.uniform(weight, activation) if known else None, made)

    def uniform_accuracy(self, weight: str, activation: str) -> float:
        """Percent, of the same, whether or not the target takes it.

        Raises:
            EdgesmithError: it cannot be quantized so.
        """
        with one_thread():
            return self._judged(self._in_one(weight, activation))[ACCURACY]

    def float_accuracy(self) -> float:
        """Percent, of the trained model as it is."""
        return accuracy(self._joint.model, self.evidence.selection)

    def kinds(self, choices: Mapping[str, Choice]) -> dict[str, Kind]:
        """Of the metrics that the target's cost model gives."""
        figures = self._figures(self.quantized(choices))
        return {metric: figure.kind for metric, figure in figures.items()}

    def _in_one(self, weight: str, activation: str) -> QuantizedModel:
        """The trained model itself, in one format of weights and one of activations."""
        options = replace(self._options, weights=weight, activations=activation, overrides=())
        return quantize(self._joint.model, self.evidence.calibration, options, seed=self._seed)

    def _judged(self, quantized: QuantizedModel) -> dict[str, float]:
        selection = self.evidence.selection
        found = quantized.predict(selection.inputs)
        right = predictions(found) == selection.labels
        loss = seen_loss(torch.from_numpy(found), torch.from_numpy(selection.labels))
        return {ACCURACY: 100.0 * float(right.mean()), LOSS: loss}

    def metrics(
        self, choices: Mapping[str, Choice] | None, quantized: QuantizedModel
    ) -> dict[str, float]:
        """What calling this gives, of a candidate that was quantized before.

        Args:
            choices: None leaves out what follows from shapes and formats.
        """
        metrics = self._judged(quantized)
        if choices is not None:
            metrics |= self._joint.counts.of(choices)
        figures = self._figures(quantized)
        return metrics | {name: each.value for name, each in figures.items()}

    def _figures(self, quantized: QuantizedModel) -> dict[str, Figure]:
        """Of the target, and the memory of those beside it."""
        if self._costs is None and not self._beside:
            return {}
        found: dict[str, Figure] = {}
        graph = _read(quantized)
        if self._costs is not None:
            known = _costed(graph, self._target, self._costs)
            found = {metric.value: figure for metric, figure in known.items()}
        for target, costs in self._beside:
            known = _costed(graph, target, costs)
            found |= {_on(metric, target): known[metric] for metric in _MEMORY}
        return found

    def quantization(self, choices: Mapping[str, Choice]) -> PTQOptions:
        """What a candidate is quantized with."""
        return replace(self._options, overrides=self._joint.genes.overrides(choices))

    @property
    def seed(self) -> int:
        """What candidates are quantized with, as the `quantize` stage has it."""
        return self._seed

    @property
    def samples(self) -> int:
        """On which accuracy is measured."""
        return len(self.evidence.selection)

    @property
    def counted(self) -> bool:
        """Whether the target's costs are counts."""
        return self._costs is not None and self._costs.counted

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of flash and of RAM that there are for a model, by metric."""
        limits: dict[str, int | None] = {}
        if self._costs is not None:
            held = _held(self._target, self._costs)
            limits = {metric.value: most for metric, most in held.items()}
        for target, costs in self._beside:
            limits |= {_on(metric, target): most for metric, most in _held(target, costs).items()}
        return {metric: most for metric, most in limits.items() if most is not None}

    def prepare(self, batch: Sequence[Mapping[str, Choice]]) -> None:
        """Have the target's cost model measure what these candidates need, all at once."""
        if self._costs is None:
            return
        quick: dict[str, Any] = {"ranges": "min-max", "equalize": False, "bias_correction": False}
        few = self.evidence.calibration[:2]
        with one_thread():
            graphs = []
            for each in batch:
                # What cannot be made is said when it is evaluated.
                with suppress(EdgesmithError):
                    options = replace(self.quantization(each), **quick)
                    made = quantize(self._of(each).module, few, options, seed=self._seed)
                    graphs.append(_read(made))
            for target, costs in ((self._target, self._costs), *self._beside):
                costs.fill([*_legalized(graphs, target)])

    def module(self, choices: Mapping[str, Choice]) -> nn.Module:
        """The sub-network, its batch norms measured anew; eval mode."""
        return copy.deepcopy(self._of(choices).module)

    def quantized(self, choices: Mapping[str, Choice]) -> QuantizedModel:
        """The candidate as it ships."""
        cut = self._of(choices)
        return quantize(
            cut.module,
            self.evidence.calibration,
            self.quantization(choices),
            seed=self._seed,
            ranges=cut.ranges,
        )

    def _of(self, choices: Mapping[str, Choice]) -> _Cut:
        architecture = self._joint.genes.architecture(choices)
        return self._cut(tuple(sorted(architecture.items())))

    def _cut_out(self, architecture: tuple[tuple[str, int], ...]) -> _Cut:
        made = self._joint.network.extract(dict(architecture))
        return _Cut(recalibrated(made, self._statistics))

    @cached_property
    def _statistics(self) -> torch.Tensor:
        return torch.from_numpy(self.evidence.statistics)


def _read(quantized: QuantizedModel) -> Graph:
    """As it is exported; not legalized yet."""
    return read_onnx(to_onnx(quantized).SerializeToString(), "candidate")


def _legalized(graphs: Sequence[Graph], target: Target) -> Iterator[Graph]:
    """Those that the target takes."""
    for each in graphs:
        with suppress(EdgesmithError):
            yield legalize(each, target.describe())


def _costed(graph: Graph, target: Target, costs: CostModel) -> Mapping[Metric, Figure]:
    """What does not fit is costed all the same: by how much it is too large tells a search where
    to go.
    """
    lowered = legalize(graph, target.describe())
    try:
        return costs.model(lowered).figures
    except DoesNotFitError:
        return costs.model(lowered, fitting=False).figures


def _held(target: Target, costs: CostModel) -> dict[Metric, int | None]:
    """Bytes that a target has; None without a limit."""
    known = target.describe()
    limits = {Metric.FLASH: known.flash_bytes, Metric.ARENA: costs.arena_limit}
    return {metric: most for metric, most in limits.items() if metric in known.cost_metrics}


def _on(metric: Metric, target: Target) -> str:
    """The name of a metric of a target beside the one whose costs count."""
    return f"{metric.value}{ON}{target.name}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: small layers are no faster on more, and sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
