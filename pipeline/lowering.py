"""A quantized model file becomes a target's artifact: read, legalize, build, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import ModelFileError, TargetUnsupportedError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.quantize.searched import Searched, SearchedTensor
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx
from edgesmith.targets.graph.parity import as_searched, compare, require_parity
from edgesmith.targets.graph.tflite_reader import read_tflite

if TYPE_CHECKING:
    from edgesmith.pipeline.results import Parity
    from edgesmith.pipeline.values import BuildProducts
    from edgesmith.targets.base import Target
    from edgesmith.targets.graph.ir import Graph, IntArray


def read_model(path: Path) -> Graph:
    """The IntegerGraph of a QDQ .onnx or full-integer .tflite file.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
        UnsupportedError: something in it has no integer form.
    """
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".tflite"):
        raise ModelFileError(
            f"{path.name!r} is neither .onnx nor .tflite", fix="give a quantized model file"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror}", fix="check the path"
        ) from error
    return read_tflite(data, path.stem) if suffix == ".tflite" else read_onnx(data, path.stem)


def build_for(graph: Graph, target: Target, folder: Path) -> tuple[BuildProducts, Graph]:
    """Legalize a graph for a target and build its artifact in `folder`.

    Returns:
        The products, and the legalized graph that they were built from.

    Raises:
        TargetUnsupportedError: operators or formats that the target lacks; all are named.
        DoesNotFitError: the artifact needs more memory than the target has.
    """
    legal = legalize(graph, target.describe())
    products = execute_plan(target.build(legal), folder)
    target.check_fit(products)
    return products, legal


def deploy_exported(
    exported: bytes, searched: Searched | None, target: Target, folder: Path
) -> tuple[BuildProducts, Parity]:
    """Build the artifact of a target that deploys the exported file itself, and compare it.

    Args:
        searched: None where the model came as a file.

    Raises:
        TargetUnsupportedError: nothing was searched.
        ParityError: a tensor differs.
    """
    if searched is None:
        raise TargetUnsupportedError(
            f"{target.name!r} deploys models that are quantized here, not model files",
            fix="give the float model in the spec: `kind: torch`",
        )
    products = execute_plan(target.build_exported(exported), folder)
    shipped = target.shipped(products)
    stored = Searched(tuple(as_stored(tensor, shipped) for tensor in searched.tensors))
    parity = compare(stored, shipped)
    require_parity(parity, products.main)
    return products, parity


def as_stored(tensor: SearchedTensor, shipped: Graph) -> SearchedTensor:
    """The tensor with the wider integer type that ONNX stores its codes in, where it does."""
    found = shipped.tensors.get(tensor.name)
    integers = found is not None and found.dtype.is_integer and tensor.dtype.startswith("int")
    if found is None or not integers or tensor.dtype == found.dtype:
        return tensor
    return replace(tensor, dtype=found.dtype.value)


def scored_in_file(graph: Graph, legal: Graph) -> Searched:
    """The scored side of a model that came as a file: what the file says.

    Tensors that legalizing added, such as a requantization to the scale that a
    target's softmax has, are taken from the legalized graph.
    """
    added = (item for item in as_searched(legal).tensors if item.name not in graph.tensors)
    return Searched((*as_searched(graph).tensors, *added))


def prove(
    searched: Searched,
    target: Target,
    products: BuildProducts,
    positions: Mapping[str, IntArray] | None = None,
) -> tuple[Parity, Graph]:
    """Read the artifact back and compare it with what was scored.

    Args:
        positions: how the reader reordered constants (`Graph.positions`), where
            `searched` has the source model's order.

    Raises:
        ParityError: a tensor differs.
    """
    shipped = target.shipped(products)
    parity = compare(searched, shipped, positions)
    require_parity(parity, products.main)
    return parity, shipped
