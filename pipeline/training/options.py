"""What training can be told; imports no torch, so that specs are linted quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Pixels = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Training:
    """A short training: cross-entropy and distillation from a teacher.

    Args:
        epochs: at most so many over the train split.
        learning_rate: at the start; falls to 0 by a cosine.
        distillation: weight of the teacher's outputs against the labels, 0 to 1.
        patience: epochs without a better selection accuracy after which it stops.
        keep: the epoch with the best selection accuracy, or the last, and then no patience ends
            it: where every epoch has nearly all of a small split right, the best is so by chance,
            and the last has learned longest at the smallest steps.
        flip: mirror half of the images.
        shift: move images by up to so many pixels, or by so many rows and columns. Zeros move in,
            which are black in an image, but no silence in cepstra.
        precision: of activations and their gradients in training; `bfloat16` is faster on
            processors that have it. Weights are updated, and accuracy measured, in float32.
    """

    epochs: Count = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Positive = 2.0
    patience: Count = 4
    keep: Literal["best", "last"] = "best"
    flip: bool = False
    shift: Pixels | tuple[Pixels, Pixels] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
