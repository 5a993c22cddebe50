"""What a target is: a description of itself, a build, a way to run and to measure.

A target is one file in this folder; its stem is its name on the command line.
It describes what it takes as data (`TargetDescription`), so the legalizer, the
spec checker and the search read facts instead of asking for names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgesmith.pipeline.errors import SpecError
from edgesmith.pipeline.results import Device, LatencySeries

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgesmith.pipeline.tools import Tool
    from edgesmith.pipeline.values import BuildPlan, BuildProducts
    from edgesmith.targets.graph.ir import Graph

    Codes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class OpFormat:
    """One combination of storage types that an operator takes.

    `output` matters to Quantize alone: every other operator gives the type that it takes.
    None there stands for any type.
    """

    activation: str
    weight: str | None = None
    bias: str | None = None
    per_channel: bool = False
    output: str | None = None


@dataclass(frozen=True)
class TargetDescription:
    """Facts about a target that the legalizer, the checker and the search read.

    `ops` maps an IntegerGraph operator kind to the formats it takes there.
    `lsb_budget` and `differing_codes` say how far results may lie from the reference's.
    Sizes are bytes and None where the target sets no limit.
    """

    name: str
    title: str
    summary: str
    ops: Mapping[str, tuple[OpFormat, ...]]
    rounding_profile: str
    lsb_budget: Mapping[str, int] = field(
        default_factory=dict
    )  # "Kind/dtype", "Kind" or "*" -> LSB
    explicit_padding: bool = False  # convolution padding other than SAME and VALID
    channel_divisor: int = 1
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    clock_hz: int | None = None
    omits_zeros: bool = False  # keeps weights without their zeros where that takes fewer bytes
    cost_metrics: tuple[str, ...] = ()  # of its cost model, the usual one first; () without one
    differing_codes: float | None = None  # of 8-bit floats: share of a tensor's codes; None: any

    def lsb(self, kind: str, dtype: str) -> int:
        """How far one operator's codes may lie from the reference executor's; 0 is bit-exact."""
        keys = (f"{kind}/{dtype}", kind, "*")
        return next((self.lsb_budget[key] for key in keys if key in self.lsb_budget), 0)

    def facts(self) -> dict[str, object]:
        """What enters a cache key: every field, JSON-ready."""
        from edgesmith.pipeline.jsonvalue import to_data

        data: dict[str, object] = to_data(self)
        return data


@dataclass(frozen=True)
class LatencyOptions:
    """How latency is measured.

    Args:
        burst: calls of one model before it is the next one's turn. More than one leave out the
            first of each turn, which finds the caches as the other models left them.
    """

    warmups: int = 10
    runs: int = 100
    threads: int = 1
    burst: int = 1


@dataclass(frozen=True)
class LatencyRun:
    """What `Target.measure_latency` found: both models timed interleaved in one run."""

    deployed: LatencySeries
    float_baseline: LatencySeries | None


class Target(ABC):
    """A device or runtime that IntegerGraphs are deployed to."""

    name: ClassVar[str]
    deploys_exported: ClassVar[bool] = False
    """The artifact is the exported QDQ file as it is, with floats that no IntegerGraph has."""
    size_name: ClassVar[str] = "deployed file"
    """What `deployed_bytes` is the size of, as reports name it."""

    @classmethod
    def with_options(cls, name: str, given: Mapping[str, str]) -> type[Target]:
        """The target as `name@board,option=value` asks for it.

        Args:
            name: the whole text; the name of what is returned.
            given: option -> value; what follows `@` is the option `board`.

        Raises:
            SpecError: an option that this target does not have.
        """
        raise SpecError(
            f"target {cls.name!r} takes no options, got {name!r}", fix=f"write {cls.name!r}"
        )

    @abstractmethod
    def describe(self) -> TargetDescription:
        """The facts; pure, needs no tool installed."""

    @abstractmethod
    def tools(self) -> Sequence[Tool]:
        """Programs and packages that build, run or measure need."""

    @abstractmethod
    def build(self, graph: Graph) -> BuildPlan:
        """Files and commands that make the artifact; pure."""

    def build_exported(self, exported: bytes) -> BuildPlan:
        """The artifact of a target that deploys the exported file itself."""
        raise NotImplementedError

    @abstractmethod
    def shipped(self, products: BuildProducts) -> Graph:
        """The graph as read back from the artifact: what parity is checked on."""

    @abstractmethod
    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        """Run the artifact on a batch of samples.

        Args:
            inputs: one array of input codes per graph input, shape [samples, *tensor shape].
            trace: also return every intermediate tensor that the runtime can show.

        Returns:
            Tensor name -> codes [samples, *tensor shape]; always every graph output.
        """

    def reference(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        """What the artifact should compute, as `run` returns it: the reference executor's codes."""
        from edgesmith.targets.graph.reference import PROFILES, execute

        profile = PROFILES[self.describe().rounding_profile]
        found: Any = execute(self.shipped(products), list(inputs), profile, trace=trace)
        codes: dict[str, Codes] = found
        return codes

    def unavailable(self) -> str:
        """Why this machine cannot run the target, in words; empty where it can.

        For hardware that is there or not: a run leaves such a target out and says so. What can
        be installed is a tool, and an error where it is missing.
        """
        return ""

    def interface(self) -> str | None:
        """The header of an artifact that is a folder of source; None where it is one file."""
        return None

    def details(self) -> Mapping[str, str]:
        """What else `edgesmith targets` shows, a row each: presets and options."""
        return {}

    def deployed_bytes(self, products: BuildProducts) -> int:
        """What the artifact takes on the device; the main file's size where that is it."""
        return (Path(products.folder) / products.main).stat().st_size

    def check_fit(self, products: BuildProducts) -> None:  # noqa: B027 - most targets have room
        """Check the artifact against the target's memory.

        Raises:
            DoesNotFitError: says by how much, which layers, and what would help.
        """

    @abstractmethod
    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        """Write the float model as this target runs it, or None where it cannot."""

    @abstractmethod
    def measure_latency(
        self, products: BuildProducts, baseline: Path | None, options: LatencyOptions
    ) -> LatencyRun | None:
        """Time both models interleaved, one sample per call; None where nothing runs."""

    def device(self, products: BuildProducts, inputs: Sequence[Codes]) -> Device | None:
        """What running on the device's core costs; None for targets that run on this machine.

        Args:
            inputs: as `run` takes them, a few samples.
        """
        return None

    @abstractmethod
    def peak_memory_bytes(self, products: BuildProducts) -> int | None:
        """Peak resident memory that loading and invoking adds, or None where unknown."""
