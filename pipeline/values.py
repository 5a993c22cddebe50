"""The values that flow between stages: frozen dataclasses that round-trip to JSON.

`QFormat` and `Policy` say how numbers are stored, `BuildPlan` and
`BuildProducts` what a target wants made, `Measurement` what was found.
Search adds `Candidate` and `Trial` on top of these.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Granularity(StrEnum):
    """What one scale covers."""

    PER_TENSOR = "per-tensor"
    PER_CHANNEL = "per-channel"


class Special(StrEnum):
    """Which codes of a float format are no finite numbers."""

    NONE = "none"
    """All codes are finite, as in OCP Microscaling's FP4 and FP6."""
    NAN = "nan"
    """All ones are NaN and there is no infinity: OCP E4M3."""
    IEEE = "ieee"
    """The largest exponent is infinity and NaN: OCP E5M2."""


@dataclass(frozen=True)
class QFormat:
    """A number format as a value: integers of 1 to 32 bits, floats of at most 16, and float32.

    With `exponent_bits` it is a float: a sign, the exponent, and the remaining bits of
    mantissa, with subnormals and the bias 2**(exponent_bits - 1) - 1. Else it is an
    integer; signed with one bit it is binary, with the codes -1 and +1.

    `symmetric` fixes the zero point at 0; `narrow` leaves the most negative
    code unused, so that codes lie in [-(2**(bits-1) - 1), 2**(bits-1) - 1].
    `quantize.formats` has the reference of every format.

    Raises:
        ValueError: a combination that is no format.
    """

    bits: int
    signed: bool = True
    symmetric: bool = False
    narrow: bool = False
    granularity: Granularity = Granularity.PER_TENSOR
    power_of_two_scale: bool = False
    exponent_bits: int = 0
    special: Special = Special.NONE

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 32:
            raise ValueError(f"bits must be in 1..32, not {self.bits}")
        if not self.is_float:
            if self.exponent_bits < 0 or self.special is not Special.NONE:
                raise ValueError("an integer format has no exponent and no special values")
            return
        if self.bits == 32 and (self.exponent_bits, self.special) == (8, Special.IEEE):
            pass  # float32: not quantized
        elif self.bits > 16 or not 1 <= self.exponent_bits <= min(8, self.bits - 1):
            raise ValueError(
                f"a float of {self.bits} bits cannot have {self.exponent_bits} exponent bits"
            )
        if not self.signed or not self.symmetric or self.narrow:
            raise ValueError("a float format is signed, symmetric and not narrow")
        if self.special is not Special.NONE and self.mantissa_bits == 0:
            raise ValueError("special values need mantissa bits")

    @property
    def is_float(self) -> bool:
        return self.exponent_bits > 0

    @property
    def is_float32(self) -> bool:
        """Not quantized at all."""
        return self.is_float and self.bits == 32

    @property
    def is_binary(self) -> bool:
        """Codes -1 and +1, and no 0."""
        return self.bits == 1 and self.signed

    @property
    def mantissa_bits(self) -> int:
        """Stored bits behind the binary point; 0 for integers."""
        return self.bits - 1 - self.exponent_bits if self.is_float else 0

    @property
    def qmin(self) -> int:
        """Smallest code of an integer format."""
        self._require_integer()
        return (-(1 << (self.bits - 1)) + int(self.narrow and self.bits > 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest code of an integer format."""
        self._require_integer()
        if self.is_binary:
            return 1
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def largest(self) -> float:
        """Largest finite value at scale 1."""
        if not self.is_float:
            return float(self.qmax)
        bias = (1 << (self.exponent_bits - 1)) - 1
        top = (1 << self.exponent_bits) - 1 - bias - int(self.special is Special.IEEE)
        steps = (2 << self.mantissa_bits) - 1 - int(self.special is Special.NAN)
        return math.ldexp(steps, top - self.mantissa_bits)

    @property
    def name(self) -> str:
        """Short name, as specs and tables use it: `int8`, `uint4`, `fp8-e4m3`, `e3m2`, ..."""
        if not self.is_float:
            return f"{'' if self.signed else 'u'}int{self.bits}"
        shape = f"e{self.exponent_bits}m{self.mantissa_bits}"
        return _NAMED.get((shape, self.special)) or shape + _SPECIAL_SUFFIX[self.special]

    @property
    def storage(self) -> str:
        """The narrowest type of ONNX files and of the IntegerGraph that holds every code.

        A minifloat lies in the 8-bit float that has all of its values.

        Raises:
            ValueError: a float that neither `float8e4m3fn` nor `float8e5m2` contains.
        """
        if not self.is_float:
            # A binary code is -1 or +1, which takes two bits in every file format.
            needed = 2 if self.is_binary else self.bits
            return f"int{next(bits for bits in (2, 4, 8, 16, 32) if bits >= needed)}"
        if self.is_float32:
            return "float32"
        for container in (FP8_E4M3, FP8_E5M2):
            if self._lies_in(container):
                return _FLOAT8[container.name]
        raise ValueError(f"no 8-bit float contains all values of {self.name}")

    @property
    def activation_storage(self) -> str:
        """The type that holds activations of this format: no runtime has one below 8 bits."""
        return "int8" if not self.is_float and self.bits < 8 else self.storage

    def _lies_in(self, other: QFormat) -> bool:
        lowest, its_lowest = (
            2 - (1 << (fmt.exponent_bits - 1)) - fmt.mantissa_bits for fmt in (self, other)
        )
        finer = self.mantissa_bits <= other.mantissa_bits
        return finer and lowest >= its_lowest and self.largest <= other.largest

    def _require_integer(self) -> None:
        if self.is_float:
            raise ValueError(f"{self.name} is a float format, without integer codes")

    def __str__(self) -> str:
        """All of it as text, which `parse` reads: `int4-symmetric-narrow-per-channel`."""
        flags = {
            "symmetric": self.symmetric and not self.is_float,
            "narrow": self.narrow,
            str(Granularity.PER_CHANNEL): self.granularity is Granularity.PER_CHANNEL,
            "pow2": self.power_of_two_scale,
        }
        return "-".join((self.name, *(flag for flag, given in flags.items() if given)))

    @classmethod
    def parse(cls, text: str) -> QFormat:
        """The format that a text names; what the text leaves out is the field's default.

        Raises:
            ValueError: the text names no format.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is no number format; write `int8`, `uint4`, `fp8-e4m3`, `fp8-e5m2` or "
                "`e3m2`, then `-symmetric`, `-narrow`, `-per-channel`, `-pow2` in this order"
            )
        made = _base(found)
        return replace(
            made,
            symmetric=made.is_float or bool(found["symmetric"]),
            narrow=bool(found["narrow"]),
            granularity=Granularity(found["granularity"] or Granularity.PER_TENSOR),
            power_of_two_scale=bool(found["pow2"]),
        )


_TEXT = re.compile(
    r"(?:(?P<unsigned>u)?int(?P<bits>[0-9]{1,2})|(?P<named>fp8-e4m3|fp8-e5m2|float32)"
    r"|e(?P<exponent>[1-8])m(?P<mantissa>[0-9]{1,2})(?P<special>-nan|-ieee)?)"
    r"(?P<symmetric>-symmetric)?(?P<narrow>-narrow)?"
    r"(?:-(?P<granularity>per-channel|per-tensor))?(?P<pow2>-pow2)?"
)
_NAMED = {
    ("e4m3", Special.NAN): "fp8-e4m3",
    ("e5m2", Special.IEEE): "fp8-e5m2",
    ("e8m23", Special.IEEE): "float32",
}
_FLOAT8 = {"fp8-e4m3": "float8e4m3fn", "fp8-e5m2": "float8e5m2"}
_SPECIAL_SUFFIX = {Special.NONE: "", Special.NAN: "-nan", Special.IEEE: "-ieee"}


def _base(found: re.Match[str]) -> QFormat:
    if found["named"]:
        return next(fmt for fmt in (FP8_E4M3, FP8_E5M2, FLOAT32) if fmt.name == found["named"])
    if found["bits"]:
        return QFormat(int(found["bits"]), signed=not found["unsigned"])
    exponent, mantissa = int(found["exponent"]), int(found["mantissa"])
    special = Special((found["special"] or "-none")[1:])
    return minifloat(exponent, mantissa, special)


def minifloat(exponent_bits: int, mantissa_bits: int, special: Special = Special.NONE) -> QFormat:
    """A signed float format with one scale per tensor.

    Raises:
        ValueError: no such format.
    """
    return QFormat(
        1 + exponent_bits + mantissa_bits,
        symmetric=True,
        exponent_bits=exponent_bits,
        special=special,
    )


FP8_E4M3 = minifloat(4, 3, Special.NAN)
FP8_E5M2 = minifloat(5, 2, Special.IEEE)
FLOAT32 = minifloat(8, 23, Special.IEEE)
FLOAT8_STORAGE = {fmt.storage: fmt for fmt in (FP8_E4M3, FP8_E5M2)}
"""Storage type -> the format whose bit patterns it holds."""
INT4_WEIGHT = QFormat(4, symmetric=True, narrow=True, granularity=Granularity.PER_CHANNEL)
INT8_WEIGHT = QFormat(8, symmetric=True, narrow=True, granularity=Granularity.PER_CHANNEL)
INT4_ACTIVATION = QFormat(4)
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
