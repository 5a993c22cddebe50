"""Test vectors for a firmware: random inputs, and the outputs that the reference gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c import text
from edgesmith.targets.c.generator import templates
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.reference import PROFILES, execute


def random_codes(graph: Graph, samples: int, seed: int = 0) -> list[npt.NDArray[np.integer]]:
    """Uniform codes of every input, [samples, *shape]; the same graph and seed give the same."""
    rng = np.random.default_rng(seed)
    found = []
    for name in graph.inputs:
        tensor = graph[name]
        low, high = tensor.dtype.qmin, tensor.dtype.qmax
        codes = rng.integers(low, high, (samples, *tensor.shape), endpoint=True)
        found.append(codes.astype(tensor.dtype.numpy))
    return found


def vectors_header(graph: Graph, count: int, prefix: str) -> bytes:
    """`PREFIX_vectors.h` with `count` vectors; the same graph gives the same ones."""
    inputs = random_codes(graph, count)
    outputs = execute(graph, inputs, PROFILES["tflite-micro"])
    context = {
        "title": text.comment(graph.name) or prefix,
        "p": prefix,
        "P": prefix.upper(),
        "count": count,
        "inputs": [list(_lines(codes)) for codes in inputs],
        "outputs": [list(_lines(outputs[name])) for name in graph.outputs],
    }
    return templates().get_template("vectors.h.j2").render(context).encode()


def _lines(samples: Sequence[npt.NDArray[np.generic]] | npt.NDArray[np.generic]) -> Iterator[str]:
    for sample in samples:
        yield ",".join(map(str, np.ascontiguousarray(sample).view(np.uint8).reshape(-1).tolist()))
