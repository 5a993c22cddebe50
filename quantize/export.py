"""QDQ ONNX: the searched integers as the interchange file.

The file is written node by node from the steps and `Searched`, so no number is
computed twice. Its form, for readers:

- The graph input is `input_float`, float32 [1, *sample shape]; the output is float32.
- Every activation, the input and shape-only operators included, passes one pair:
  QuantizeLinear output `<group>_q` (codes), DequantizeLinear output `<group>`. Tensors
  that share a quantizer have pairs with identical parameters. A clamp that is fused
  into a group stands between its operator and the pair, as Relu or Clip.
- Weights and biases are integer initializers `<group>.weight`, `<group>.bias`, and
  constant operands `<group>.constant`; each passes one DequantizeLinear, whose output is
  `<initializer>/real`. Scales are `<tensor>/scale`, zero points `<tensor>/zero_point`:
  scalars per tensor, vectors with `axis` 0 per channel. There is no Clip for narrow codes.
- int2 weights (and binary ones, -1 and +1) are int8 initializers behind a Clip to [-2, 1]:
  operator sets up to 24 lack the type. int4 activations are int8 codes with a Clip to
  [-8, 7] between Q and DQ.
- Float8 weights and activations are the ONNX types of that name with zero point 0, and
  QuantizeLinear saturates. Biases beside them are float32 initializers, not dequantized.
- Activations that are not quantized (float32) pass an Identity named after the group.
- A linear layer is Gemm (transB=1) on two axes, else Transpose(weight) -> MatMul -> Add.
- Biases next to int16 activations are int64 in `Searched`; DequantizeLinear takes no
  int64, so the same codes are stored as int32.
- Gains and offsets of layer normalizations are constants too; their int16 and int32
  codes are both stored as int32, which every operator set dequantizes.
- A change of format is DequantizeLinear -> QuantizeLinear with nothing between.

Opset 18, 19 with float8, 20 where there is a GELU, 21 where 4-bit or 16-bit codes need it.
Same integers, same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgesmith
from edgesmith.pipeline.errors import QuantizationError, UnsupportedError
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.export_ops import emit
from edgesmith.quantize.network import INPUT, shapes
from edgesmith.quantize.onnx_nodes import Nodes
from edgesmith.quantize.ops import Gelu
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.ptq import QuantizedModel
from edgesmith.quantize.searched import SearchedTensor

FLOAT_INPUT = f"{INPUT}_float"
_STORED = {"int4": TensorProto.INT4}
_FLOAT8 = {"float8e4m3fn": TensorProto.FLOAT8E4M3FN, "float8e5m2": TensorProto.FLOAT8E5M2}
_NUMPY = {"int2": np.int8, "int8": np.int8, "int16": np.int16, "int32": np.int32}
_INT2_CODES = (-2, 1)


def export_qdq(
    quantized: QuantizedModel, path: Path, example_shape: tuple[int, ...] | None = None
) -> None:
    """Write the model as QDQ ONNX and check it.

    Args:
        path: the file to write.
        example_shape: [1, *sample shape], to be compared with what was quantized; may be left out.

    Raises:
        QuantizationError: `example_shape` is not that of one sample.
        UnsupportedError: a bias needs more than 32 bits.
        onnx.checker.ValidationError: never, unless this module has a defect.
    """
    sample = (1, *quantized.sample_shape)
    if example_shape not in (None, sample):
        raise QuantizationError(
            f"the model was quantized for inputs {sample}, not {example_shape}",
            fix="export with a batch of one and the sample shape of the calibration data",
        )
    model = to_onnx(quantized)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def to_onnx(quantized: QuantizedModel) -> onnx.ModelProto:
    """The QDQ model of these integers."""
    searched = quantized.searched()
    sizes = shapes(quantized.floating, quantized.sample_shape)
    nodes = Nodes(sizes)
    formats = quantized.placement.format_of
    _pair(nodes, FLOAT_INPUT, searched[INPUT], formats(INPUT))
    for step in quantized.placement.steps:
        for name in (*step.inputs, f"{step.name}.weight", f"{step.name}.bias"):
            tensor = searched.by_name.get(name)
            if tensor is not None and tensor.codes is not None:
                _constant(nodes, stored(tensor, quantized.placement))
        _pair(nodes, emit(nodes, step), searched[step.name], formats(step.name))
    output = quantized.module.output
    graph = helper.make_graph(
        nodes.nodes,
        "edgesmith",
        [helper.make_tensor_value_info(FLOAT_INPUT, TensorProto.FLOAT, sizes[INPUT])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, sizes[output])],
        list(nodes.initializers.values()),
    )
    opset = _opset(quantized)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version={21: 10, 20: 9, 19: 9}.get(opset, 8),
        producer_name="edgesmith",
        producer_version=edgesmith.__version__,
    )


def stored(tensor: SearchedTensor, placement: Placement) -> SearchedTensor:
    """The tensor with the type that the file keeps its codes in."""
    wide = tensor.dtype == "int64" or tensor.name in placement.parameters
    return replace(tensor, dtype="int32") if wide else tensor


def _opset(quantized: QuantizedModel) -> int:
    tensors = [stored(each, quantized.placement) for each in quantized.searched().tensors]
    types = {tensor.dtype for tensor in tensors}
    if types & {"int4", "int16"}:
        return 21
    if any(isinstance(step.op, Gelu) for step in quantized.placement.steps):
        return 20
    return 19 if types & _FLOAT8.keys() else 18


def _pair(nodes: Nodes, value: str, tensor: SearchedTensor, fmt: QFormat) -> None:
    if tensor.dtype == "float32":
        nodes.add("Identity", [value], tensor.name)
        return
    parameters = _parameters(nodes, tensor)
    codes = nodes.add("QuantizeLinear", [value, *parameters], f"{tensor.name}_q")
    if tensor.dtype != fmt.storage:
        codes = _clipped(nodes, codes, (fmt.qmin, fmt.qmax))
    nodes.add("DequantizeLinear", [codes, *parameters], tensor.name)


def _clipped(nodes: Nodes, codes: str, bounds: tuple[int, int]) -> str:
    """Codes of a narrow format in int8: a Clip says so, and saturates."""
    names = [f"{codes}/{side}" for side in ("qmin", "qmax")]
    for name, bound in zip(names, bounds, strict=True):
        nodes.initializers[name] = numpy_helper.from_array(np.array(bound, np.int8), name)
    return nodes.add("Clip", [codes, *names], f"{codes}/clipped")


def _constant(nodes: Nodes, tensor: SearchedTensor) -> None:
    """Codes as an initializer, and their real values; once per tensor."""
    if tensor.name in nodes.initializers:
        return
    assert tensor.codes is not None
    if tensor.dtype == "float32":
        values = numpy_helper.from_array(tensor.dequantized(), tensor.name)
        nodes.initializers[tensor.name] = values
        nodes.plain.add(tensor.name)
        return
    nodes.initializers[tensor.name] = _codes(tensor.name, tensor, tensor.codes)
    codes = tensor.name
    if tensor.dtype == "int2":
        codes = _clipped(nodes, codes, _INT2_CODES)
    nodes.add(
        "DequantizeLinear",
        [codes, *_parameters(nodes, tensor)],
        nodes.real(tensor.name),
        **({} if tensor.axis is None else {"axis": tensor.axis}),
    )


def _parameters(nodes: Nodes, tensor: SearchedTensor) -> list[str]:
    shape: tuple[int, ...] = () if tensor.axis is None else tensor.scale.shape
    scale, zero_point = f"{tensor.name}/scale", f"{tensor.name}/zero_point"
    nodes.initializers[scale] = numpy_helper.from_array(tensor.scale.reshape(shape), scale)
    nodes.initializers[zero_point] = _codes(zero_point, tensor, tensor.zero_point.reshape(shape))
    return [scale, zero_point]


def _codes(name: str, tensor: SearchedTensor, codes: npt.NDArray[np.int64]) -> TensorProto:
    if tensor.dtype in _STORED:
        return helper.make_tensor(name, _STORED[tensor.dtype], codes.shape, codes.reshape(-1))
    if tensor.dtype in _FLOAT8:
        raw = codes.astype(np.uint8).tobytes()
        return helper.make_tensor(name, _FLOAT8[tensor.dtype], codes.shape, raw, raw=True)
    stored = np.asarray(codes).astype(_NUMPY[tensor.dtype])
    if not np.array_equal(stored, codes):
        raise UnsupportedError(
            f"bias {tensor.name!r} has codes beyond 32 bits, which QDQ ONNX cannot store",
            fix="use int8 activations for that layer (an override), or larger weights in it",
        )
    return numpy_helper.from_array(stored, name)
