"""The algorithms of post-training quantization in their order, each by its option.

Before ranges are found: other weights for the same function (`equalize`, `smooth_quant`).
After weight scales are found: which way weights round (`learned_rounding` or `gptq`), and
biases that make up for it (`bias_correction`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgesmith.quantize.bias_correction import correct_biases
from edgesmith.quantize.data_free import correct_biases_analytically
from edgesmith.quantize.equalize import equalize
from edgesmith.quantize.gptq import round_by_gptq
from edgesmith.quantize.learned_rounding import learn_rounding
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import DataFree, PTQOptions
from edgesmith.quantize.smooth import migrate

Report = Callable[[str, int, int | None], None]
CHECK_SAMPLES = 4
"""Samples on which networks that must compute the same are compared."""


def stand_ins(sample_shape: tuple[int, ...], options: DataFree) -> Tensor:
    """Random inputs for those checks where there is no data; always the same."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(CHECK_SAMPLES, *sample_shape, generator=generator)
    return options.low + (options.high - options.low) * shares


def even_out(network: Network, samples: Tensor, options: PTQOptions) -> None:
    """Change a float network in place into one that computes the same and rounds better.

    Args:
        samples: calibration inputs [N, *sample shape], or `stand_ins`.

    Raises:
        QuantizationError: it computes something else afterwards.
    """
    if options.equalize:
        equalize(network, samples[:CHECK_SAMPLES])
    if options.smooth_quant is not None:
        migrate(network, samples, options.smooth_quant)


def round_weights(
    floating: Network, fake: Network, samples: Tensor, options: PTQOptions, seed: int, tell: Report
) -> None:
    """Freeze codes and correct biases of a fake-quantized network in place.

    What is not frozen here rounds to nearest.

    Args:
        floating: the float network.
        samples: calibration inputs [N, *sample shape], or `stand_ins`.
        tell: called with a label, parts done and parts in all.
    """
    learned: frozenset[str] = frozenset()
    if options.learned_rounding is not None:
        learned = learn_rounding(
            floating,
            fake,
            samples,
            options.learned_rounding,
            seed=seed,
            progress=lambda done, total: tell("learned rounding", done, total),
        )
    if options.gptq is not None:
        round_by_gptq(
            floating,
            fake,
            samples,
            options.gptq,
            progress=lambda done, total: tell("GPTQ", done, total),
        )
    if options.bias_correction and options.data_free is not None:
        shape = tuple(samples.shape[1:])
        correct_biases_analytically(floating, fake, shape, options.data_free)
    elif options.bias_correction:
        correct_biases(fake, torch.split(samples, options.batch_size), learned)
    tell("bias correction", 1, 1)
