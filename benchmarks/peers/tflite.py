"""Official TFLite files: what TFLite Micro makes of them, and the form that stricter readers take.

A file is rewritten in memory through the object API of its schema; nothing is kept.
"""

from __future__ import annotations

from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FILE_IDENTIFIER = b"TFL3"


def without_softmax(model: bytes) -> bytes:
    """The same network, static and without its last softmax, as BakeNN 1.0 reads it.

    - A SOFTMAX that writes the graph's output is left out; the graph ends with its input.
    - Shape signatures go (the batch is -1 there, 1 in the shape).
    - RESHAPE gets its options; files of older converters state the shape as an operand only.
    - The operator code of older files, one byte, is copied to where newer readers look.

    Raises:
        ValueError: a softmax elsewhere than at the end.
    """
    table = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    for code in table.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    (graph,) = table.subgraphs
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    kept = []
    for operator in graph.operators:
        kind = table.operatorCodes[operator.opcodeIndex].builtinCode
        if kind == schema.BuiltinOperator.SOFTMAX:
            if list(operator.outputs) != list(graph.outputs):
                raise ValueError("a softmax whose output is not the graph's cannot be left out")
            graph.outputs = operator.inputs
            continue
        if kind == schema.BuiltinOperator.RESHAPE and operator.builtinOptions is None:
            options = schema.ReshapeOptionsT()
            options.newShape = list(graph.tensors[operator.outputs[0]].shape)
            operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
            operator.builtinOptions = options
        kept.append(operator)
    graph.operators = kept
    builder = flatbuffers.Builder(len(model))
    builder.Finish(table.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def run_tflite_micro(model: bytes, codes: Array) -> Array:
    """First output of TFLite Micro's reference kernels on the host, [samples, *shape].

    Args:
        codes: of the only input, [samples, *shape].
    """
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model)
    outputs = []
    for sample in codes:
        interpreter.set_input(np.ascontiguousarray(sample), 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).copy())
    return np.stack(outputs)
