"""What a search asks of a target's cost model, whatever the target is, and what it answers.

A model's cost is the sum of its layers' plus a constant; layers are looked up by what decides
their cost (operator, shape, formats), never by their weights' values. A cost model states its
own error, found on whole models. Other kinds of targets (latency tables, FPGA, NPU) implement
`CostModel` with the metrics that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from edgesmith.pipeline.values import Kind

if TYPE_CHECKING:
    from edgesmith.targets.graph.ir import Graph, Op, Tensor

Progress = Callable[[int, int], None]
"""Called with layers that are known and layers that were asked for, after each batch."""


class Metric(StrEnum):
    """What a cost is counted in; a target gives some of them."""

    INSTRUCTIONS = "instructions"
    CYCLES = "cycles"
    TIME = "time"
    FLASH = "flash"
    ARENA = "arena"
    SCRATCH = "scratch"


@dataclass(frozen=True)
class Figure:
    """One cost with its unit and kind.

    Args:
        samples: how many inputs it is the mean of; 1 where inputs have no influence.
        low, high: the least and the largest that it may be: over the samples for instructions,
            over what the documents leave open for estimated cycles and time.
    """

    value: float
    unit: str
    kind: Kind
    samples: int
    low: float
    high: float


@dataclass(frozen=True)
class LayerCost:
    """What one operator costs. `kernel` is empty for operators that cost nothing (reshapes)."""

    name: str
    op: str
    kernel: str
    figures: dict[Metric, Figure]

    def __getitem__(self, metric: Metric) -> Figure:
        return self.figures[metric]


@dataclass(frozen=True)
class ErrorSample:
    """One metric of one whole model: what the cost model says, and what running it gave."""

    model: str
    metric: Metric
    predicted: float
    found: float

    @property
    def relative(self) -> float:
        """Magnitude of the error, as a fraction of what was found."""
        return abs(self.predicted - self.found) / max(abs(self.found), 1.0)


@dataclass(frozen=True)
class MetricError:
    """Relative error of one metric over `samples` models, fractions."""

    mean: float
    max: float
    samples: int


@dataclass(frozen=True)
class CostError:
    """How far a cost model lies from whole-model runs."""

    target: str
    metrics: dict[Metric, MetricError]
    samples: tuple[ErrorSample, ...]

    @classmethod
    def of(cls, target: str, samples: Sequence[ErrorSample]) -> CostError:
        """From the samples; no more metrics than they have."""
        metrics = {}
        for metric in dict.fromkeys(each.metric for each in samples):
            errors = [each.relative for each in samples if each.metric is metric]
            metrics[metric] = MetricError(sum(errors) / len(errors), max(errors), len(errors))
        return cls(target, metrics, tuple(samples))


@dataclass(frozen=True)
class ModelCost:
    """What one inference of a model costs.

    Args:
        figures: of the whole model, `overhead` included.
        layers: in order of execution.
        overhead: what every inference and image costs beside its layers.
        basis: what the numbers rest on: tools, timing model, clock.
        error: of this cost model against whole models; None before `validate`.
    """

    target: str
    figures: dict[Metric, Figure]
    layers: tuple[LayerCost, ...]
    overhead: LayerCost
    basis: dict[str, str]
    error: CostError | None

    def __getitem__(self, metric: Metric) -> Figure:
        return self.figures[metric]


@dataclass(frozen=True)
class Filled:
    """What `fill` did.

    Args:
        layers: distinct ones that were asked for.
        measured: of them, those that nobody knew.
        batches: runs that this took.
        skipped: graphs that do not fit the target and so have no cost.
    """

    layers: int
    measured: int
    batches: int
    skipped: int = 0


class CostModel(Protocol):
    """Costs of layers and models on one target; graphs are legalized for it.

    Everything that is not known yet is measured when it is asked for, which takes the target's
    tools; `fill` does that for many layers at once and so much faster.
    """

    @property
    def counted(self) -> bool:
        """Whether its figures are counts, which stay the same however often they are taken."""

    def layer(self, op: Op, graph: Graph) -> LayerCost:
        """Of one operator of a graph."""

    def edge(self, source: Tensor, wanted: Tensor) -> LayerCost:
        """Of converting an activation to the format of another: zero where both have the same."""

    @property
    def arena_limit(self) -> int | None:
        """Bytes that the arena of a model may take; None where there is no limit."""

    def model(self, graph: Graph, *, fitting: bool = True) -> ModelCost:
        """Of a whole model.

        Args:
            fitting: refuse what does not fit; else its arena is what it would take.
        """

    def fill(self, graphs: Sequence[Graph], progress: Progress | None = None) -> Filled:
        """Measure every layer of these graphs that is not known."""

    def validate(self, graphs: Sequence[Graph]) -> CostError:
        """Compare with runs of whole models, and keep what was found."""
