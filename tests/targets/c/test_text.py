"""C text: constants mean their value on any core, and names from models cannot escape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import SpecError
from edgesmith.targets.c import text
from edgesmith.targets.c.program import Array, Role, Struct


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_literal_has_its_value(value: int) -> None:
    plain = text.literal(value).replace("LL", "").replace("U", "")
    assert eval(plain) == value  # noqa: S307 - digits, signs and parentheses


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-(2**31), "(-2147483647 - 1)"), (2**31, "2147483648U"), (2**32, "4294967296LL")],
)
def test_limits_are_written_so_that_they_have_a_type(value: int, expected: str) -> None:
    assert text.literal(value) == expected


@given(st.text())
def test_a_name_never_ends_a_comment(name: str) -> None:
    shown = text.comment(name)
    assert "*/" not in shown
    assert "/*" not in shown
    assert "//" not in shown
    assert "\n" not in shown
    assert "\\" not in shown
    assert len(shown) <= 80


@pytest.mark.parametrize(
    "prefix",
    ["string", "firmware", "harness", "", "1st", "a b", "int", "es", "es_x", "x_", "ä", "a" * 60],
)
def test_prefixes_that_c_cannot_take(prefix: str) -> None:
    with pytest.raises(SpecError, match="prefix"):
        text.checked_prefix(prefix)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=2.0**-126))
def test_scales_read_back(value: float) -> None:
    assert np.float32(text.real(np.float32(value)).rstrip("f")) == np.float32(value)


def test_a_struct_names_its_fields_and_its_arrays() -> None:
    array = Array(np.zeros(2, np.int8), Role.WEIGHTS)
    inner = Struct("es_inner", (("low", -128), ("high", 127)))
    value = Struct("es_args", (("tail", inner), ("weights", array), ("shape", [1, 2])))
    printed = text.initializer(value, {id(array): "model_weights_000"})
    assert ".weights = model_weights_000," in printed
    assert ".shape = {1, 2}," in printed
    assert list(text.arrays_in(value)) == [array]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv", "conv"),
        ("a/b;model/conv2d_2/Conv2D", "model/conv2d_2/Conv2D"),
        ("x" * 90, "..." + "x" * 53),
        ("a;", "a;"),
    ],
)
def test_a_long_name_is_shown_by_its_end(name: str, expected: str) -> None:
    assert text.shown(name) == expected
