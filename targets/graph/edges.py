"""Real values in, codes in; codes out, real values out: what happens outside the graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import DataError
from edgesmith.targets.graph.ir import Layout, Quantization, Tensor

Reals = npt.NDArray[np.floating]
Codes = npt.NDArray[np.integer]


def quantize(values: Reals, quantization: Quantization, tensor: Tensor) -> Codes:
    """round(value / scale) + zero point, clamped; ties to even, in float32.

    The order matters on ties: it is that of ONNX QuantizeLinear and of the
    fake-quantized model (`quantize.affine`), so both see the same codes.
    """
    scale, zero = quantization.scalar
    codes = np.rint(values.astype(np.float32) / scale) + np.float32(zero)
    return np.asarray(np.clip(codes, tensor.dtype.qmin, tensor.dtype.qmax), tensor.dtype.numpy)


def encode_inputs(tensor: Tensor, samples: Reals, layout: Layout | None = None) -> Codes:
    """Codes [samples, *tensor shape] of a graph input.

    Args:
        tensor: the graph input; its batch is 1.
        samples: real values [samples, *sample shape], in the source model's axis order.
        layout: how the graph orders the input's elements, where that differs.

    Raises:
        DataError: the samples do not fit the tensor.
    """
    if math.prod(samples.shape[1:]) != tensor.elements or (
        layout is None and _sizes(samples.shape[1:]) != _sizes(tensor.shape)
    ):
        raise DataError(
            f"samples of shape {list(samples.shape[1:])} do not fit the model's input "
            f"{tensor.name!r} of shape {list(tensor.shape)}",
            fix="correct the data factory, or `input_shape` in the spec",
        )
    codes: npt.NDArray[Any] = samples  # a float input takes values as they are
    if tensor.dtype.is_integer:
        codes = quantize(samples, tensor.q, tensor)
    if layout is not None:
        return np.ascontiguousarray(layout.from_source(codes, tensor.shape))
    return codes.reshape(len(samples), *tensor.shape)


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that matter: batches and other axes of length 1 may come and go."""
    return tuple(size for size in shape if size != 1)
