"""Neural Compressor's static quantization: PT2E INT8, and FP8 in QDQ form.

INT8: the network is exported by its own helper, observed and converted by it (`StaticQuantConfig`;
observers and their placement are torchao's `X86InductorQuantizer`); scales, zero points and
weight codes are read from the quantize nodes of the converted graph. Its unsigned activation
codes c become c - 128, which is the same quantization.

FP8: it patches convolutions and linear layers of the plain module (`FP8Config`, `use_qdq`, the
only form that it has on CPUs); their scales and weight codes are read from the patched modules.

Source: https://github.com/intel/neural-compressor, version 3.10 (Apache-2.0).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import EdgesmithError, QuantizationError, ToolMissingError
from edgesmith.pipeline.versions import installed
from edgesmith.quantize.engines.base import ActivationChoice, Chosen, Task, WeightChoice
from edgesmith.quantize.engines.containment import contained
from edgesmith.quantize.engines.options import FloatScales, NeuralCompressorOptions, Observer
from edgesmith.quantize.engines.tuning import Evaluate, keep_best
from edgesmith.quantize.engines.view import NetworkView, run_all
from edgesmith.quantize.network import INPUT
from edgesmith.quantize.options import PTQOptions

PACKAGE = "neural-compressor"
FORMATS: dict[str, tuple[str, ...]] = {
    "int8": ("int8", "int8-per-tensor"),
    "fp8-e4m3": ("fp8-e4m3", "fp8-e4m3-per-tensor"),
    "fp8-e5m2": ("fp8-e5m2", "fp8-e5m2-per-tensor"),
}
"""Default activation format -> default weight formats that it quantizes beside it."""
_OBSERVERS: tuple[Observer, ...] = ("minmax", "kl")
_SCALE_METHODS: dict[FloatScales, str] = {
    "arbitrary": "maxabs_arbitrary",
    "power-of-two": "maxabs_pow2",
    "unit": "unit_scale",
}
_TRACED = 2  # samples in the exported graph's example; the batch size stays free


class Recipe(Protocol):
    """One way to quantize."""

    autotunes: ClassVar[bool]

    @property
    def words(self) -> str: ...

    def config(self, folder: Path) -> Any:
        """As Neural Compressor takes it; the folder is for what it dumps."""

    def floating(self, view: NetworkView, sample: Tensor) -> nn.Module:
        """The float module that it starts from."""

    def read(self, view: NetworkView, converted: nn.Module) -> Chosen:
        """The numbers in a converted module."""


def choose(task: Task) -> Chosen:
    """Neural Compressor's numbers for a network.

    Raises:
        ToolMissingError: the package is not installed.
        QuantizationError: formats that it lacks, no data to tune on, or it fails.
    """
    recipes = recipes_of(task.options)
    tuning = _told(task.options).tune
    if tuning is not None and task.score is None:
        raise QuantizationError(
            "tuning needs labelled samples to choose a recipe by",
            fix="add the split `selection` to the spec's data, or leave `tune` out",
        )
    view = NetworkView(task.network)
    with _neural_compressor() as folder:
        if tuning is None:
            return recipes[0].read(view, _convert(recipes[0], view, task, folder))
        return _tuned(recipes, view, task, folder)


def recipes_of(options: PTQOptions) -> tuple[Recipe, ...]:
    """The recipe that options name, then the others of the same formats.

    Raises:
        QuantizationError: formats that Neural Compressor lacks.
    """
    told = _told(options)
    if options.weights not in FORMATS.get(options.activations, ()):
        raise QuantizationError(
            f"Neural Compressor has no {options.weights} weights beside {options.activations}"
            " activations",
            fix="use int8 for both, or fp8-e4m3, or fp8-e5m2; or `engine: edgesmith`",
        )
    power_of_two = options.power_of_two_scales
    made: tuple[Recipe, ...]
    if options.activations == "int8":
        if power_of_two:
            raise QuantizationError(
                "Neural Compressor's INT8 scales are no powers of two",
                fix="leave `power_of_two_scales` out, or set `engine: edgesmith`",
            )
        per_tensor = options.weights.endswith("-per-tensor")
        made = tuple(
            StaticInt8(observer, symmetric, per_tensor)
            for symmetric, observer in itertools.product((False, True), _OBSERVERS)
        )
    else:
        if power_of_two and told.fp8_scales == "arbitrary":
            raise QuantizationError(
                "`power_of_two_scales` needs scales of Neural Compressor that are such",
                fix="set `neural_compressor: {fp8_scales: power-of-two}`",
            )
        scales: list[FloatScales] = [
            one for one in _SCALE_METHODS if not (power_of_two and one == "arbitrary")
        ]
        made = tuple(Float8(options.activations, one) for one in scales)
    first = next(recipe for recipe in made if _is_named(recipe, told))
    return (first, *(recipe for recipe in made if recipe is not first))


def _told(options: PTQOptions) -> NeuralCompressorOptions:
    return options.neural_compressor or NeuralCompressorOptions()


def _is_named(recipe: Recipe, options: NeuralCompressorOptions) -> bool:
    if isinstance(recipe, StaticInt8):
        return (recipe.observer, recipe.symmetric) == (options.observer, options.symmetric)
    return isinstance(recipe, Float8) and recipe.scales == options.fp8_scales


@contextmanager
def _neural_compressor() -> Iterator[Path]:
    """A folder for its files; its exceptions are errors with a fix.

    Raises:
        ToolMissingError: the package, or a part of it, is not installed.
        QuantizationError: it failed.
    """
    with contained() as folder:
        try:
            import neural_compressor.torch.export
            import neural_compressor.torch.quantization  # noqa: F401

            yield folder
        except EdgesmithError:
            raise
        except ImportError as error:
            raise ToolMissingError(
                f"`engine: neural-compressor` needs the package {PACKAGE}: {error}",
                fix="pip install 'edgesmith[neural-compressor]', or set `engine: edgesmith`",
            ) from error
        except Exception as error:  # a foreign package, on any model
            reason = str(error).strip().splitlines()
            raise QuantizationError(
                f"Neural Compressor failed on this model: {type(error).__name__}"
                f"{': ' + reason[0] if reason else ''}",
                fix="set `engine: edgesmith`",
            ) from error


def _version() -> str:
    return f"{PACKAGE} {installed(PACKAGE)[PACKAGE]}"


def _convert(recipe: Recipe, view: NetworkView, task: Task, folder: Path) -> nn.Module:
    from neural_compressor.torch.quantization import convert, prepare

    sample = task.samples[:_TRACED]
    module = recipe.floating(view, sample)
    prepared = prepare(module, recipe.config(folder), example_inputs=(sample,))
    task.tell("calibrate", 0, 1)
    run_all(prepared, task.batches())
    task.tell("calibrate", 1, 1)
    converted: nn.Module = convert(prepared)
    return converted


def _tuned(recipes: tuple[Recipe, ...], view: NetworkView, task: Task, folder: Path) -> Chosen:
    """The best recipe, by Neural Compressor's own loop where that works.

    Each is scored as the model that ships.
    """
    from neural_compressor.torch.quantization import TuningConfig, autotune

    tuning = _told(task.options).tune
    assert tuning is not None
    assert task.score is not None
    assert task.score_float is not None
    tried = {recipe.words: recipe for recipe in recipes[: tuning.max_trials]}
    sample = task.samples[:_TRACED]

    def autotuned(evaluate: Evaluate) -> object:
        return autotune(
            recipes[0].floating(view, sample),
            TuningConfig(
                config_set=[recipe.config(folder) for recipe in tried.values()],
                tolerable_loss=tuning.tolerable_loss_percent / 100.0,
                max_trials=tuning.max_trials,
            ),
            eval_fn=evaluate,
            run_fn=lambda prepared: run_all(prepared, task.batches()),
            example_inputs=(sample,),
        )

    def one_by_one(evaluate: Evaluate) -> object:
        evaluate(view)
        return [evaluate(_convert(recipe, view, task, folder)) for recipe in tried.values()]

    def score(converted: nn.Module, words: str) -> tuple[Chosen, float]:
        chosen = tried[words].read(view, converted)
        assert task.score is not None
        return chosen, task.score(chosen)

    loop = autotuned if recipes[0].autotunes else one_by_one
    found = keep_best(loop, score, task.score_float, tuple(tried), tuning)
    best = found.best
    return Chosen(
        best.engine,
        best.recipe,
        best.activations,
        best.weights,
        best.inside,
        found.trials,
        found.baseline,
        found.ended,
    )


@dataclass(frozen=True)
class StaticInt8:
    """Static PT2E INT8; weights symmetric, of the largest magnitude."""

    autotunes: ClassVar[bool] = True
    observer: Observer
    symmetric: bool
    per_tensor: bool

    @property
    def words(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        return f"static INT8, {self.observer} observers, {kind} activations"

    def config(self, folder: Path) -> Any:
        from neural_compressor.torch.quantization import StaticQuantConfig

        return StaticQuantConfig(
            act_algo=self.observer,
            act_sym=self.symmetric,
            w_granularity="per_tensor" if self.per_tensor else "per_channel",
        )

    def floating(self, view: NetworkView, sample: Tensor) -> nn.Module:
        from neural_compressor.torch.export import export

        batch = torch.export.Dim("batch")
        exported: nn.Module = export(view, (sample,), dynamic_shapes=({0: batch},))
        return exported

    def read(self, view: NetworkView, converted: nn.Module) -> Chosen:
        assert isinstance(converted, fx.GraphModule)
        activations: dict[str, tuple[ActivationChoice, ...]] = {}
        weights: dict[str, WeightChoice] = {}
        inside: list[str] = []
        outputs = _outputs(view, converted)
        for node in converted.graph.nodes:
            if not _is_quantize(node):
                continue
            source = node.args[0]
            layer = view.step_at(source.target) if source.op == "get_attr" else None
            if layer is not None:
                weights[layer.name] = _weight(converted, node)
                continue
            tensor = _tensor(view, source, outputs)
            choice = _activation(converted, node)
            if tensor is None:
                step = view.step_of(source)
                inside.append(step.name if step else str(source))
            elif choice not in activations.setdefault(tensor, ()):
                activations[tensor] += (choice,)
        return Chosen(_version(), self.words, activations, weights, tuple(dict.fromkeys(inside)))


def _is_quantize(node: fx.Node) -> bool:
    return node.op == "call_function" and str(node.target).startswith(
        ("quantized_decomposed.quantize_per_tensor", "quantized_decomposed.quantize_per_channel")
    )


def _outputs(view: NetworkView, module: fx.GraphModule) -> dict[fx.Node, str]:
    """The last operator of every step -> the step's name."""
    last: dict[str, fx.Node] = {}
    for node in module.graph.nodes:
        step = view.step_of(node)
        if node.op == "call_function" and step and "quantized_decomposed" not in str(node.target):
            last[step.name] = node
    return {node: name for name, node in last.items()}


