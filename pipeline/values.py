"""The values that flow between stages: frozen dataclasses that round-trip to JSON.

`QFormat` and `Policy` say how numbers are stored, `BuildPlan` and
`BuildProducts` what a target wants made, `Measurement` what was found.
Search adds `Candidate` and `Trial` on top of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Granularity(StrEnum):
    """What one scale covers."""

    PER_TENSOR = "per-tensor"
    PER_CHANNEL = "per-channel"


@dataclass(frozen=True)
class QFormat:
    """An integer number format as a value.

    `symmetric` fixes the zero point at 0; `narrow` leaves the most negative
    code unused, so that codes lie in [-(2**(bits-1) - 1), 2**(bits-1) - 1].
    """

    bits: int
    signed: bool = True
    symmetric: bool = False
    narrow: bool = False
    granularity: Granularity = Granularity.PER_TENSOR
    power_of_two_scale: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise ValueError(f"bits must be in 1..32, not {self.bits}")

    @property
    def qmin(self) -> int:
        """Smallest code."""
        return (-(1 << (self.bits - 1)) + int(self.narrow)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def name(self) -> str:
        """Short name, as specs and tables use it: `int8`, `uint4`, ..."""
        return f"{'' if self.signed else 'u'}int{self.bits}"


INT4_WEIGHT = QFormat(4, symmetric=True, narrow=True, granularity=Granularity.PER_CHANNEL)
INT8_WEIGHT = QFormat(8, symmetric=True, narrow=True, granularity=Granularity.PER_CHANNEL)
INT8_ACTIVATION = QFormat(8)
INT16_ACTIVATION = QFormat(16, symmetric=True)


@dataclass(frozen=True)
class GroupFormats:
    """The formats of one fusable group (conv + batch norm + activation)."""

    weight: QFormat | None
    activation: QFormat


@dataclass(frozen=True)
class Policy:
    """Which formats every fusable group uses, by the group's name."""

    groups: dict[str, GroupFormats]


class Kind(StrEnum):
    """How a number came to be. No report ever merges kinds."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class Interval:
    """A confidence interval and its level (0.95 means 95 %)."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to believe it."""

    metric: str
    value: float
    unit: str
    kind: Kind
    target: str
    samples: int
    interval: Interval | None = None
    conditions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One program run of a build plan; arguments are never joined into a shell string."""

    arguments: tuple[str, ...]
    timeout_s: float = 600.0


@dataclass(frozen=True)
class BuildPlan:
    """Pure data: which files to write and which commands to run in their folder.

    `files` maps a relative path to its bytes. Generators return plans, so they
    are testable without the tools that the commands name.
    """

    files: dict[str, bytes]
    commands: tuple[Command, ...] = ()
    main: str = ""


@dataclass(frozen=True)
class BuildProducts:
    """What an executor made of a plan: the folder and the main artifact in it."""

    folder: str
    main: str
