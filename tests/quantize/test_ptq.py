"""Quantization as a whole: exact integers, determinism, saving, and what each part is good for."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from edgesmith.pipeline.errors import CacheError, CheckpointError, QuantizationError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.quantize.equalize import equalize
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.options import LearnedRounding, Override, PTQOptions, RangeMethod
from edgesmith.quantize.ptq import QuantizedModel, load, quantize
from edgesmith.quantize.searched import Searched
from tests.quantize.nets import NETS, FloatArray, make, outputs

T = TypeVar("T")
PLAIN = PTQOptions(ranges="min-max", equalize=False, bias_correction=False)


def sqnr(reference: FloatArray, actual: FloatArray) -> float:
    """Signal to quantization noise ratio in dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - actual).sum()))


def quantized(name: str, options: PTQOptions, seed: int = 0) -> tuple[QuantizedModel, FloatArray]:
    model, data = make(name)
    return quantize(model, data, options, seed=seed), data


def mlp() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))


@pytest.mark.parametrize(
    "options", [PTQOptions(), PTQOptions(weights="int4"), PTQOptions(activations="int16")]
)
def test_integer_arithmetic_on_the_searched_codes_gives_the_scored_output(
    options: PTQOptions,
) -> None:
    """An independent evaluation: int64 accumulators, one rounding per layer, no float tensors."""
    data = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    made = quantize(mlp(), data, options, seed=0)
    found = made.searched()

    def layer(
        x: npt.NDArray[np.int64], source: str, name: str, relu: bool
    ) -> npt.NDArray[np.int64]:
        weight, bias = found[f"{name}.weight"], found[f"{name}.bias"]
        assert weight.codes is not None
        assert bias.codes is not None
        np.testing.assert_array_equal(bias.scale, found[source].scale * weight.scale)
        sums = (x - found[source].zero_point) @ weight.codes.T + bias.codes
        real = sums * bias.scale.astype(np.float64) / found[name].scale.astype(np.float64)
        bits = 16 if options.activations == "int16" else 8
        low = found[name].zero_point[0] if relu else -(2 ** (bits - 1))
        codes = np.rint(real) + found[name].zero_point
        return np.asarray(np.clip(codes, low, 2 ** (bits - 1) - 1), np.int64)

    def codes_of(name: str, values: FloatArray) -> npt.NDArray[np.int64]:
        scaled = np.rint(values / found[name].scale) + found[name].zero_point
        return np.asarray(scaled, np.int64)

    traced = made.trace(data)
    hidden = layer(codes_of("input", traced["input"]), "input", "0", relu=True)
    result = layer(hidden, "0", "2", relu=False)
    for name, codes in (("0", hidden), ("2", result)):
        difference = np.abs(codes - codes_of(name, traced[name]))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005
    np.testing.assert_array_equal(made.predict(data), traced["2"])


@pytest.mark.parametrize("name", NETS)
def test_weight_codes_are_the_rounded_weights(name: str) -> None:
    """Without the optional parts, codes follow from the folded weights by one formula."""
    made, _ = quantized(name, PLAIN)
    for step in made.floating.layer_steps():
        weight = made.floating.layer(step.name).weight.detach().numpy()
        tensor = made.searched()[f"{step.name}.weight"]
        shape = [-1] + [1] * (weight.ndim - 1)
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        np.testing.assert_array_equal(tensor.scale, (largest / 127).astype(np.float32))
        expected = np.rint(weight / tensor.scale.reshape(shape))
        np.testing.assert_array_equal(tensor.codes, expected)
        assert tensor.axis == 0
        assert not tensor.zero_point.any()


@pytest.mark.parametrize("name", NETS)
def test_values_stay_on_their_grid(name: str) -> None:
    """Every traced value is a code of its tensor, and tied tensors have one grid."""
    made, data = quantized(name, PTQOptions())
    searched = made.searched()
    for tensor, values in made.trace(data).items():
        q = searched[tensor]
        codes = values / q.scale + q.zero_point
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
        assert codes.min() > -128.5
        assert codes.max() < 127.5
        root = searched[made.placement.quantizer_of[tensor]]
        assert (q.scale, q.zero_point) == (root.scale, root.zero_point)


