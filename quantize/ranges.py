"""Activation ranges: from calibration data, or from batch-norm statistics without any.

Two passes over the data: extremes first (`min-max`), then one histogram per quantizer between
them, from which the other methods choose: `ranges_percentile.py`, `ranges_mse.py`,
`ranges_kl.py`. Zero is inside every range and exactly a code. Own implementation: Brevitas
averages statistics over batches, which depends on how data is batched. Without data:
`data_free.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.data_free import statistical_ranges
from edgesmith.quantize.histogram import Histogram
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.ranges_kl import kl_range
from edgesmith.quantize.ranges_mse import mse_range
from edgesmith.quantize.ranges_percentile import percentile_range


@torch.no_grad()
def find_ranges(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    options: PTQOptions,
) -> dict[str, Affine]:
    """Scale and zero point of every quantizer.

    Args:
        network: the float network with the placement's steps.
        batches: starts a pass over the calibration data, [n, *sample shape] each; of the
            data-free mode only the shape of the first sample is used.

    Raises:
        QuantizationError: a tensor has NaN or infinite values on the calibration data, or no
            statistics tell its range.
    """
    affines = {
        name: Affine(np.float32(scale), zero_point, placement.formats[name])
        for name, (scale, zero_point) in placement.fixed.items()
    }
    if options.data_free is not None:
        shape = tuple(next(iter(batches())).shape[1:])
        chosen = statistical_ranges(network, placement, shape, options.data_free)
    else:
        chosen = _observed_ranges(network, placement, batches, options)
    for name, (low, high) in chosen.items():
        affines[name] = Affine.of_range(low, high, placement.formats[name])
    return affines


def _observed_ranges(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    options: PTQOptions,
) -> dict[str, tuple[float, float]]:
    extremes: dict[str, tuple[float, float]] = {}

    def note(quantizer: str, name: str, values: Tensor) -> None:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low + high):
            raise QuantizationError(
                f"tensor {name!r} has NaN or infinite values on the calibration data",
                fix="check the calibration data and its normalization",
            )
        old = extremes.get(quantizer, (low, high))
        extremes[quantizer] = (min(old[0], low), max(old[1], high))

    _pass(network, placement, batches, note)
    if options.ranges == "min-max":
        return extremes
    return _from_histograms(network, placement, batches, options, extremes)


def _from_histograms(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    options: PTQOptions,
    extremes: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    histograms = {
        name: Histogram(*pair)
        for name, pair in extremes.items()
        if pair[0] < pair[1] and name not in placement.parameters
    }

    def count(quantizer: str, name: str, values: Tensor) -> None:
        if quantizer in histograms:
            histograms[quantizer].add(values)

    _pass(network, placement, batches, count)
    chosen = dict(extremes)
    for name, histogram in histograms.items():
        chosen[name] = _range(histogram, placement.formats[name], options)
    return chosen


def _range(histogram: Histogram, fmt: QFormat, options: PTQOptions) -> tuple[float, float]:
    if options.ranges == "percentile":
        return percentile_range(histogram, options.percentile)
    return kl_range(histogram, fmt) if options.ranges == "kl" else mse_range(histogram, fmt)


def _pass(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    see: Callable[[str, str, Tensor], None],
) -> None:
    """Show every observed tensor, with its quantizer, once per batch; constants once."""
    watched = {name: root for root, names in placement.observed.items() for name in names}

    def visit(name: str, value: Tensor) -> None:
        if name in watched:
            see(watched[name], name, value)

    for name, value in network.constants().items():
        visit(name, value)
    for batch in batches():
        network(batch, visit)
