"""Runtimes as oracles: TFLite Micro and LiteRT on the host, sample by sample.

Both take arrays with a leading sample axis and return codes the same way, so that
results compare directly with the reference executor's.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.generic]

ARENA_BYTES = 1 << 22


class RuntimeRefusedError(Exception):
    """The runtime does not take the model."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The runtimes log refusals to the process's stderr."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def run_tflm(model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of TFLite Micro, one array [S, *shape] per graph output.

    Raises:
        RuntimeRefusedError: TFLite Micro does not take the model.
    """
    runtime = pytest.importorskip("tflite_micro").runtime
    with _quiet():
        try:
            interpreter = runtime.Interpreter.from_bytes(
                model, arena_size=ARENA_BYTES + 10 * len(model)
            )
        except RuntimeError as error:
            raise RuntimeRefusedError(str(error)) from error
        count, samples = _outputs(model), len(inputs[0])
        rows: list[list[Array]] = [[] for _ in range(count)]
        for sample in range(samples):
            for position, array in enumerate(inputs):
                interpreter.set_input(np.ascontiguousarray(array[sample]), position)
            try:
                interpreter.invoke()
            except RuntimeError as error:
                raise RuntimeRefusedError(str(error)) from error
            for position in range(count):
                rows[position].append(np.array(interpreter.get_output(position)))
    return [np.stack(row) for row in rows]


def _outputs(model: bytes) -> int:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    return int(schema.Model.GetRootAsModel(model, 0).Subgraphs(0).OutputsLength())


def make_litert(model: bytes, *, reference: bool, threads: int = 1, trace: bool = False) -> Any:
    """An allocated LiteRT interpreter with reference or default kernels.

    Raises:
        RuntimeRefusedError: LiteRT does not take the model.
    """
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kinds = litert.OpResolverType
    with _quiet():
        try:
            interpreter = litert.Interpreter(
                model_content=model,
                num_threads=threads,
                experimental_preserve_all_tensors=trace,
                experimental_op_resolver_type=kinds.BUILTIN_REF if reference else kinds.AUTO,
            )
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RuntimeRefusedError(str(error)) from error
    return interpreter


def run_litert(
    model: bytes,
    inputs: Sequence[Array],
    *,
    reference: bool,
    threads: int = 1,
    trace: bool = False,
) -> dict[str, Array]:
    """Outputs of LiteRT by tensor name, [S, *shape]; with `trace` every activation.

    Raises:
        RuntimeRefusedError: LiteRT does not take the model.
    """
    interpreter = make_litert(model, reference=reference, threads=threads, trace=trace)
    sources = interpreter.get_input_details()
    wanted = interpreter.get_tensor_details() if trace else interpreter.get_output_details()
    rows: dict[str, list[Array]] = {detail["name"]: [] for detail in wanted}
    for sample in range(len(inputs[0])):
        for detail, array in zip(sources, inputs, strict=True):
            interpreter.set_tensor(detail["index"], np.ascontiguousarray(array[sample]))
        with _quiet():
            try:
                interpreter.invoke()
            except RuntimeError as error:
                raise RuntimeRefusedError(str(error)) from error
        for detail in wanted:
            with contextlib.suppress(ValueError):
                rows[detail["name"]].append(np.array(interpreter.get_tensor(detail["index"])))
    return {name: np.stack(row) for name, row in rows.items() if row}
