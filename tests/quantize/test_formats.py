"""The reference of every format, over its whole code space, against independent ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import pytest
import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.bit_width.float import ComputeMaxMantissa
from brevitas.core.function_wrapper import Identity
from brevitas.core.function_wrapper.clamp import FloatClamp, TensorClamp
from brevitas.core.quant import BinaryQuant, IntQuant
from brevitas.core.quant.float import FloatQuant
from brevitas.core.scaling import ConstScaling
from brevitas.core.utils import StatelessBuffer
from brevitas.utils.float_quant_utils import get_max_available_float
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.values import (
    FP8_E4M3,
    FP8_E5M2,
    INT4_WEIGHT,
    INT8_WEIGHT,
    Granularity,
    QFormat,
    Special,
    minifloat,
)
from edgesmith.quantize.formats import (
    all_codes,
    binary_scale,
    decode,
    encode,
    power_of_two,
    round_to,
)

Reals = npt.NDArray[np.float64]

INTEGERS = [QFormat(bits, signed) for bits in range(1, 17) for signed in (True, False)]
MINIFLOATS = [minifloat(e, m) for e in range(1, 6) for m in range(4)]
FLOATS = [FP8_E4M3, FP8_E5M2, *MINIFLOATS]

ML_DTYPES = {
    FP8_E4M3: ml_dtypes.float8_e4m3fn,
    FP8_E5M2: ml_dtypes.float8_e5m2,
    minifloat(2, 1): ml_dtypes.float4_e2m1fn,
    minifloat(2, 3): ml_dtypes.float6_e2m3fn,
    minifloat(3, 2): ml_dtypes.float6_e3m2fn,
    minifloat(4, 3, Special.IEEE): ml_dtypes.float8_e4m3,
    minifloat(3, 4, Special.IEEE): ml_dtypes.float8_e3m4,
    minifloat(5, 10, Special.IEEE): np.float16,
    minifloat(8, 7, Special.IEEE): ml_dtypes.bfloat16,
}
ONNX_TYPES = {FP8_E4M3: TensorProto.FLOAT8E4M3FN, FP8_E5M2: TensorProto.FLOAT8E5M2}


def finite(fmt: QFormat) -> Reals:
    """All finite values, ascending, -0 left out."""
    values = decode(all_codes(fmt), fmt)
    return np.unique(values[np.isfinite(values)] + 0.0)


def probes(fmt: QFormat) -> npt.NDArray[np.float32]:
    """Every value, every tie between two, and the float32 numbers beside each; and far outside."""
    values = finite(fmt)
    ties = (values[:-1] + values[1:]) / 2
    points = np.concatenate([values, ties]).astype(np.float32)
    assert np.array_equal(points, np.concatenate([values, ties]))
    step = np.float32(np.inf)
    beside = [np.nextafter(points, step), np.nextafter(points, -step)]
    beyond = np.float32(fmt.largest) * np.array([-100, -1.6, 1.6, 100], np.float32)
    return np.concatenate([points, *beside, beyond]).astype(np.float32)


@pytest.mark.parametrize("fmt", [*INTEGERS, *FLOATS], ids=lambda fmt: fmt.name)
def test_codes_and_values_are_inverse(fmt: QFormat) -> None:
    codes = all_codes(fmt)
    assert len(codes) == len(np.unique(codes)) == 1 << fmt.bits
    values = decode(codes, fmt)
    usable = np.isfinite(values)
    np.testing.assert_array_equal(encode(values[usable], fmt), codes[usable])
    assert values[usable].max() == fmt.largest


@pytest.mark.parametrize("fmt", [*INTEGERS[:20], *FLOATS], ids=lambda fmt: fmt.name)
def test_rounding_is_to_the_nearest_with_ties_to_even_and_saturates(fmt: QFormat) -> None:
    values, given = finite(fmt), probes(fmt).astype(np.float64)
    found = round_to(given, fmt)
    distance = np.abs(given[:, None] - values)
    np.testing.assert_array_equal(np.abs(found - given), distance.min(axis=1))
    tied = (distance == distance.min(axis=1, keepdims=True)).sum(axis=1) == 2
    if not fmt.is_binary and not (fmt.is_float and fmt.mantissa_bits == 0):
        assert tied.any()
        assert (encode(given[tied], fmt) % 2 == 0).all()


@pytest.mark.parametrize("fmt", INTEGERS[20:], ids=lambda fmt: fmt.name)
def test_wide_integers_round_as_numpy_does(fmt: QFormat) -> None:
    given = probes(fmt).astype(np.float64)
    np.testing.assert_array_equal(round_to(given, fmt), np.rint(given).clip(fmt.qmin, fmt.qmax))


@given(st.floats(2**-126, 2**126, width=32))
def test_a_power_of_two_is_the_smallest_that_is_not_below_a_scale(scale: float) -> None:
    found = float(power_of_two(np.array([scale], np.float32))[0])
    assert np.log2(found).is_integer()
    assert found / 2 < scale <= found


@pytest.mark.parametrize("fmt", ML_DTYPES, ids=lambda fmt: fmt.name)
def test_floats_equal_ml_dtypes(fmt: QFormat) -> None:
    kind: Any = ML_DTYPES[fmt]
    unsigned = np.uint8 if fmt.bits <= 8 else np.uint16
    codes = all_codes(fmt).astype(unsigned)
    np.testing.assert_array_equal(decode(codes, fmt), codes.view(kind).astype(np.float64))
    with np.errstate(over="ignore"):
        given = probes(fmt)
    given = given[np.abs(given) <= fmt.largest]  # ml_dtypes does not saturate everywhere
    np.testing.assert_array_equal(encode(given, fmt), given.astype(kind).view(unsigned))


@pytest.mark.parametrize("fmt", ONNX_TYPES, ids=lambda fmt: fmt.name)
def test_floats_equal_onnx(fmt: QFormat) -> None:
    """QuantizeLinear and DequantizeLinear of the ONNX reference evaluator, saturation included."""
    kind = ONNX_TYPES[fmt]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor_value_info("codes", kind, [None]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("zero", kind, [], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    given = probes(fmt)
    codes, values = onnx.reference.ReferenceEvaluator(model).run(None, {"x": given})
    np.testing.assert_array_equal(encode(given, fmt), np.asarray(codes).view(np.uint8))
    np.testing.assert_array_equal(round_to(given, fmt), values)


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda fmt: fmt.name)
def test_floats_equal_brevitas(fmt: QFormat) -> None:
    bias = 2 ** (fmt.exponent_bits - 1) - 1
    names = {
        Special.NONE: (None, None),
        Special.NAN: (None, ("1" * fmt.mantissa_bits,)),
        Special.IEEE: (("00",), ("01", "10", "11")),
    }
    infinite, nan = names[fmt.special]
    largest = get_max_available_float(
        fmt.exponent_bits, fmt.mantissa_bits, bias, nan, infinite, saturating=True
    )
    quantizer = FloatQuant(
        signed=True,
        exponent_bit_width_impl=BitWidthConst(fmt.exponent_bits),
        mantissa_bit_width_impl=BitWidthConst(fmt.mantissa_bits),
        exponent_bias_impl=StatelessBuffer(torch.tensor(float(bias))),
        float_clamp_impl=FloatClamp(
            TensorClamp(), True, infinite, nan, max_available_float=largest
        ),
        input_view_impl=Identity(),
        compute_max_mantissa=ComputeMaxMantissa(),
        scaling_impl=ConstScaling(1.0),
    )
    given = probes(fmt)
    found = quantizer(torch.from_numpy(given))[0].numpy()
    np.testing.assert_array_equal(found, round_to(given, fmt).astype(np.float32))


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", range(2, 17))
def test_integers_equal_brevitas(bits: int, narrow: bool) -> None:
    fmt = QFormat(bits, narrow=narrow)
    quantizer = IntQuant(narrow_range=narrow, signed=True, input_view_impl=Identity())
    one, zero, width = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(float(bits))
    given = probes(fmt)
    found = quantizer(one, zero, width, torch.from_numpy(given)).numpy()
    np.testing.assert_array_equal(found, round_to(given, fmt).astype(np.float32))


def test_binary_equals_brevitas_and_has_xnor_scales() -> None:
    fmt = QFormat(1)
    given = np.array([-3, -0.1, -0.0, 0.0, 0.1, 3], np.float32)
    found = BinaryQuant(ConstScaling(1.0))(torch.from_numpy(given))[0].numpy()
    np.testing.assert_array_equal(found, round_to(given, fmt).astype(np.float32))
    rows = np.random.default_rng(0).normal(size=(4, 50))
    best = binary_scale(rows)

    def error(scale: Reals) -> Reals:
        found: Reals = np.square(rows - scale[:, None] * round_to(rows, fmt)).sum(axis=1)
        return found

    for other in (0.99, 1.01):
        assert (error(best) < error(best * other)).all()


def test_special_numbers() -> None:
    infinities = np.array([np.inf, -np.inf])
    for fmt in (*FLOATS, *INTEGERS):
        ends = [fmt.largest, -fmt.largest if fmt.is_float else float(fmt.qmin)]
        np.testing.assert_array_equal(round_to(infinities, fmt), ends)
    assert np.isnan(round_to(np.nan, FP8_E4M3))
    assert np.isnan(round_to(np.nan, FP8_E5M2))
    for fmt in (minifloat(3, 2), QFormat(8)):
        with pytest.raises(ValueError, match="no code for NaN"):
            encode(np.nan, fmt)
    assert encode(-1e-9, FP8_E4M3) == 0x80
    with pytest.raises(ValueError, match="int1 has codes"):
        decode(0, QFormat(1))
    with pytest.raises(ValueError, match="int4 has codes from -8 to 7"):
        decode(8, QFormat(4))
    with pytest.raises(ValueError, match="codes 0 to 255"):
        decode(256, FP8_E4M3)


@st.composite
def formats(draw: st.DrawFn) -> QFormat:
    base = draw(
        st.sampled_from(FLOATS) | st.builds(QFormat, st.integers(1, 32), signed=st.booleans())
    )
    return replace(
        base,
        symmetric=base.is_float or draw(st.booleans()),
        narrow=not base.is_float and draw(st.booleans()),
        granularity=draw(st.sampled_from(Granularity)),
        power_of_two_scale=draw(st.booleans()),
    )


@given(formats())
def test_text_and_json_round_trips(fmt: QFormat) -> None:
    assert QFormat.parse(str(fmt)) == fmt
    assert from_json(QFormat, to_json(fmt)) == fmt


def test_texts() -> None:
    assert str(INT4_WEIGHT) == "int4-symmetric-narrow-per-channel"
    assert QFormat.parse("uint8") == QFormat(8, signed=False)
    assert QFormat.parse("fp8-e4m3") == FP8_E4M3
    assert QFormat.parse("e4m3") != FP8_E4M3  # all of its codes are finite
    assert QFormat.parse("e4m3").largest == 480
    assert QFormat.parse("e3m2").largest == 28
    for wrong in ("int0", "int33", "int", "fp8", "e9m1", "int8-pow2-narrow", "e8m9"):
        with pytest.raises(ValueError, match=r"format|bits"):
            QFormat.parse(wrong)
    with pytest.raises(ValueError, match="signed, symmetric"):
        replace(FP8_E4M3, narrow=True)
    with pytest.raises(ValueError, match="no exponent"):
        QFormat(8, special=Special.NAN)


def test_storage_holds_every_value() -> None:
    for fmt in MINIFLOATS:
        try:
            container = {"float8e4m3fn": FP8_E4M3, "float8e5m2": FP8_E5M2}[fmt.storage]
        except ValueError:
            either = [np.isin(finite(fmt), finite(each)).all() for each in (FP8_E4M3, FP8_E5M2)]
            assert not any(either)
            continue
        np.testing.assert_array_equal(round_to(finite(fmt), container), finite(fmt))
    expected = {1: "int2", 2: "int2", 3: "int4", 4: "int4", 5: "int8", 8: "int8", 9: "int16"}
    assert {bits: QFormat(bits).storage for bits in expected} == expected
    assert (INT8_WEIGHT.storage, FP8_E5M2.storage) == ("int8", "float8e5m2")