@pytest.mark.parametrize(
    "options",
    [
        PTQOptions(),
        PTQOptions(weights="int4", activations="int16"),
        PTQOptions(weights="int1"),
        PTQOptions(weights="fp8-e4m3", activations="fp8-e5m2"),
        PTQOptions(overrides=(Override(op="input", activations="fp8-e4m3"),)),
    ],
    ids=["int8", "int4-int16", "binary", "fp8", "mixed"],
)
@pytest.mark.parametrize("name", NETS)
def test_predictions_are_the_modules_bit_by_bit(name: str, options: PTQOptions) -> None:
    """Predicting leaves out what only training needs."""
    made, data = quantized(name, options)
    with torch.no_grad():
        expected = made.module(torch.from_numpy(data)).numpy()
    np.testing.assert_array_equal(made.predict(data).view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("ranges", ["mse", "percentile", "min-max"])
@pytest.mark.parametrize("name", NETS)
def test_quantized_networks_are_close_to_float(name: str, ranges: RangeMethod) -> None:
    made, data = quantized(name, PTQOptions(ranges=ranges))
    expected = outputs(make(name)[0], data)
    assert sqnr(expected, made.predict(data)) > 24
    traced, exact = made.trace(data), made.float_trace(data)
    assert list(traced) == list(exact)
    np.testing.assert_allclose(exact[made.module.output], expected, atol=1e-4)
    for tensor, values in exact.items():
        assert traced[tensor].shape == values.shape
        assert sqnr(values, traced[tensor]) > 15, tensor


def test_more_bits_are_closer() -> None:
    model, data = make("waves")
    expected = outputs(model, data)
    found = [
        sqnr(expected, quantize(model, data, options, seed=0).predict(data))
        for options in (PTQOptions(weights="int4"), PTQOptions(), PTQOptions(activations="int16"))
    ]
    assert found[0] + 5 < found[1] < found[2] - 5


def test_bias_correction_keeps_the_mean_of_every_channel() -> None:
    """In four bits, where rounding shifts means visibly."""
    model, data = make("plain")
    shifts = []
    for correct in (False, True):
        options = PTQOptions(weights="int4", equalize=False, bias_correction=correct)
        made = quantize(model, data, options, seed=0)
        exact, traced = made.float_trace(data)["9"], made.trace(data)["9"]
        shifts.append(np.abs((exact - traced).mean(axis=0)).max())
    assert shifts[1] < 0.5 * shifts[0]


def test_bias_correction_leaves_linear_layers_on_four_axes_alone() -> None:
    """Brevitas would correct another axis there; the result still has to be right."""
    data = np.random.default_rng(0).standard_normal((32, 3, 7, 7)).astype(np.float32) + 2
    model = nn.Sequential(nn.Conv2d(3, 7, 1), nn.Linear(7, 7))
    found = []
    for correct in (False, True):
        options = PTQOptions(weights="int4", equalize=False, bias_correction=correct)
        found.append(quantize(model, data, options, seed=0).searched())
    assert found[0]["1.bias"].same_as(found[1]["1.bias"])
    assert not found[0]["0.bias"].same_as(found[1]["0.bias"])


def test_learned_rounding_lowers_the_error_of_a_layer() -> None:
    data = np.random.default_rng(0).standard_normal((128, 12)).astype(np.float32)
    data[:, 1:] += data[:, :1] * 2
    errors = []
    for learned in (None, LearnedRounding(samples=128)):
        options = PTQOptions(weights="int4", bias_correction=False, learned_rounding=learned)
        made = quantize(mlp(), data, options, seed=0)
        codes, scales = made.searched()["0.weight"].codes, made.searched()["0.weight"].scale
        assert codes is not None
        weight = made.floating.layer("0").weight.detach().numpy()
        # Up or down, never further.
        assert np.abs(codes - weight / scales[:, None]).max() < 1 or learned is None
        exact, traced = made.float_trace(data)["0"], made.trace(data)["0"]
        errors.append(np.square(exact - traced).mean())
    assert errors[1] < 0.7 * errors[0]


def test_equalization_evens_out_ranges_and_changes_no_output() -> None:
    model, data = make("plain")
    model.get_parameter("0.weight").data[0] *= 100
    model.get_parameter("3.weight").data[:, 0] /= 100
    network = prepare(model, torch.from_numpy(data[:4]))
    before = outputs(network, data)

    def unevenness() -> float:
        largest = network.layer("0").weight.detach().abs().amax(dim=(1, 2, 3))
        return float(largest.max() / largest.min())

    was = unevenness()
    equalize(network, torch.from_numpy(data[:4]))
    assert unevenness() < 0.2 * was
    np.testing.assert_allclose(outputs(network, data), before, rtol=1e-3, atol=1e-4)


class Gated(nn.Module):
    """Two layers whose product feeds a third: scaling both would scale the product twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) * self.b(x))  # type: ignore[no-any-return]


def test_equalization_does_not_cross_products() -> None:
    data = np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype(np.float32)
    network = prepare(Gated(), torch.from_numpy(data))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    equalize(network, torch.from_numpy(data))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", NETS)
def test_equalization_changes_no_output(name: str) -> None:
    model, data = make(name)
    network = prepare(model, torch.from_numpy(data[:4]))
    equalize(network, torch.from_numpy(data[:4]))
    np.testing.assert_allclose(outputs(network, data), outputs(model, data), rtol=1e-3, atol=1e-4)


LEARNED = PTQOptions(weights="int4", learned_rounding=LearnedRounding(iterations=10))


@pytest.mark.parametrize("options", [PTQOptions(), LEARNED])
def test_same_seed_same_integers_whatever_ran_before(options: PTQOptions) -> None:
    first = quantized("residual", options)[0].searched()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second = quantized("residual", options)[0].searched()
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator was used"
    assert first.same_as(second)


def test_callers_may_have_gradients_switched_off() -> None:
    first = quantized("plain", LEARNED)[0].searched()
    with torch.no_grad():
        second = quantized("plain", LEARNED)[0].searched()
    assert first.same_as(second)


def test_the_seed_matters_for_learned_rounding_only() -> None:
    searched = [quantized("plain", PTQOptions(), seed)[0].searched() for seed in (0, 1)]
    assert searched[0].same_as(searched[1])
    searched = [quantized("plain", LEARNED, seed)[0].searched() for seed in (0, 1)]
    assert not searched[0].same_as(searched[1])


SAVED = [
    ("residual", PTQOptions()),
    ("attention", PTQOptions(weights="int4")),
    ("inception", PTQOptions(overrides=(Override("head", activations="int16"),))),
]


@pytest.mark.parametrize(("name", "options"), SAVED)
def test_saved_and_loaded_models_are_the_same(
    name: str, options: PTQOptions, tmp_path: Path
) -> None:
    made, data = quantized(name, options)
    made.save(tmp_path)
    fresh = NETS[name][0]()  # other weights: only the structure is used
    back = load(tmp_path, fresh)
    assert back.searched().same_as(made.searched())
    assert back.options == options
    np.testing.assert_array_equal(back.predict(data), made.predict(data))
    for tensor, values in made.float_trace(data[:3]).items():
        np.testing.assert_array_equal(back.float_trace(data[:3])[tensor], values)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        quantized("plain", PTQOptions())[0].save(tmp_path / folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "float.safetensors",
        "policy.json",
        "quantized.json",
        "searched.json",
        "searched.npz",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_loading_with_another_model(tmp_path: Path) -> None:
    quantized("plain", PTQOptions())[0].save(tmp_path)
    other = nn.Sequential(NETS["plain"][0](), nn.Linear(5, 5))
    with pytest.raises(CheckpointError, match=r"float weights .* do not fit Sequential"):
        load(tmp_path, other)


def test_integers_of_another_model(tmp_path: Path) -> None:
    made, _ = quantized("plain", PTQOptions())
    made.save(tmp_path)
    kept = made.searched().tensors
    Searched(tuple(t for t in kept if t.name != "3.weight")).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"do not belong to this model: 3\.weight"):
        load(tmp_path, NETS["plain"][0]())


@pytest.mark.parametrize(
    "file", ["searched.npz", "searched.json", "quantized.json", "float.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_damaged_files(tmp_path: Path, file: str, damage: str) -> None:
    quantized("plain", PLAIN)[0].save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\x80\x04x.")
    with pytest.raises(CacheError) as caught:
        load(tmp_path, NETS["plain"][0]())
    assert str(tmp_path) in caught.value.message
    assert "--force quantize" in caught.value.fix


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    made, _ = quantized("plain", PLAIN)
    made.save(tmp_path)
    count = len(made.searched().tensors)
    objects = np.array([print], dtype=object)
    np.savez(tmp_path / "searched.npz", **{f"{i}.scale": objects for i in range(count)})  # type: ignore[arg-type]
    with pytest.raises(CacheError, match="allow_pickle"):
        Searched.load(tmp_path)


def test_searched_loads_without_torch(tmp_path: Path) -> None:
    made, _ = quantized("plain", PTQOptions())
    made.save(tmp_path)
    code = (
        "import sys, pathlib\n"
        "from edgesmith.quantize.searched import Searched\n"
        "import edgesmith.quantize.options\n"
        "found = Searched.load(pathlib.Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "print(len(found.tensors))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == len(made.searched().tensors)


@pytest.mark.parametrize("change", ["scale", "zero_point", "codes", "dtype", "axis"])
def test_a_difference_in_any_field_is_a_difference(change: str) -> None:
    tensor = quantized("plain", PLAIN)[0].searched()["3.weight"]
    changed: dict[str, Any] = {
        "scale": np.nextafter(tensor.scale, np.float32(1)),
        "zero_point": tensor.zero_point + 1,
        "codes": -np.asarray(tensor.codes),
        "dtype": "int4",
        "axis": 1,
    }
    assert tensor.same_as(dataclasses.replace(tensor))
    assert not tensor.same_as(dataclasses.replace(tensor, **{change: changed[change]}))


def test_options_round_trip_through_json() -> None:
    options = PTQOptions(
        learned_rounding=LearnedRounding(iterations=3), overrides=(Override("a.*", weights="int4"),)
    )
    assert from_json(PTQOptions, to_json(options)) == options


class Recorded:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, int | None]] = []

    def report(self, label: str, done: int, total: int | None) -> None:
        self.reports.append((label, done, total))

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items


def test_progress_counts_every_part_to_its_end() -> None:
    model, data = make("plain")
    progress = Recorded()
    options = dataclasses.replace(LEARNED, batch_size=20)
    quantize(model, data, options, seed=0, progress=progress)
    by_label: dict[str, list[tuple[int, int | None]]] = {}
    for label, done, total in progress.reports:
        by_label.setdefault(label, []).append((done, total))
    assert by_label["calibrate"] == [(i, 8) for i in range(1, 9)]
    assert by_label["learned rounding"] == [(i, 4) for i in range(1, 5)]
    assert all(reports[-1][0] == reports[-1][1] for reports in by_label.values())


def test_batches_do_not_change_the_ranges() -> None:
    """Extremes and histograms do not depend on how the calibration data is cut."""
    model, data = make("plain")
    options = [
        dataclasses.replace(PTQOptions(bias_correction=False), batch_size=n) for n in (7, 64)
    ]
    found = [quantize(model, data, option, seed=0).searched() for option in options]
    for a, b in zip(found[0].tensors, found[1].tensors, strict=True):
        np.testing.assert_allclose(a.scale, b.scale, rtol=1e-3)


@pytest.mark.parametrize("inputs", [np.zeros((2, 1, 13, 14)), np.zeros((1, 14, 14))])
def test_predicting_on_another_shape(inputs: FloatArray) -> None:
    made, _ = quantized("plain", PLAIN)
    with pytest.raises(QuantizationError, match=r"with the sample shape \(1, 14, 14\)"):
        made.predict(inputs)