def _tensor(view: NetworkView, source: fx.Node, outputs: dict[fx.Node, str]) -> str | None:
    if source.op == "placeholder":
        return INPUT
    if source.op == "get_attr":
        return view.constant_at(str(source.target))
    return outputs.get(source)


def _attribute(module: fx.GraphModule, value: Any) -> Any:
    """An operand of a node: a number, or the tensor that it names."""
    if not isinstance(value, fx.Node):
        return value
    assert value.op == "get_attr"
    found: Any = module
    for part in str(value.target).split("."):
        found = getattr(found, part)
    return found.detach()


def _activation(module: fx.GraphModule, node: fx.Node) -> ActivationChoice:
    scale, zero_point = (_attribute(module, value) for value in node.args[1:3])
    offset = 128 if torch.uint8 in node.args else 0
    return ActivationChoice(float(np.float32(scale)), int(zero_point) - offset, "int8")


def _weight(module: fx.GraphModule, node: fx.Node) -> WeightChoice:
    values = [_attribute(module, value) for value in node.args]
    assert callable(node.target)
    codes = node.target(*values)
    scale = np.atleast_1d(np.asarray(values[1], np.float32))
    zero_points = np.asarray(values[2])
    if zero_points.any():
        raise ValueError(f"weights {node.args[0]} have a zero point")
    return WeightChoice(scale, codes.numpy().astype(np.int64), "int8")


