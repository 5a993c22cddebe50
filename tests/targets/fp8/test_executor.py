"""torch's executor of exported FP8 files against ONNX Runtime, here on the CPU.

`torch._scaled_mm` computes the same products there, in float32; what a GPU adds is another order
of summing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgesmith.pipeline.errors import KernelMismatchError, UnsupportedError
from edgesmith.pipeline.onnx_form import trace_exported
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import FP8_E4M3, FP8_E5M2
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.formats import decode, encode, stored_values
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.cuda_fp8 import DIFFERING_CODES
from edgesmith.targets.fp8 import matmul
from edgesmith.targets.fp8.executor import Executor, float32_products
from edgesmith.targets.fp8.matmul import Coded
from edgesmith.targets.graph.agreement import require_same_codes
from edgesmith.targets.graph.exported import read_exported
from tests.quantize.nets import FloatArray, make
from tests.quantize.test_fp8 import E4M3, E5M2, MIXED

E4M3_TYPE, E5M2_TYPE = torch.float8_e4m3fn, torch.float8_e5m2
NETS = {  # which operators multiply codes
    "plain": {"Conv", "Gemm"},
    "residual": {"Conv", "Gemm"},
    "separable": {"Conv", "Gemm"},
    "waves": {"Conv", "Gemm"},
    "squeeze-excite": {"Conv", "Gemm"},
    "transformer": {"MatMul", "Gemm"},
    "attention": {"MatMul", "Gemm"},
    "inception": set(),  # its convolutions read what the input's pool left in float32
}


def exported(name: str, options: PTQOptions, folder: Path) -> tuple[bytes, FloatArray]:
    model, data = make(name)
    path = folder / "model.onnx"
    export_qdq(quantize(model, data, options, seed=0), path)
    return path.read_bytes(), data


@pytest.mark.parametrize("name", NETS)
def test_codes_and_outputs_are_those_of_onnxruntime(name: str, tmp_path: Path) -> None:
    data, samples = exported(name, E4M3, tmp_path)
    executor = Executor(data, "cpu")
    found = executor.run([samples[:12, None]], trace=True)
    expected = trace_exported(tmp_path / "model.onnx", samples[:12])
    (output,) = executor.outputs
    assert set(found) == set(expected)
    for tensor, values in expected.items():
        mine = found[tensor].reshape(values.shape)
        if tensor == output:
            difference = np.abs(mine - values).reshape(len(values), -1).max(axis=1)
            assert np.median(difference) < 1e-5
        else:
            assert np.mean(mine != values) < 0.005, tensor
    assert set(executor.multiplied) == NETS[name]


@pytest.mark.parametrize("options", [E5M2, MIXED], ids=["e5m2", "mixed"])
def test_two_e5m2_operands_are_multiplied_in_float32(options: PTQOptions, tmp_path: Path) -> None:
    data, samples = exported("residual", options, tmp_path)
    executor = Executor(data, "cpu")
    (found,) = executor.run([samples[:12, None]]).values()
    expected = trace_exported(tmp_path / "model.onnx", samples[:12])[executor.outputs[0]]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)
    assert bool(executor.multiplied) is (options is MIXED)


def codes(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 9, 3), (16, 16, 16), (33, 40, 17)])
@pytest.mark.parametrize("types", [(E4M3_TYPE, E4M3_TYPE), (E4M3_TYPE, E5M2_TYPE)])
def test_a_product_of_codes_is_that_of_their_values(
    sizes: tuple[int, int, int], types: tuple[torch.dtype, torch.dtype]
) -> None:
    """Rows, inner and outer size that the hardware does not take are filled with zeros."""
    rows, inner, columns = sizes
    left, right = codes((rows, inner), types[0]), codes((columns, inner), types[1], seed=1)
    expected = left.double() @ right.double().t()
    found = matmul.product(left, right)
    assert found.shape == (rows, columns)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations", "groups"),
    [
        ((3, 3), [1, 1], [1, 1, 1, 1], [1, 1], 1),
        ((3, 2), [2, 1], [0, 1, 2, 0], [1, 2], 1),
        ((1, 1), [1, 1], [0, 0, 0, 0], [1, 1], 2),
        ((3,), [2], [1, 1], [1], 2),
    ],
)
def test_a_convolution_of_codes_is_that_of_their_values(
    kernel: tuple[int, ...], strides: list[int], pads: list[int], dilations: list[int], groups: int
) -> None:
    space = (7, 9)[: len(kernel)]
    x = Coded(codes((2, 4, *space), E4M3_TYPE), torch.tensor(0.5))
    scales = torch.linspace(0.1, 1.0, 6)
    weight = Coded(codes((6, 4 // groups, *kernel), E4M3_TYPE, seed=1), scales, axis=0)
    found = matmul.convolution(
        x, weight, strides=strides, pads=pads, dilations=dilations, groups=groups
    )
    axes = len(kernel)
    around = [side for at in reversed(range(axes)) for side in (pads[at], pads[axes + at])]
    padded = torch.nn.functional.pad(x.real().double(), around)
    function = torch.nn.functional.conv1d if axes == 1 else torch.nn.functional.conv2d
    expected = function(
        padded, weight.real().double(), stride=strides, dilation=dilations, groups=groups
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fmt", [FP8_E4M3, FP8_E5M2], ids=lambda fmt: fmt.name)
def test_quantizing_is_the_reference_of_the_format(fmt: object, tmp_path: Path) -> None:
    """To nearest even and saturated, for every value that lies on or between codes."""
    chosen = FP8_E4M3 if fmt is FP8_E4M3 else FP8_E5M2
    every = np.unique(np.abs(stored_values(np.arange(256), chosen)))
    every = every[np.isfinite(every)].astype(np.float32)
    between = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(np.float32)
    values = np.concatenate([every, -every, between, -between, np.array([1e6, -1e6], np.float32)])
    data = quantizer(len(values), chosen.storage)
    found = Executor(data, "cpu").run([values[None]])["y"][0]
    expected = decode(encode(values.astype(np.float64), chosen), chosen)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def quantizer(size: int, storage: str) -> bytes:
    """A file of one pair of quantizers with scale 1."""
    kind = TensorProto.FLOAT8E4M3FN if storage == "float8e4m3fn" else TensorProto.FLOAT8E5M2
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "x/scale", "x/zero_point"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "x/scale", "x/zero_point"], ["y"]),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size])],
        [
            helper.make_tensor("x/scale", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("x/zero_point", kind, [], b"\0", raw=True),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    return bytes(model.SerializeToString())


def test_the_budget_is_that_of_coarser_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums with 13 bits of mantissa, about what FP8 tensor cores keep, move codes; 7 bits more."""
    data, samples = exported("transformer", E4M3, tmp_path)
    graph = read_exported(data, "model")
    expected = {
        name: values[:, None]
        for name, values in trace_exported(tmp_path / "model.onnx", samples[:16]).items()
    }
    exact = matmul.product
    worst = {}
    for bits in (24, 13, 7):

        def coarse(left: torch.Tensor, right: torch.Tensor, kept: int = bits) -> torch.Tensor:
            mantissa, exponent = torch.frexp(exact(left, right))
            return torch.ldexp(torch.round(mantissa * 2.0**kept) / 2.0**kept, exponent)

        monkeypatch.setattr(matmul, "product", coarse)
        found = Executor(data, "cpu").run([samples[:16, None]], trace=True)
        description = replace(get_target("cuda-fp8").describe(), differing_codes=1.0)
        worst[bits] = max(require_same_codes(graph, found, expected, description).values())
    assert worst[24] < 0.005 < worst[13] < DIFFERING_CODES < worst[7]


def test_what_no_exported_file_has_is_refused() -> None:
    node = helper.make_node("Sin", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(UnsupportedError, match="Sin"):
        Executor(model.SerializeToString(), "cpu")


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    with float32_products():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before


def test_codes_that_differ_beyond_the_budget_are_found(tmp_path: Path) -> None:
    data, samples = exported("residual", E4M3, tmp_path)
    graph = read_exported(data, "model")
    trace = Executor(data, "cpu").run([samples[:4, None]], trace=True)
    description = get_target("cuda-fp8").describe()
    same = require_same_codes(graph, trace, trace, description)
    assert "stem.0" in same
    assert set(same.values()) == {0.0}
    name = "stem.0"
    for share, refused in ((0.04, False), (0.08, True)):
        wrong = trace[name].copy().reshape(-1)
        wrong[: int(share * wrong.size)] += 1.0
        changed = {**trace, name: wrong.reshape(trace[name].shape)}
        if refused:
            with pytest.raises(KernelMismatchError, match=r"stem.0.*5 % are allowed"):
                require_same_codes(graph, changed, trace, description)
        else:
            assert 0 < require_same_codes(graph, changed, trace, description)[name] < 0.05
    onnx.checker.check_model(onnx.load_from_string(data))
