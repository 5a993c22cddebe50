"""The table of normalization rules, and what is advised for operators that have none.

A rule says how one operator of torch is written with the operators of `ops.py`.
It is a function of the call and its arguments under torch's own argument names,
registered for every spelling. Modules are read as calls of the function that
they wrap (`MODULES`). The rules are in `rules_compute.py`, `rules_attention.py` and
`rules_shape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

Apply = TypeVar("Apply", bound=Callable[..., Any])

SUPPORTED = (
    "use convolution 1-D/2-D, linear, matmul, add, sub, mul, average/max pooling, mean,"
    " relu, relu6, clamp, hardswish, hardsigmoid, sigmoid, silu, tanh, gelu, softmax, layer norm,"
    " attention, cat, reshape, permute, pad, slicing, chunk, split or interpolate instead, or"
    " leave it out of the deployed model"
)
_NORM = "train with batch normalization, which folds into convolutions"
_RELU = "train with relu or relu6 instead"
_LOGITS = "return the logits and do this outside of the deployed model"
ADVICE: Mapping[str, str] = {
    "elu": _RELU,
    "leakyrelu": _RELU,
    "leaky_relu": _RELU,
    "prelu": _RELU,
    "groupnorm": _NORM,
    "instancenorm2d": _NORM,
    "transformerencoderlayer": "write the block as MultiheadAttention, LayerNorm and linear",
    "transformerencoder": "write the blocks as MultiheadAttention, LayerNorm and linear",
    "logsoftmax": _LOGITS,
    "log_softmax": _LOGITS,
    "convtranspose2d": "use interpolate (nearest) followed by a convolution",
    "einsum": "write it as permute and matmul",
    "stack": "use unsqueeze and cat",
}


@dataclass(frozen=True)
class Rule:
    """How a call is normalized.

    `shape_only` rules look at nothing but the first argument and the result's
    shape. `renamed` maps a module's attribute to the argument it becomes.
    """

    apply: Callable[..., Any]
    shape_only: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)


RULES: dict[object, Rule] = {}


def rule(*keys: object, shape_only: bool = False, **renamed: str) -> Callable[[Apply], Apply]:
    """Register a rule for functions, method names and module types."""

    def register(apply: Apply) -> Apply:
        RULES.update({key: Rule(apply, shape_only, renamed) for key in keys})
        return apply

    return register


_POOL = ("kernel_size", "stride", "padding", "ceil_mode")
_RESIZE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
MODULES: Mapping[type[nn.Module], tuple[object, tuple[str, ...]]] = {
    nn.ReLU: (F.relu, ()),
    nn.ReLU6: (F.relu6, ()),
    nn.Hardtanh: (F.hardtanh, ("min_val", "max_val")),
    nn.Hardswish: (F.hardswish, ()),
    nn.Hardsigmoid: (F.hardsigmoid, ()),
    nn.SiLU: (F.silu, ()),
    nn.GELU: (F.gelu, ("approximate",)),
    nn.LayerNorm: (F.layer_norm, ("normalized_shape", "weight", "bias", "eps")),
    nn.Sigmoid: (torch.sigmoid, ()),
    nn.Tanh: (torch.tanh, ()),
    nn.Softmax: (F.softmax, ("dim",)),
    nn.Flatten: (torch.flatten, ()),
    nn.Unflatten: (torch.flatten, ()),
    nn.Identity: (torch.clone, ()),
    nn.Dropout: (torch.clone, ()),
    nn.Dropout1d: (torch.clone, ()),
    nn.Dropout2d: (torch.clone, ()),
    nn.AlphaDropout: (torch.clone, ()),
    nn.AdaptiveAvgPool1d: (F.adaptive_avg_pool1d, ("output_size",)),
    nn.AdaptiveAvgPool2d: (F.adaptive_avg_pool2d, ("output_size",)),
    nn.AvgPool1d: (F.avg_pool1d, (*_POOL, "count_include_pad")),
    nn.AvgPool2d: (F.avg_pool2d, (*_POOL, "count_include_pad", "divisor_override")),
    nn.MaxPool1d: (F.max_pool1d, (*_POOL, "dilation", "return_indices")),
    nn.MaxPool2d: (F.max_pool2d, (*_POOL, "dilation", "return_indices")),
    nn.ZeroPad1d: (F.pad, ("padding", "value")),
    nn.ZeroPad2d: (F.pad, ("padding", "value")),
    nn.ConstantPad1d: (F.pad, ("padding", "value")),
    nn.ConstantPad2d: (F.pad, ("padding", "value")),
    nn.Upsample: (F.interpolate, _RESIZE),
    nn.UpsamplingNearest2d: (F.interpolate, _RESIZE),
    nn.UpsamplingBilinear2d: (F.interpolate, _RESIZE),
}