@dataclass(frozen=True)
class Float8:
    """Static FP8 with one scale per tensor, of inputs and weights of the layers that it patches."""

    # `autotune` of 3.10 fails on FP8: it takes the path of the options' file for the options.
    autotunes: ClassVar[bool] = False
    format: str
    scales: FloatScales

    @property
    def words(self) -> str:
        return f"static {self.format}, {self.scales} scales"

    def config(self, folder: Path) -> Any:
        from neural_compressor.torch.quantization import FP8Config

        # One folder per recipe: it takes scales up again that it finds in files.
        return FP8Config(
            fp8_config=self.format.removeprefix("fp8-").upper(),
            hp_dtype="fp32",
            scale_method=_SCALE_METHODS[self.scales],
            use_qdq=True,
            dump_stats_path=str(folder / "measured" / self.scales),
        )

    def floating(self, view: NetworkView, sample: Tensor) -> nn.Module:
        return copy.deepcopy(view)

    def read(self, view: NetworkView, converted: nn.Module) -> Chosen:
        activations: dict[str, tuple[ActivationChoice, ...]] = {}
        weights: dict[str, WeightChoice] = {}
        for path, module in converted.named_modules():
            step = view.step_at(path)
            if step is None or not hasattr(module, "quant_input"):
                continue
            scale = float(np.float32(module.quant_input.scale))
            choice = ActivationChoice(scale, 0, self.format)
            tensor = step.inputs[0]
            if choice not in activations.setdefault(tensor, ()):
                activations[tensor] += (choice,)
            weights[step.name] = self._weight(module)
        return Chosen(_version(), self.words, activations, weights)

    def _weight(self, module: Any) -> WeightChoice:
        patterns = module.weight.detach().view(torch.uint8)
        # It keeps the weights of linear layers transposed.
        patterns = patterns.t() if patterns.ndim == 2 else patterns
        scale = np.atleast_1d(np.asarray(module.dequant_weights.scale, np.float32))
        return WeightChoice(scale, patterns.numpy().astype(np.int64), self.format)
