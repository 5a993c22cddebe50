"""Post-training quantization: a float model and calibration data become integers, and stay them.

    float model -> trace -> normalize -> fold, fuse -> place quantizers (placement.py)
      -> equalize, smooth -> ranges -> weight scales -> rounding -> bias correction (algorithms.py)
      -> integers (`Searched`) -> fake-quantized module built from the integers

The last arrow is the point: the module that is scored is built from the very
codes, scales and zero points that are exported, not the other way around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydantic
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import (
    CacheError,
    CheckpointError,
    EmptySplitError,
    QuantizationError,
)
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.layer_formats import POLICY
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.algorithms import (
    CHECK_SAMPLES,
    Report,
    even_out,
    round_weights,
    stand_ins,
)
from edgesmith.quantize.engines.options import OWN
from edgesmith.quantize.engines.run import quantize_by_engine
from edgesmith.quantize.engines.values import EngineReport, load_report
from edgesmith.quantize.fakequant import fake_quantize, inference
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.integers import assemble, collect
from edgesmith.quantize.network import Network, batch_axes, with_steps
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement, place
from edgesmith.quantize.ranges import find_ranges
from edgesmith.quantize.searched import Searched
from edgesmith.quantize.target_formats import check_policy
from edgesmith.quantize.weights import WeightScales, find_scales

if TYPE_CHECKING:
    from edgesmith.targets.base import TargetDescription

FloatArray = npt.NDArray[np.float32]
Ranges = dict[frozenset[tuple[str, QFormat]], dict[str, Affine]]
"""Formats of all quantizers -> scale and zero point of each."""

_SAVED = "quantized.json"
_FLOAT_WEIGHTS = "float.safetensors"


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A quantized model: its integers, and the module that computes with them.

    Args:
        module: the fake-quantized network, eval mode, float in and out, [N, *sample shape].
        floating: the float network (folded and equalized) with the same tensor names.
        sample_shape: shape of one input, torch's axis order, without the batch.
        engine: what another engine decided; None where these algorithms did.
    """

    module: Network
    floating: Network
    placement: Placement
    options: PTQOptions
    sample_shape: tuple[int, ...]
    integers: Searched
    engine: EngineReport | None = None

    def predict(self, inputs: FloatArray, batch: int = 64) -> FloatArray:
        """Dequantized outputs [N, ...] for inputs [N, *sample shape]."""
        with torch.no_grad():
            outputs = [self._inference(x).numpy() for x in self._batches(inputs, batch)]
        return np.concatenate(outputs)

    @cached_property
    def _inference(self) -> Network:
        return inference(self.module)

    def trace(self, inputs: FloatArray, batch: int = 64) -> dict[str, FloatArray]:
        """Dequantized values of the input and of every group, by name.

        Samples lie along axis 0, wherever the model moved them; other axes are in torch's order.
        """
        return self._trace(self.module, inputs, batch)

    def float_trace(self, inputs: FloatArray, batch: int = 64) -> dict[str, FloatArray]:
        """The same tensors in the float network."""
        return self._trace(self.floating, inputs, batch)

    def searched(self) -> Searched:
        """Every scale, zero point and code."""
        return self.integers

    def save(self, folder: Path) -> None:
        """Write integers, options, formats and the float weights into an existing folder."""
        self.integers.save(folder)
        (folder / POLICY).write_text(to_json(self.placement.policy), encoding="utf-8")
        if self.engine is not None:
            self.engine.save(folder)
        saved = _Saved(self.options, self.sample_shape)
        (folder / _SAVED).write_text(to_json(saved), encoding="utf-8")
        state = {name: value.contiguous() for name, value in self.floating.state_dict().items()}
        safetensors.torch.save_file(state, str(folder / _FLOAT_WEIGHTS))

    @torch.no_grad()
    def _trace(self, network: Network, inputs: FloatArray, batch: int) -> dict[str, FloatArray]:
        found: dict[str, list[FloatArray]] = {}
        for x in self._batches(inputs, batch):
            network(x, lambda name, value: found.setdefault(name, []).append(value.numpy()))
        axes = batch_axes(self.floating, self.sample_shape)
        return {
            name: np.concatenate([np.moveaxis(each, axes[name], 0) for each in parts])
            for name, parts in found.items()
        }

    def _batches(self, inputs: FloatArray, batch: int) -> Iterator[Tensor]:
        return _batches(_checked(inputs, "input", self.sample_shape), batch)


@dataclass(frozen=True)
class _Saved:
    """What rebuilding needs beside the integers."""

    options: PTQOptions
    sample_shape: tuple[int, ...]


