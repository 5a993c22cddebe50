"""Neural Compressor as an engine: its own numbers, run by itself on the same model, are ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import CacheError, QuantizationError, ToolMissingError
from edgesmith.pipeline.lowering import build_for, prove, read_model
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize.engines import neural_compressor as engine
from edgesmith.quantize.engines.containment import contained
from edgesmith.quantize.engines.options import NeuralCompressorOptions, Tuning
from edgesmith.quantize.engines.values import REPORT, load_report
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.options import GPTQ, LearnedRounding, Override, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, load, quantize
from tests.quantize.nets import FloatArray, make

INT8 = PTQOptions(engine="neural-compressor", batch_size=16)
FP8 = PTQOptions(
    engine="neural-compressor",
    weights="fp8-e4m3",
    activations="fp8-e4m3",
    # The rule keeps inputs in float32; Neural Compressor does not.
    overrides=(Override(name="input", activations="fp8-e4m3"),),
    batch_size=16,
)


class Small(nn.Module):
    """No batch norm and no padding, so that nothing is folded or added: both see the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3, groups=2)
        self.last = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


READ = {"first": "input", "second": "first", "last": "second"}
"""Layer -> the tensor that it reads; what lies between only reshapes."""


def small() -> tuple[Small, FloatArray]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Small().eval().requires_grad_(False)
    for layer in (model.first, model.second, model.last):
        # Every channel's largest weight is positive: its code is 127, the other sign's were -128.
        rows = layer.weight.flatten(1)
        layer.weight[rows.amin(1) < -rows.amax(1)] *= -1
    data = np.random.default_rng(3).standard_normal((64, 3, 12, 12)).astype(np.float32)
    return model, data


@torch.no_grad()
def by_itself(model: nn.Module, data: FloatArray, config: Callable[[Path], Any]) -> nn.Module:
    """The module that Neural Compressor converts a model to."""
    with contained() as folder:
        from neural_compressor.torch.export import export
        from neural_compressor.torch.quantization import FP8Config, convert, prepare

        x, made = torch.from_numpy(data), config(folder)
        if not isinstance(made, FP8Config):
            batch = torch.export.Dim("batch")
            model = export(model, (x[:2],), dynamic_shapes=({0: batch},))
        prepared = prepare(model, made, example_inputs=(x[:2],))
        for part in x.split(16):
            prepared(part)
        converted: nn.Module = convert(prepared)
        return converted


def static(folder: Path) -> Any:
    from neural_compressor.torch.quantization import StaticQuantConfig

    return StaticQuantConfig()


class Recorded(fx.Interpreter):
    """Operands and codes of every quantize node, in the order of execution."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.weights: list[tuple[Tensor, Tensor]] = []
        self.activations: list[tuple[float, int, Tensor]] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_function(target, args, kwargs)
        if "quantized_decomposed.quantize_per_channel" in str(target):
            self.weights.append((args[1], result))
        elif "quantized_decomposed.quantize_per_tensor" in str(target):
            self.activations.append((args[1], args[2], result))
        return result


def codes_of(made: QuantizedModel, tensor: str, values: FloatArray) -> np.ndarray[Any, Any]:
    found = made.searched()[tensor]
    codes = np.rint(values / found.scale[0]).astype(np.int64) + int(found.zero_point[0])
    return np.asarray(codes)


@pytest.fixture(scope="module")
def int8() -> tuple[QuantizedModel, FloatArray, Recorded, FloatArray]:
    """Ours, the data, what Neural Compressor's module did on them, and its outputs."""
    model, data = small()
    converted = by_itself(model, data, static)
    assert isinstance(converted, fx.GraphModule)
    recorded = Recorded(converted)
    with torch.no_grad():
        outputs = recorded.run(torch.from_numpy(data))
    return quantize(model, data, INT8, seed=0), data, recorded, outputs.numpy()


Case = tuple[QuantizedModel, FloatArray, Recorded, FloatArray]


def test_int8_scales_zero_points_and_codes_are_its_own(int8: Case) -> None:
    made, _, recorded, _ = int8
    for name, (scales, codes) in zip(READ, recorded.weights, strict=True):
        weight = made.searched()[f"{name}.weight"]
        assert weight.scale.tobytes() == scales.numpy().tobytes()
        assert weight.codes is not None
        np.testing.assert_array_equal(weight.codes, codes.numpy())
    own = {(scale, zero_point) for scale, zero_point, _ in recorded.activations}
    assert len(own) == len(READ)
    ours = {
        (float(found.scale[0]), int(found.zero_point[0]) + 128)
        for found in (made.searched()[name] for name in READ.values())
    }
    assert ours == own
    report = made.engine
    assert report is not None
    assert (report.weights, report.of_weights) == (3, 3)
    assert (report.activations, report.of_activations) == (3, 4)
    (deviation,) = report.deviations
    assert deviation.tensor == "last"
    assert "left unquantized" in deviation.reason


