"""The proxy adds up what each chosen format costs the trained model alone."""

from __future__ import annotations

import pytest

from edgesmith.nas.proxy import SensitivityProxy
from edgesmith.nas.space import Candidate, Gene, Moot, Space
from edgesmith.quantize.sensitivity.values import Sensitivities, Sensitivity
from tests.nas.search.problems import everything

SPACE = Space(
    (
        Gene("width:a", (16, 8)),
        Gene("depth:b", (1, 0)),
        Gene("weights:a", ("int8", "int4", "int2")),
        Gene("weights:b", ("int8", "int4", "int2")),
        Gene("activations:a", ("int16", "int8")),
    ),
    (Moot("depth:b", 0, ("weights:b",)),),
)
WEIGHTS = (
    Sensitivity("a", "int8", 0.001),
    Sensitivity("b", "int8", 0.002),
    Sensitivity("a", "int4", 0.01),
    Sensitivity("b", "int4", 0.02),
    Sensitivity("a", "int2", 0.1),
    Sensitivity("b", "int2", 0.2),
)
ACTIVATIONS = (Sensitivity("a", "int16", 0.0005), Sensitivity("a", "int8", 0.005))


def proxy(
    weights: tuple[Sensitivity, ...] = WEIGHTS, activations: tuple[Sensitivity, ...] = ACTIVATIONS
) -> SensitivityProxy:
    unit = "nats per sample"
    return SensitivityProxy(SPACE, Sensitivities("divergence", unit, 64, 0, weights, activations))


@pytest.mark.parametrize(
    ("candidate", "rise"),
    [
        ((0, 0, 0, 0, 0), 0.0035),
        ((0, 0, 1, 0, 0), 0.0125),
        ((0, 0, 0, 2, 0), 0.2015),
        ((0, 0, 0, 0, 1), 0.008),
        ((0, 0, 1, 2, 1), 0.215),
        ((1, 0, 2, 1, 1), 0.125),
    ],
)
def test_rises_of_the_chosen_formats_add_up(candidate: Candidate, rise: float) -> None:
    assert proxy()(candidate) == pytest.approx(rise, rel=1e-12)


def test_widths_change_nothing() -> None:
    for candidate in everything(SPACE):
        assert proxy()((1, *candidate[1:])) == proxy()((0, *candidate[1:]))


def test_a_dropped_layer_costs_nothing_whatever_its_format() -> None:
    assert proxy()((0, 1, 1, 0, 1)) == pytest.approx(0.015, rel=1e-12)
    for index in range(3):
        assert proxy()((0, 1, 1, index, 1)) == proxy()((0, 1, 1, 0, 1))


def test_a_format_whose_sensitivity_is_unknown_costs_nothing() -> None:
    known = proxy(tuple(each for each in WEIGHTS if each.format != "int4"))
    assert known((0, 0, 1, 2, 1)) == pytest.approx(0.205, rel=1e-12)
    without = proxy(tuple(each for each in WEIGHTS if each.group != "b"))
    assert without((0, 0, 1, 2, 1)) == pytest.approx(0.015, rel=1e-12)
    assert proxy((), ())((1, 0, 2, 2, 1)) == 0


def test_groups_that_the_space_lacks_change_nothing() -> None:
    """The model's input, for one, has a sensitivity and no gene."""
    fixed = Sensitivity("input", "int8", 1.0), Sensitivity("b", "int8", 1.0)
    more = proxy((*WEIGHTS, Sensitivity("c", "int4", 1.0)), (*ACTIVATIONS, *fixed))
    for candidate in everything(SPACE):
        assert more(candidate) == proxy()(candidate)


def test_a_format_that_helps_lowers_the_sum_even_below_nothing() -> None:
    """Measured rises of formats that change next to nothing have either sign."""
    helped = proxy(WEIGHTS, (Sensitivity("a", "int16", -0.01),))
    assert helped((0, 0, 0, 0, 0)) == pytest.approx(-0.007, rel=1e-12)


def test_it_says_the_same_every_time_whatever_the_order_of_sensitivities() -> None:
    backwards = proxy(WEIGHTS[::-1], ACTIVATIONS[::-1])
    for candidate in everything(SPACE):
        assert backwards(candidate) == proxy()(candidate)