def quantize(
    model: nn.Module,
    calibration: FloatArray,
    options: PTQOptions,
    *,
    seed: int,
    progress: Progress | None = None,
    targets: Sequence[TargetDescription] = (),
    selection: Split | None = None,
    ranges: Ranges | None = None,
) -> QuantizedModel:
    """Quantize a trained model after training.

    Args:
        model: torch module with one input [N, *sample shape] and one output [N, ...];
            it is not changed.
        calibration: inputs [N, *sample shape], as the model gets them; in data-free mode
            only the sample shape is used, and N may be 0.
        seed: for learned rounding; everything else has no randomness.
        progress: told as parts get done.
        targets: what has to take every group's formats; checked before any other work.
        selection: labelled samples, where the options' engine compares recipes.
        ranges: of activations, found before for the same model, data and options, formats of
            weights aside; what is found here is added.

    Raises:
        EmptySplitError: no calibration samples.
        NonFiniteWeightsError: NaN or infinite weights.
        UnsupportedError: an operator that cannot be quantized.
        TargetUnsupportedError: a format that one of the targets lacks.
        QuantizationError: options, calibration data or model that cannot be used.
        ToolMissingError: the package of the options' engine is not installed.
    """
    options.check()
    tell = (progress or SilentProgress()).report
    if options.data_free is not None:
        samples = stand_ins(np.shape(calibration)[1:], options.data_free)
    else:
        samples = torch.from_numpy(_checked(calibration, "calibration"))
    network = prepare(model, samples[:CHECK_SAMPLES])
    placement = place(network.steps, network.constant_names, options)
    inputs = {step.name: step.inputs[0] for step in placement.steps}
    check_policy(placement.policy, inputs, targets)
    network = with_steps(network, placement.steps)
    if options.engine != OWN:
        searched, engine = quantize_by_engine(network, placement, samples, options, selection, tell)
        module = assemble(network, placement, searched)
        shape = tuple(samples.shape[1:])
        return QuantizedModel(module, network, placement, options, shape, searched, engine)
    even_out(network, samples, options)
    tell("equalize", 1, 1)

    passes = 1 if options.ranges == "min-max" or options.data_free is not None else 2
    ranges = {} if ranges is None else ranges
    formats = frozenset(placement.formats.items())
    if formats not in ranges:
        batches = _counted(samples, options.batch_size, passes, tell)
        ranges[formats] = find_ranges(network, placement, batches, options)
    activations = ranges[formats]
    weights = _weight_scales(network, placement, activations, options)
    fake = fake_quantize(network, placement, activations, weights)
    round_weights(network, fake, samples, options, seed, tell)
    searched = collect(fake, network, placement, activations, weights)
    module = assemble(network, placement, searched)
    return QuantizedModel(module, network, placement, options, tuple(samples.shape[1:]), searched)


def load(folder: Path, float_model: nn.Module) -> QuantizedModel:
    """What `QuantizedModel.save` wrote; `searched()` is bit-identical.

    Args:
        float_model: the model that was quantized; only its structure is used.

    Raises:
        CacheError: a file is missing or damaged.
        CheckpointError: the files belong to another model.
    """
    try:
        saved = from_json(_Saved, (folder / _SAVED).read_bytes())
        state = safetensors.torch.load_file(str(folder / _FLOAT_WEIGHTS))
    except (OSError, pydantic.ValidationError, safetensors.SafetensorError) as error:
        raise CacheError(
            f"the quantized model in {folder} cannot be read: {type(error).__name__}",
            fix="run the quantize stage again with --force quantize",
        ) from error
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(CHECK_SAMPLES, *saved.sample_shape, generator=generator)
    network = prepare(float_model, samples)
    placement = place(network.steps, network.constant_names, saved.options)
    network = with_steps(network, placement.steps)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the float weights in {folder} do not fit {type(float_model).__name__}:"
            f" {str(error).splitlines()[-1].strip()}",
            fix="load them with the model that was quantized",
        ) from error
    searched = Searched.load(folder)
    module = assemble(network, placement, searched)
    engine = load_report(folder)
    shape = saved.sample_shape
    return QuantizedModel(module, network, placement, saved.options, shape, searched, engine)


def _weight_scales(
    network: Network, placement: Placement, activations: dict[str, Affine], options: PTQOptions
) -> dict[str, WeightScales]:
    found: dict[str, WeightScales] = {}
    for step in network.layer_steps():
        layer = network.layer(step.name)
        fmt = placement.policy.groups[step.name].weight
        assert layer.bias is not None
        assert fmt is not None
        found[step.name] = find_scales(
            layer.weight.detach().numpy(),
            layer.bias.detach().numpy(),
            activations[placement.quantizer_of[step.inputs[0]]].scale,
            fmt,
            search=options.ranges == "mse",
        )
    return found


def _checked(
    inputs: FloatArray, what: str, sample_shape: tuple[int, ...] | None = None
) -> FloatArray:
    """The inputs as contiguous float32."""
    array = np.ascontiguousarray(inputs, np.float32)
    if array.ndim == 0 or len(array) == 0:
        raise EmptySplitError(
            f"the {what} data has no samples",
            fix="give at least one sample; a few hundred is usual",
        )
    if array.ndim < 2 or sample_shape not in (None, array.shape[1:]):
        raise QuantizationError(
            f"the {what} data has shape {array.shape}; expected [N, *sample shape]"
            + ("" if sample_shape is None else f" with the sample shape {sample_shape}"),
            fix="give one array with the samples along axis 0",
        )
    if not np.isfinite(array).all():
        raise QuantizationError(
            f"the {what} data has NaN or infinite values", fix="clean the data or its loader"
        )
    return array


def _batches(inputs: FloatArray, size: int) -> Iterator[Tensor]:
    for begin in range(0, len(inputs), size):
        yield torch.from_numpy(inputs[begin : begin + size])


def _counted(
    samples: Tensor, size: int, passes: int, tell: Report
) -> Callable[[], Iterator[Tensor]]:
    """Passes over the samples that report how far all of them are."""
    total = passes * -(-len(samples) // size)
    done = 0

    def one_pass() -> Iterator[Tensor]:
        nonlocal done
        for batch in torch.split(samples, size):
            yield batch
            done += 1
            tell("calibrate", done, total)

    return one_pass