def test_int8_module_computes_what_its_converted_module_computes(int8: Case) -> None:
    """Codes differ by one at rounding ties, which our rounded biases and its reciprocals move."""
    made, data, recorded, outputs = int8
    trace = made.trace(data)
    theirs = {(scale, zero): codes.numpy() for scale, zero, codes in recorded.activations}
    for name in READ.values():
        found = made.searched()[name]
        key = float(found.scale[0]), int(found.zero_point[0]) + 128
        mine = codes_of(made, name, trace[name])
        difference = np.abs(mine - (theirs[key].astype(np.int64).reshape(mine.shape) - 128))
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.01, name
    # The output is quantized here alone: at most half a step of it, and the inputs' rare steps.
    step = float(made.searched()["last"].scale[0])
    error = np.abs(made.predict(data) - np.clip(outputs, *_range(made, "last")))
    assert error.max() < 0.8 * step
    assert error.mean() < 0.3 * step


def _range(made: QuantizedModel, name: str) -> tuple[float, float]:
    found = made.searched()[name]
    scale, zero = float(found.scale[0]), int(found.zero_point[0])
    return (-128 - zero) * scale, (127 - zero) * scale


@pytest.mark.parametrize("scales", ["arbitrary", "power-of-two"])
def test_fp8_numbers_and_outputs_are_its_own(scales: Any) -> None:
    model, data = small()
    recipe = engine.Float8("fp8-e4m3", scales)
    converted = by_itself(small()[0], data, recipe.config)
    options = PTQOptions(
        **{**vars(FP8), "neural_compressor": NeuralCompressorOptions(fp8_scales=scales)}
    )
    made = quantize(model, data, options, seed=0)
    for name, source in READ.items():
        layer: Any = converted.get_submodule(name)
        weight = made.searched()[f"{name}.weight"]
        assert set(weight.scale) == {np.float32(layer.dequant_weights.scale)}
        patterns = layer.weight.view(torch.uint8).numpy().astype(np.int64)
        np.testing.assert_array_equal(weight.codes, patterns.T if name == "last" else patterns)
        assert made.searched()[source].scale[0] == np.float32(layer.quant_input.scale)
    assert made.engine is not None
    assert made.engine.deviations == ()
    with torch.no_grad():
        expected = converted(torch.from_numpy(data)).numpy()
    difference = np.abs(made.predict(data) - expected)
    assert np.median(difference) < 1e-6
    assert np.mean(difference < 1e-5) > 0.9
    if scales == "power-of-two":
        exponents = np.log2([made.searched()[name].scale[0] for name in READ.values()])
        np.testing.assert_array_equal(exponents, np.rint(exponents))


@pytest.mark.parametrize("name", ["residual", "squeeze-excite", "waves"])
def test_what_was_scored_is_what_ships(name: str, tmp_path: Path) -> None:
    """Parity of every tensor, and the report says for every group where its numbers are from."""
    model, data = make(name)
    made = quantize(model, data, INT8, seed=0)
    made.save(tmp_path)
    again = load(tmp_path, model)
    assert again.searched().same_as(made.searched())
    assert again.engine == made.engine
    report = made.engine
    assert report is not None
    assert 0 < report.activations < report.of_activations
    moved = [each for each in report.deviations if "below -127" in each.reason]
    assert moved
    for each in moved:
        codes = made.searched()[each.tensor.partition(" ")[0]].codes
        assert codes is not None
        assert codes.min() == -127
    roots = {each.tensor for each in report.deviations} & set(made.placement.formats)
    assert len(roots) == report.of_activations - report.activations
    export_qdq(made, tmp_path / "model.onnx")
    target = get_target("cpu-litert")
    (tmp_path / "out").mkdir()
    products, legal = build_for(read_model(tmp_path / "model.onnx"), target, tmp_path / "out")
    parity, _ = prove(made.searched(), target, products, legal.positions)
    assert parity.different == 0


def test_formats_that_it_lacks_are_filled_in_and_named() -> None:
    model, data = small()
    rules = (
        Override(name="second", weights="int4"),
        Override(name="first", activations="int16"),
        Override(name="last", weights="int8-per-tensor"),
    )
    made = quantize(model, data, PTQOptions(**{**vars(INT8), "overrides": rules}), seed=0)
    assert made.engine is not None
    reasons = {each.tensor: each.reason for each in made.engine.deviations}
    assert reasons["second.weight"] == "int4 by the formats of this spec, int8 by the engine"
    assert reasons["first"] == "int16 by the formats of this spec, int8 by the engine"
    assert reasons["last.weight"].startswith("one scale by the formats")
    assert made.engine.weights == 1
    assert made.searched()["second.weight"].dtype == "int4"


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import random
    import tempfile

    monkeypatch.chdir(tmp_path)
    model, data = small()
    files = set(os.listdir(tempfile.gettempdir()))
    environment, level = dict(os.environ), logging.root.manager.disable
    states = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    quantize(model, data, FP8, seed=0)
    assert not os.listdir(tmp_path)
    left = set(os.listdir(tempfile.gettempdir())) - files
    assert not {name for name in left if name.endswith(".json") or "engine" in name}
    assert (dict(os.environ), logging.root.manager.disable) == (environment, level)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), torch.get_num_threads()) == states[1:]


