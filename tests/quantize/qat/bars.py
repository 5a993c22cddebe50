"""A small trained classifier and its data, for tests of quantization-aware training."""

from __future__ import annotations

from functools import cache

from torch import nn

from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.qat.train import Learning
from tests.prune.nets import blobs, trained

DATA = Learning(blobs(256, 0), blobs(128, 2))
TEST = blobs(256, 3)


@cache
def model() -> nn.Module:
    """Trained once; not to be changed."""
    return trained(8, steps=40)


def start(options: PTQOptions) -> QuantizedModel:
    """After post-training quantization."""
    return quantize(model(), DATA.train.inputs[:96], options, seed=0)
