"""QDQ ONNX -> IntegerGraph, and the float twin of a float ONNX.

Reading goes in steps, one module each: `model` parses and guards, `importer` with
the operator modules (`windows`, `matrix`, `elementwise`, `movement`, `quantizers`)
translates nodes into float operators in channels-last memory, `patterns` fuses
what belongs together, and `quantization` turns the result into integers.

Names: an activation has the name of its DequantizeLinear's output, a constant that
of its initializer (or of its DequantizeLinear's output `x` where the initializer is
called `x_q`). `Graph.layout` says how every tensor's elements stand relative to the
file's; `Graph.origin` names what has another name there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Graph, Op
from edgesmith.targets.graph.onnx_reader import (
    elementwise,
    matrix,
    movement,
    quantizers,
    windows,
)
from edgesmith.targets.graph.onnx_reader.importer import Importer
from edgesmith.targets.graph.onnx_reader.model import Model, load
from edgesmith.targets.graph.onnx_reader.patterns import lower, simplify
from edgesmith.targets.graph.onnx_reader.quantization import fold_quantization
from edgesmith.targets.graph.onnx_reader.site import OPERATORS
from edgesmith.targets.graph.onnx_reader.values import RealPad
from edgesmith.targets.graph.rewriting import without_dead_code
from edgesmith.targets.graph.validate import verify

OPERATOR_MODULES = (windows, matrix, elementwise, movement, quantizers)
"""Modules whose functions are registered in `OPERATORS`."""

__all__ = ["OPERATORS", "OPERATOR_MODULES", "read_float_onnx", "read_onnx"]

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def read_onnx(source: Path | bytes, name: str = "model") -> Graph:
    """Read a quantized model in QDQ form.

    Args:
        source: the file, or its bytes (then without external data).
        name: the graph's name.

    Returns:
        A verified graph whose inputs and outputs are codes.

    Raises:
        ModelFileError: the file is truncated, corrupt or contradicts itself.
        UnsupportedError: lists every operator and tensor without an integer form.
    """
    model = load(source, name)
    if not _is_quantized(model):
        raise UnsupportedError(
            f"{name!r} has no QuantizeLinear or DequantizeLinear: it is a float model",
            fix="quantize it first: put it into a spec and run `edgesmith run`",
        )
    graph = simplify(without_dead_code(Importer(model, quantized=True).run()))
    return verify(_traced(without_dead_code(fold_quantization(graph)), model))


def read_float_onnx(source: Path | bytes, name: str = "model") -> Graph:
    """Read an unquantized model: the same operators, every tensor FLOAT32.

    Batch norms behind a convolution or product are folded into it; a hard-sigmoid that is
    no part of a hard-swish becomes a product, a sum and a clip.

    Raises:
        ModelFileError: the file is truncated, corrupt or contradicts itself.
        UnsupportedError: the model is quantized, or lists every operator without a form.
    """
    model = load(source, name)
    if _is_quantized(model):
        raise UnsupportedError(
            f"{name!r} is quantized already, so it is no float twin",
            fix="export the float model, before quantization",
        )
    graph = lower(simplify(without_dead_code(Importer(model, quantized=False).run())))
    graph = replace(graph, ops=tuple(_float(op) for op in graph.ops))
    return verify(_traced(graph, model))


def _is_quantized(model: Model) -> bool:
    return any(node.op in _QUANTIZERS for node in model.nodes)


def _float(op: Op) -> Op:
    """The operator named after its output, padding with reals as the IR has it."""
    op = replace(op, name=op.output)
    if not isinstance(op, RealPad):
        return op
    if not op.real.is_integer():
        raise UnsupportedError(f"Pad {op.name!r} pads with {op.real:g}", fix="pad with zeros")
    return ir.Pad(op.name, op.inputs, op.outputs, op.before, op.after, int(op.real))


def _traced(graph: Graph, model: Model) -> Graph:
    """Note under which name the file has the graph's outputs."""
    known = {port.name for port in model.inputs}
    known.update(name for node in model.nodes for name in node.outputs)
    outputs = zip(graph.outputs, model.outputs, strict=True)
    origin = {name: port.name for name, port in outputs if name not in known}
    return replace(graph, origin=origin)
