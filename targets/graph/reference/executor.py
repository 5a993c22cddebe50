"""Runs an IntegerGraph in NumPy: the definition that every target is held to.

Vectorized over samples: every activation array has a leading sample axis. Samples
are processed in chunks, and tensors are dropped after their last use, so memory
stays bounded whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgesmith.pipeline.errors import DataError
from edgesmith.targets.graph.costs import largest_live_bytes
from edgesmith.targets.graph.ir import Array, Graph, Op, Tensor
from edgesmith.targets.graph.reference.kernel import Call, kernel_of
from edgesmith.targets.graph.reference.profiles import Profile

# Bytes of live activations per chunk of samples.
CHUNK_BYTES = 1 << 28


def run_op(graph: Graph, op: Op, values: Mapping[str, Array], profile: Profile) -> Array:
    """One operator's output from given input activations (teacher forcing).

    Args:
        values: activation name -> codes [S, *tensor.shape]; constants come from the graph.

    Returns:
        Output codes [S, *output shape].

    Raises:
        UnsupportedError: the operator or its formats are not defined.
        DataError: an activation is missing or has another shape or type.
    """
    tensors = graph.operands(op)
    arrays = tuple(None if tensor is None else _operand(tensor, values) for tensor in tensors)
    samples = max(
        (
            len(array)
            for tensor, array in zip(tensors, arrays, strict=True)
            if tensor is not None and array is not None and not tensor.is_constant
        ),
        default=1,
    )
    output = graph[op.output]
    call = Call(op, tensors, arrays, output, profile, samples)
    found = kernel_of(op)(op, call)
    if found.shape[1:] != output.shape or found.dtype != output.dtype.numpy:
        raise call.refuse(
            f"computes {found.dtype} {found.shape[1:]} for output {output.name!r}, "
            f"which is declared {output.dtype} {output.shape}",
            "infer the shapes of the graph again",
        )
    if len(found) != samples:
        return np.broadcast_to(found, (samples, *output.shape))
    return found


def execute(
    graph: Graph, inputs: Sequence[Array], profile: Profile, *, trace: bool = False
) -> dict[str, Array]:
    """Run a graph on a batch of samples.

    Args:
        inputs: one array of codes per graph input, [S, *tensor.shape].
        profile: the arithmetic to use.
        trace: also return every intermediate activation.

    Returns:
        Tensor name -> codes [S, *tensor.shape]: the graph outputs, or all activations.

    Raises:
        DataError: number, shape or type of the inputs does not fit the graph.
        UnsupportedError: an operator or its formats are not defined.
    """
    _check_inputs(graph, inputs)
    samples = len(inputs[0]) if inputs else 1
    wanted = [t.name for t in graph.activations()] if trace else list(graph.outputs)
    results = {
        name: np.empty((samples, *graph[name].shape), graph[name].dtype.numpy) for name in wanted
    }
    step = max(1, CHUNK_BYTES // max(1, largest_live_bytes(graph)))
    for start in range(0, samples, step):
        chunk = slice(start, min(samples, start + step))
        values = dict(zip(graph.inputs, (array[chunk] for array in inputs), strict=True))
        for name, array in _run_chunk(graph, values, profile):
            if name in results:
                results[name][chunk] = array
    return results


def _run_chunk(
    graph: Graph, values: dict[str, Array], profile: Profile
) -> Iterable[tuple[str, Array]]:
    yield from list(values.items())
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    for index, op in enumerate(graph.ops):
        values[op.output] = run_op(graph, op, values, profile)
        yield op.output, values[op.output]
        for name in {*op.inputs, op.output}:
            if last_use.get(name, -1) <= index:
                values.pop(name, None)


def _operand(tensor: Tensor, values: Mapping[str, Array]) -> Array:
    if tensor.data is not None:
        return tensor.data[np.newaxis]
    if tensor.name not in values:
        raise DataError(
            f"activation {tensor.name!r} has no value",
            fix="give every activation that the operator reads",
        )
    return _checked(tensor, values[tensor.name])


def _checked(tensor: Tensor, array: Array) -> Array:
    if array.shape[1:] == tensor.shape and array.dtype == tensor.dtype.numpy and array.ndim:
        return array
    raise DataError(
        f"tensor {tensor.name!r} is {tensor.dtype} [samples, {', '.join(map(str, tensor.shape))}], "
        f"got {array.dtype} {list(array.shape)}",
        fix="pass codes of the tensor's type with a leading sample axis",
    )


def _check_inputs(graph: Graph, inputs: Sequence[Array]) -> None:
    if len(inputs) != len(graph.inputs):
        raise DataError(
            f"graph {graph.name!r} has {len(graph.inputs)} inputs, got {len(inputs)} arrays",
            fix=f"pass one array for each of {', '.join(graph.inputs)}",
        )
    for name, array in zip(graph.inputs, inputs, strict=True):
        _checked(graph[name], array)
    if len({len(array) for array in inputs}) > 1:
        raise DataError(
            f"inputs of graph {graph.name!r} have different numbers of samples",
            fix="pass the same number of samples for every input",
        )
