"""Every estimate against an independent computation: explicit Hessians, own forward passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.pipeline.errors import EmptySplitError, QuantizationError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.quantize.options import LearnedRounding, PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.sensitivity import cross_terms, fisher, hutchinson
from edgesmith.quantize.sensitivity.landscape import Landscape, landscape
from edgesmith.quantize.sensitivity.measure import measure
from edgesmith.quantize.sensitivity.subject import Subject, subject_of
from edgesmith.quantize.sensitivity.values import (
    LossName,
    Method,
    Sensitivities,
    SensitivityOptions,
)
from tests.quantize.nets import FloatArray, make

SILENT = SilentProgress()
PLAIN = PTQOptions(ranges="min-max", equalize=False, bias_correction=False)
Parts = tuple[Tensor, ...]


def mlp(*, softmax: bool = False) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tail = [nn.Softmax(dim=1)] if softmax else []
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), *tail)


def linear(model: nn.Sequential, index: int) -> nn.Linear:
    found = model[index]
    assert isinstance(found, nn.Linear)
    return found


def data(count: int = 40) -> FloatArray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


def small(*, softmax: bool = False) -> Subject:
    return subject_of(mlp(softmax=softmax), data(), PLAIN)


def field_of(subject: Subject, loss: LossName, labels: Tensor | None = None) -> Landscape:
    given = None if labels is None else labels.numpy()
    return landscape(subject.network, subject.samples, loss, given, batch_size=16)


def own_loss(loss: LossName, labels: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, int]:
    """The mean loss as a function of all weights in one float64 vector, written out anew."""
    model, x = mlp().double(), torch.from_numpy(data()).double()
    first, second = linear(model, 0), linear(model, 2)
    target: Tensor = model(x).detach()

    def value(flat: Tensor) -> Tensor:
        one, two = flat[:12].reshape(3, 4), flat[12:].reshape(3, 3)
        logits = torch.tanh(x @ one.T + first.bias.detach()) @ two.T + second.bias.detach()
        if loss == "squared-error":
            terms = (logits - target).square() / 2
        else:
            logs = logits - logits.logsumexp(1, keepdim=True)
            own = target - target.logsumexp(1, keepdim=True)
            chosen = F.one_hot(labels, 3).double()
            terms = -chosen * logs if loss == "labels" else own.exp() * (own - logs)
        mean: Tensor = terms.sum() / len(x)
        return mean

    flat = torch.cat([first.weight.detach().flatten(), second.weight.detach().flatten()])
    return value, flat, 12


LABELS = torch.arange(40) % 3
LOSSES: tuple[LossName, ...] = ("divergence", "squared-error", "labels")


def explicit_hessian(loss: LossName) -> Tensor:
    value, flat, _ = own_loss(loss, LABELS)
    found = torch.func.hessian(value)(flat)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_a_hessian_product_is_the_explicit_hessian_times_the_vector(loss: LossName) -> None:
    field = field_of(small(), loss, LABELS)
    generator = torch.Generator().manual_seed(1)
    vector = {
        name: torch.randn(w.shape, generator=generator) for name, w in field.weights().items()
    }
    found = torch.cat([each.flatten() for each in field.hessian_product(vector).values()])
    wanted = explicit_hessian(loss) @ torch.cat([v.flatten() for v in vector.values()]).double()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_one_written_out(loss: LossName) -> None:
    value, flat, cut = own_loss(loss, LABELS)
    field = field_of(small(), loss, LABELS)
    moved = flat + 0.1
    parts = {"0": moved[:cut].reshape(3, 4).float(), "2": moved[cut:].reshape(3, 3).float()}
    assert field.value(parts) == pytest.approx(float(value(moved)), rel=1e-5)
    assert field.value({}) == pytest.approx(float(value(flat)), rel=1e-5, abs=1e-7)


def test_a_final_softmax_is_looked_through() -> None:
    plain, ended = small(), small(softmax=True)
    moved = {"0": plain.weights()["0"] + 0.2}
    expected = field_of(plain, "divergence").value(moved)
    assert field_of(ended, "divergence").value(moved) == pytest.approx(expected, rel=1e-5)


def test_hutchinson_converges_to_the_explicit_trace_and_follows_its_seed() -> None:
    field = field_of(small(), "divergence")
    hessian = explicit_hessian("divergence")
    found = hutchinson.traces(field, 600, 0, SILENT)
    assert found["0"] == pytest.approx(float(hessian[:12, :12].trace()), rel=0.1)
    assert found["2"] == pytest.approx(float(hessian[12:, 12:].trace()), rel=0.1)
    again = hutchinson.traces(field, 5, 7, SILENT)
    assert hutchinson.traces(field, 5, 7, SILENT) == again
    assert hutchinson.traces(field, 5, 8, SILENT) != again


def test_hutchinson_is_exact_for_a_diagonal_hessian() -> None:
    """One linear layer, orthogonal inputs: v_k^2 = 1 whatever the signs."""
    layer = nn.Linear(4, 2)
    x = (2 * np.eye(4)).astype(np.float32)
    subject = subject_of(nn.Sequential(layer), x, PLAIN)
    field = field_of(subject, "squared-error")
    (found,) = hutchinson.traces(field, 1, 0, SILENT).values()
    assert found == pytest.approx(2 * 4 * 4 / 4)  # outputs, inputs, 2^2, over 4 samples
    step = {"0": torch.full((2, 4), 0.5)}
    (rise,) = hutchinson.rises({"0": found}, step).values()
    assert rise == pytest.approx(0.5 * found / 8 * 8 * 0.25)
    assert field.value({"0": subject.weights()["0"] + 0.5}) == pytest.approx(rise, rel=1e-5)


@pytest.mark.parametrize("loss", ["divergence", "squared-error"])
def test_fisher_with_drawn_labels_is_the_diagonal_of_the_hessian(loss: LossName) -> None:
    subject = subject_of(mlp(), np.tile(data(), (60, 1)), PLAIN)
    found = fisher.information(field_of(subject, loss), 0, SILENT)
    diagonal = explicit_hessian(loss).diagonal()
    flat = torch.cat([each.flatten() for each in found.values()])
    torch.testing.assert_close(flat, diagonal, rtol=0.25, atol=0.01)
    assert float(flat.sum()) == pytest.approx(float(diagonal.sum()), rel=0.05)


def test_fisher_with_given_labels_is_the_mean_squared_gradient() -> None:
    found = fisher.information(field_of(small(), "labels", LABELS), 0, SILENT)
    model = mlp()
    total = torch.zeros(3, 4)
    for x, label in zip(torch.from_numpy(data()), LABELS, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), label[None]).backward()
        grad = linear(model, 0).weight.grad
        assert grad is not None
        total += grad.square()
    torch.testing.assert_close(found["0"].float(), total / 40)
    step = {"0": torch.full((3, 4), 0.1), "2": torch.zeros(3, 3)}
    rises = fisher.rises(found, step)
    assert rises == pytest.approx({"0": float((total / 40).sum()) * 0.005, "2": 0.0})


def test_the_quadratic_form_is_that_of_the_explicit_hessian() -> None:
    subject = small()
    steps = {name: subject.perturbation(name) for name in ("int4", "int8")}
    entries, found = cross_terms.quadratic_form(field_of(subject, "divergence"), steps, SILENT)
    assert entries == (("0", "int4"), ("2", "int4"), ("0", "int8"), ("2", "int8"))
    rows = np.zeros((4, 21))
    for row, (layer, name) in enumerate(entries):
        place = slice(0, 12) if layer == "0" else slice(12, 21)
        rows[row, place] = steps[name][layer].flatten().numpy()
    wanted = rows @ explicit_hessian("divergence").numpy() @ rows.T
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


def test_own_and_cross_terms_add_up_to_the_rise_of_the_loss() -> None:
    subject = small()
    found = measure(subject, ["int8", "int4"])
    steps = subject.perturbation("int4")
    predicted = sum(each.loss for each in found.weights if each.format == "int4")
    predicted += sum(
        each.loss
        for each in found.cross
        if each.first_format == "int4" and each.second_format == "int4"
    )
    weights = {name: each + steps[name] for name, each in subject.weights().items()}
    assert field_of(subject, "divergence").value(weights) == pytest.approx(predicted, rel=0.2)


def test_the_nearest_positive_semidefinite_matrix() -> None:
    found = cross_terms.positive_part(np.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.5, 0.5]])
    kept = np.array([[2.0, 1.0], [1.0, 2.0]])
    np.testing.assert_allclose(cross_terms.positive_part(kept), kept)


@pytest.mark.parametrize("name", ["int4", "int8", "int4-per-tensor"])
@pytest.mark.parametrize("net", ["plain", "separable", "residual"])
@pytest.mark.parametrize(
    "options", [PLAIN, PTQOptions(), PTQOptions(learned_rounding=LearnedRounding(iterations=5))]
)
def test_perturbed_weights_are_those_that_quantization_ships(
    net: str, name: str, options: PTQOptions
) -> None:
    model, inputs = make(net)
    subject = subject_of(model, inputs, options)
    uniform = dataclasses.replace(options, weights=name)
    shipped = quantize(model, inputs, uniform, seed=0).searched()
    weights = subject.weights()
    for layer, step in subject.perturbation(name).items():
        tensor = shipped[f"{layer}.weight"]
        np.testing.assert_allclose(
            (weights[layer] + step).numpy(), tensor.dequantized(), rtol=1e-5, atol=1e-6
        )


def test_output_error_is_the_error_of_each_layers_own_output() -> None:
    subject = small()
    found = measure(subject, ["int4"], options=SensitivityOptions("output-error"))
    x = torch.from_numpy(data())
    model = mlp()
    with torch.no_grad():
        hidden = torch.tanh(model[0](x))
        for index, given in ((0, x), (2, hidden)):
            layer = linear(model, index)
            right = layer(given)
            step = subject.perturbation("int4")[str(index)]
            wrong = given @ (layer.weight + step).T + layer.bias
            ratio = float((wrong - right).square().sum() / right.square().sum())
            (mine,) = (each.loss for each in found.weights if each.group == str(index))
            assert mine == pytest.approx(ratio, rel=1e-4)


def test_divergence_is_that_of_a_network_with_one_layer_quantized() -> None:
    subject = small()
    found = measure(subject, ["int4"], options=SensitivityOptions("divergence"))
    model, x = mlp(), torch.from_numpy(data())
    with torch.no_grad():
        right = torch.log_softmax(model(x), 1)
        linear(model, 2).weight += subject.perturbation("int4")["2"]
        wrong = torch.log_softmax(model(x), 1)
    expected = float((right.exp() * (right - wrong)).sum(1).mean())
    (mine,) = (each.loss for each in found.weights if each.group == "2")
    assert mine == pytest.approx(expected, rel=1e-3)


def test_activation_formats_are_measured_per_tied_set() -> None:
    model, inputs = make("residual")
    subject = subject_of(model, inputs)
    found = measure(subject, ["int8"], ["int8", "int16"])
    sets = {each.group for each in found.activations}
    assert sets == set(subject.placement.quantizer_of.values())
    by_format = {
        name: sum(each.loss for each in found.activations if each.format == name)
        for name in ("int8", "int16")
    }
    assert by_format["int16"] < by_format["int8"] / 10


METHODS: tuple[Method, ...] = (
    "hessian-trace",
    "fisher",
    "output-error",
    "divergence",
    "cross-terms",
)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ranks_four_bits_behind_eight_and_round_trips(method: Method) -> None:
    model, inputs = make("residual")
    subject = subject_of(model, inputs[:16])
    options = SensitivityOptions(method, probes=4)
    found = measure(subject, ["int8", "int4"], options=options, seed=5)
    assert measure(subject, ["int8", "int4"], options=options, seed=5) == found
    assert from_json(Sensitivities, to_json(found)) == found
    rise = {(each.group, each.format): each.loss for each in found.weights}
    layers = [step.name for step in subject.network.layer_steps()]
    assert all(rise[layer, "int4"] > rise[layer, "int8"] for layer in layers)
    assert bool(found.cross) == (method == "cross-terms")


def test_refusals() -> None:
    subject = small()
    with pytest.raises(QuantizationError, match="needs a label for each of 40 samples"):
        measure(subject, ["int8"], options=SensitivityOptions(loss="labels"))
    with pytest.raises(QuantizationError, match="do not add up"):
        measure(subject, ["int8"], ["int8", "int16"], SensitivityOptions("output-error"))
    with pytest.raises(EmptySplitError):
        subject_of(mlp(), data(0), PLAIN)
