"""Quantization by an engine: its numbers, completed by the pipeline's rule, as integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from edgesmith.pipeline.evaluation import predictions
from edgesmith.pipeline.splits import Split
from edgesmith.quantize.engines.adoption import Adopted, adopt
from edgesmith.quantize.engines.base import Chosen, Task, find_engine
from edgesmith.quantize.engines.values import EngineReport
from edgesmith.quantize.integers import assemble
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.ranges import find_ranges
from edgesmith.quantize.searched import Searched


def quantize_by_engine(
    network: Network,
    placement: Placement,
    samples: Tensor,
    options: PTQOptions,
    selection: Split | None,
    tell: Callable[[str, int, int | None], None],
) -> tuple[Searched, EngineReport]:
    """Integers of a network with the numbers of `options.engine`.

    Args:
        network: the float network with the placement's steps.
        samples: calibration inputs [N, *sample shape].
        selection: what recipes are compared on; None where there is nothing to compare.

    Raises:
        ToolMissingError: the engine's package is not installed.
        QuantizationError: it fails, or cannot do what the options ask for.
    """
    ruled = find_ranges(network, placement, lambda: samples.split(options.batch_size), options)

    def adopted(chosen: Chosen) -> Adopted:
        return adopt(chosen, network, placement, ruled, search=options.ranges == "mse")

    score = score_float = None
    if selection is not None:
        held = selection

        def score(chosen: Chosen) -> float:
            integers = adopted(chosen).integers(network, placement)
            return _accuracy(assemble(network, placement, integers), held, options.batch_size)

        def score_float() -> float:
            return _accuracy(network, held, options.batch_size)

    choose = find_engine(options.engine)
    chosen = choose(Task(network, placement, samples, options, score, score_float, tell))
    numbers = adopted(chosen)
    report = EngineReport(
        chosen.engine,
        chosen.recipe,
        numbers.taken,
        numbers.of,
        len(numbers.codes),
        len(numbers.weights),
        numbers.deviations,
        chosen.trials,
        chosen.float_accuracy_percent,
        chosen.ended,
    )
    return numbers.integers(network, placement), report


@torch.no_grad()
def _accuracy(module: nn.Module, split: Split, batch: int) -> float:
    """Percent of samples whose largest output is their label."""
    inputs = torch.from_numpy(np.ascontiguousarray(split.inputs, np.float32))
    outputs = torch.cat([module(part) for part in inputs.split(batch)]).numpy()
    return 100.0 * float((predictions(outputs) == split.labels).mean())
