"""What an engine is: another package that decides scales, zero points and weight codes.

An engine sees the float network and the calibration data, and says which numbers it takes;
`adoption` takes those over that the placement and the targets can hold, and names the others.
To add one: a file in this package, named as specs name it (`-` as `_`), with a function
`choose` (`Choose`); its name in `options`; its test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgesmith.quantize.engines.options import EngineName
from edgesmith.quantize.engines.values import Trial
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement


@dataclass(frozen=True)
class ActivationChoice:
    """One tensor: real = scale * (code - zero point), codes as `format` (`QFormat.name`) has them.

    The scale is a float32 number.
    """

    scale: float
    zero_point: int
    format: str


@dataclass(frozen=True, eq=False)
class WeightChoice:
    """Weights of one layer: scales float32 [output channels] or [1], codes [O, ...].

    Codes are as files hold them (of floats bit patterns), zero points are 0.
    """

    scale: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]
    format: str


@dataclass(frozen=True, eq=False)
class Chosen:
    """What an engine decided.

    Args:
        engine: its package with version.
        recipe: how, in words of the options.
        activations: tensor (the input, a step or a constant) -> its distinct numbers, one usually.
        weights: layer step -> its numbers.
        inside: steps in which the engine quantized a tensor that is no step's output.
        float_accuracy_percent: of the float model, where recipes were tried.
        ended: why no more recipes were tried.
    """

    engine: str
    recipe: str
    activations: Mapping[str, tuple[ActivationChoice, ...]]
    weights: Mapping[str, WeightChoice]
    inside: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    float_accuracy_percent: float | None = None
    ended: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """What an engine works on.

    Args:
        network: the float network with the placement's steps; not to be changed.
        samples: calibration inputs [N, *sample shape].
        score: accuracy in percent, on the selection split, of the model that ships with such
            numbers; None without labelled data.
        score_float: the same of the float network.
    """

    network: Network
    placement: Placement
    samples: Tensor
    options: PTQOptions
    score: Callable[[Chosen], float] | None = None
    score_float: Callable[[], float] | None = None
    tell: Callable[[str, int, int | None], None] = field(default=lambda label, done, total: None)

    def batches(self) -> Sequence[Tensor]:
        """The calibration samples in batches of the options' size."""
        return torch.split(self.samples, self.options.batch_size)


class Choose(Protocol):
    """The function of an engine's module.

    Raises:
        ToolMissingError: its package is not installed.
        QuantizationError: it fails on this network, or has no such formats.
    """

    def __call__(self, task: Task) -> Chosen: ...


def find_engine(name: EngineName) -> Choose:
    """The function of an engine."""
    module = import_module(f"edgesmith.quantize.engines.{name.replace('-', '_')}")
    choose: Choose = module.choose
    return choose
