"""Nodes and initializers of an ONNX graph while it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Nodes:
    """Every node is named after its output.

    Args:
        shapes: activation -> shape for one sample.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.plain: set[str] = set()
        """Initializers that are real values already."""

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output, and return its name."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def integers(self, name: str, values: Sequence[int]) -> str:
        """An int64 vector, such as a shape."""
        self.initializers[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def number(self, name: str, value: float) -> str:
        """A float32 scalar."""
        self.initializers[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name

    def real(self, name: str) -> str:
        """Where the real values of an activation or of an initializer of codes are."""
        coded = name in self.initializers and name not in self.plain
        return f"{name}/real" if coded else name
