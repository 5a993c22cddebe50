"""What `qat:` of the `quantize` stage can be told; imports no torch, so that linting is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgesmith.pipeline.training.options import Count, NotNegative, Positive, Training

WeightQuantizerName = Literal["auto", "lsq", "dorefa", "xnor"]


@dataclass(frozen=True)
class QAT(Training):
    """Quantization-aware training, which starts at what post-training quantization found.

    Args:
        learning_rate: of weights and biases at the start; falls to 0 by a cosine.
        distillation: weight of the trained model's outputs against the labels, 0 to 1.
        weight_quantizer: of weights of 1 and 2 bits; wider ones and floats always learn their
            step sizes (`lsq`). `xnor` is for 1 bit, `auto` is it there and `lsq` at 2 bits.
        scale_rate: learning rate of the logarithms of scales, relative to `learning_rate`;
            0 keeps the scales.
        zero_points: `learn` moves those of activations that have values on both sides of 0.
    """

    epochs: Count = 6
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.5
    weight_quantizer: WeightQuantizerName = "auto"
    scale_rate: NotNegative = 1.0
    zero_points: Literal["keep", "learn"] = "keep"
