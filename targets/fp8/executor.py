"""An exported QDQ file with 8-bit floats, run by torch on a device.

Convolutions and matrix products whose operands are 8-bit floats multiply the codes
themselves (`matmul.py`); everything else is float32, as ONNX defines it, without TF32. A
depthwise convolution has nothing to sum over channels and is float32 too, on the same values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.fp8 import matmul
from edgesmith.targets.fp8.matmul import Coded
from edgesmith.targets.fp8.operators import OPERATORS

Reals = npt.NDArray[np.float32]

_FLOAT8: dict[int, torch.dtype] = {
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
}
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


class Executor:
    """One model on one device.

    Args:
        data: the file's bytes.
        device: of torch: `cuda`, or `cpu` to check the arithmetic without the hardware.

    Raises:
        UnsupportedError: an operator that exported files do not have.
    """

    def __init__(self, data: bytes, device: str) -> None:
        model = onnx.load_from_string(data)
        self.device = torch.device(device)
        self.inputs = [item.name for item in model.graph.input]
        self.outputs = [item.name for item in model.graph.output]
        self.sizes = [
            tuple(d.dim_value for d in item.type.tensor_type.shape.dim)
            for item in model.graph.input
        ]
        self.multiplied: Counter[str] = Counter()
        """Nodes that multiplied codes in 8 bits, by operator, over all runs."""
        self._nodes = list(model.graph.node)
        unknown = {node.op_type for node in self._nodes} - OPERATORS.keys() - {*_QUANTIZERS}
        if unknown:
            raise UnsupportedError(
                f"the file has the operators {', '.join(sorted(unknown))}, which no exported file"
                " has",
                fix="give a file that edgesmith exported",
            )
        self._attributes = [
            {each.name: helper.get_attribute_value(each) for each in node.attribute}
            for node in self._nodes
        ]
        self._constants = {item.name: self._constant(item) for item in model.graph.initializer}
        self._shown = [
            node.output[0]
            for node in self._nodes
            if node.op_type == "DequantizeLinear" and node.input[0] not in self._constants
        ]

    def run(self, batches: Sequence[Reals], *, trace: bool = False) -> dict[str, Reals]:
        """Graph outputs, and with `trace` every dequantized activation: [samples, *shape].

        Args:
            batches: one array [samples, *input shape] per graph input.
        """
        names = dict.fromkeys([*self.outputs, *(self._shown if trace else ())])
        found: dict[str, list[Reals]] = {name: [] for name in names}
        with torch.no_grad(), float32_products():
            for sample in zip(*batches, strict=True):
                values = self.run_one([torch.from_numpy(np.asarray(each)) for each in sample])
                for name, kept in found.items():
                    kept.append(_real(values[name]).cpu().numpy())
        return {name: np.stack(kept) for name, kept in found.items()}

    def run_one(self, sample: Sequence[Tensor]) -> dict[str, Any]:
        """Every value of the graph for one sample, on the device."""
        values: dict[str, Any] = dict(self._constants)
        values[""] = None
        for name, given in zip(self.inputs, sample, strict=True):
            values[name] = given.to(self.device)
        for node, attributes in zip(self._nodes, self._attributes, strict=True):
            operands = [values[name] for name in node.input]
            values[node.output[0]] = self._compute(node.op_type, operands, attributes)
        return values

    def result(self, values: dict[str, Any]) -> Tensor:
        """The first graph output, real, of what `run_one` returned."""
        found: Tensor = _real(values[self.outputs[0]])
        return found

    def _compute(self, kind: str, operands: list[Any], given: dict[str, Any]) -> Any:
        if kind == "QuantizeLinear":
            return _quantized(operands[0], operands[1], operands[2])
        if kind == "DequantizeLinear":
            return _dequantized(operands, given.get("axis"))
        if kind == "Transpose" and isinstance(operands[0], Coded):
            return operands[0].transposed(list(given["perm"]))
        if kind in ("Conv", "Gemm", "MatMul") and matmul.multiplies(*operands[:2]):
            found = _in_8_bits(kind, operands, given)
            if found is not None:
                self.multiplied[kind] += 1
                return found
        return OPERATORS[kind]([_real(each) for each in operands], given)

    def _constant(self, item: TensorProto) -> Any:
        """On the device what is computed with; on the host bounds, shapes and axes.

        A number on the host multiplies tensors of any device.
        """
        values = np.array(numpy_helper.to_array(item))
        if item.data_type in _FLOAT8:
            codes = torch.from_numpy(values.view(np.uint8).copy())
            return codes.view(_FLOAT8[item.data_type]).to(self.device)
        if item.data_type == TensorProto.INT64:
            return values
        found = torch.from_numpy(values)
        alone = found.ndim == 0 and not item.name.endswith(("/scale", "/zero_point"))
        return found if alone else found.to(self.device)


def _in_8_bits(kind: str, operands: list[Any], given: dict[str, Any]) -> Tensor | None:
    """A product of codes with its bias; None where float32 computes it."""
    x, weight, *bias = operands
    if kind == "MatMul":
        return matmul.matmul(x, weight)
    if kind == "Gemm":
        if not given.get("transB", 0):
            return None
        found = matmul.linear(x, weight)
        return found + bias[0] if bias else found
    groups, axes = int(given.get("group", 1)), weight.codes.ndim - 2
    if groups > 1 and weight.codes.shape[1] == 1:
        return None
    found = matmul.convolution(
        x,
        weight,
        strides=list(given.get("strides", [1] * axes)),
        pads=list(given.get("pads", [0] * 2 * axes)),
        dilations=list(given.get("dilations", [1] * axes)),
        groups=groups,
    )
    return found + bias[0].reshape(-1, *[1] * axes) if bias else found


def _quantized(x: Any, scale: Tensor, zero: Tensor) -> Tensor:
    """Codes as ONNX's QuantizeLinear makes them of 8-bit floats: to nearest even, saturated."""
    largest = torch.finfo(zero.dtype).max
    codes: Tensor = (_real(x) / scale).clamp(-largest, largest).to(zero.dtype)
    return codes


def _dequantized(operands: list[Any], axis: int | None) -> Coded:
    codes, scale, zero = operands
    shift = None if codes.dtype in _FLOAT8.values() or not bool(zero.any()) else zero
    return Coded(codes, scale, axis if scale.ndim and scale.numel() > 1 else None, shift)


def _real(value: Any) -> Any:
    return value.real() if isinstance(value, Coded) else value


@contextmanager
def float32_products() -> Iterator[None]:
    """Products of float32 are float32: TF32, torch's default for convolutions, is off."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