NAMED: dict[str, dict[str, Any]] = {
    "static INT8, minmax observers, asymmetric activations": {},
    "static INT8, kl observers, asymmetric activations": {"observer": "kl"},
    "static INT8, minmax observers, symmetric activations": {"symmetric": True},
    "static INT8, kl observers, symmetric activations": {"observer": "kl", "symmetric": True},
    "static fp8-e4m3, arbitrary scales": {},
    "static fp8-e4m3, power-of-two scales": {"fp8_scales": "power-of-two"},
    "static fp8-e4m3, unit scales": {"fp8_scales": "unit"},
}


@pytest.mark.parametrize("options", [INT8, FP8], ids=["int8", "fp8"])
def test_tuning_keeps_the_best_recipe(options: PTQOptions) -> None:
    """By the accuracy of the model that ships; what is kept is what the recipe gives alone."""
    model, data = small()
    held = np.random.default_rng(9).standard_normal((2048, 3, 12, 12)).astype(np.float32)
    with torch.no_grad():
        labels = model(torch.from_numpy(held)).argmax(1).numpy()
    tuning = NeuralCompressorOptions(tune=Tuning(tolerable_loss_percent=0.0))
    given = PTQOptions(**{**vars(options), "neural_compressor": tuning})
    made = quantize(model, data, given, seed=0, selection=Split(held, labels))
    report = made.engine
    assert report is not None
    assert report.float_accuracy_percent == 100.0
    tried = {each.recipe: each.accuracy_percent or 0.0 for each in report.trials}
    words = [recipe.words for recipe in engine.recipes_of(options)]
    assert list(tried) == words[: len(tried)]
    # The loop goes on until a recipe loses nothing.
    assert len(tried) == len(words) or report.trials[-1].accuracy_percent == 100.0
    assert len(tried) > 1
    assert report.recipe == max(tried, key=tried.__getitem__)
    found = 100.0 * float((made.predict(held).argmax(1) == labels).mean())
    assert found == tried[report.recipe]
    values = NeuralCompressorOptions(**NAMED[report.recipe])
    alone = PTQOptions(**{**vars(options), "neural_compressor": values})
    assert made.searched().same_as(quantize(model, data, alone, seed=0).searched())
    assert any(line.startswith("tried") for line in report.summary())


def told(**values: Any) -> NeuralCompressorOptions:
    return NeuralCompressorOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "int4"}, "no int4 weights beside int8"),
        ({"activations": "int16"}, "no int8 weights beside int16"),
        ({"weights": "fp8-e5m2", "activations": "fp8-e4m3"}, "no fp8-e5m2 weights"),
        ({"power_of_two_scales": True}, "no powers of two"),
        ({"neural_compressor": told(tune=Tuning())}, "labelled samples"),
        ({"learned_rounding": LearnedRounding()}, "`learned_rounding` belongs"),
        ({"gptq": GPTQ()}, "`gptq` belongs"),
        ({"engine": "edgesmith", "neural_compressor": told()}, "no effect"),
        ({"engine": "other"}, "engine is 'other'"),
    ],
)
def test_what_it_cannot_do_is_refused(values: dict[str, Any], message: str) -> None:
    model, data = small()
    with pytest.raises(QuantizationError, match=message):
        quantize(model, data, PTQOptions(**{**vars(INT8), **values}), seed=0)


def test_power_of_two_scales_need_such_a_recipe() -> None:
    options = PTQOptions(**{**vars(FP8), "power_of_two_scales": True})
    with pytest.raises(QuantizationError, match="power_of_two_scales"):
        engine.recipes_of(options)
    told_so = told(fp8_scales="power-of-two")
    recipes = engine.recipes_of(PTQOptions(**{**vars(options), "neural_compressor": told_so}))
    assert [recipe.words for recipe in recipes] == [
        "static fp8-e4m3, power-of-two scales",
        "static fp8-e4m3, unit scales",
    ]


def test_a_missing_package_is_an_error_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "neural_compressor.torch.export", None)
    model, data = small()
    with pytest.raises(ToolMissingError) as raised:
        quantize(model, data, INT8, seed=0)
    assert "edgesmith[neural-compressor]" in str(raised.value)


def test_its_failures_are_errors_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise KeyError("no such node")

    monkeypatch.setattr(engine, "_convert", fail)
    model, data = small()
    with pytest.raises(QuantizationError, match="KeyError: 'no such node'"):
        quantize(model, data, INT8, seed=0)


def test_a_damaged_report_is_an_error(tmp_path: Path) -> None:
    assert load_report(tmp_path) is None
    (tmp_path / REPORT).write_text("{}")
    with pytest.raises(CacheError, match=REPORT):
        load_report(tmp_path)
