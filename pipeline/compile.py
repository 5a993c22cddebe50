"""`edgesmith compile`: the back half alone, for a model file that is quantized already."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesmith.pipeline.errors import CacheError, DoesNotFitError
from edgesmith.pipeline.lowering import build_for, prove, read_model, scored_in_file
from edgesmith.pipeline.results import Device, Parity
from edgesmith.pipeline.target_facts import get_target
from edgesmith.targets.graph.agreement import require_agreement

_SAMPLES = 4


@dataclass(frozen=True)
class Compiled:
    """What `compile_model` made.

    `max_lsb` is the largest difference of one operator to the reference executor; `device` what
    running on an emulated device costs.
    """

    artifact: str
    bytes: int
    parity: Parity
    samples: int
    max_lsb: int
    device: Device | None = None


def compile_model(model: Path, target: str, out: Path) -> Compiled:
    """Build a quantized model file for a target, prove parity, compare it with the reference.

    Args:
        model: a QDQ .onnx or full-integer .tflite file.
        target: the target's name.
        out: folder for the artifact; made when missing, must be empty otherwise.

    Raises:
        ModelFileError: the file is damaged or of another kind.
        UnsupportedError: something in it that no target, or this target, takes.
        ToolMissingError: a tool of the target is not installed.
        CacheError: the folder is not empty or cannot be written.
        ParityError: the artifact differs from the file.
        DoesNotFitError: the target has too little memory; the folder is empty again.
        KernelMismatchError: an operator computes other codes than the reference executor.
    """
    chosen = get_target(target)
    graph = read_model(model)
    for tool in chosen.tools():
        tool.require()
    _prepare(out)
    try:
        products, legal = build_for(graph, chosen, out)
    except DoesNotFitError:
        _empty(out)  # the same command with other limits should find the folder as it was
        raise
    parity, shipped = prove(scored_in_file(graph, legal), chosen, products)
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(
            shipped[name].dtype.qmin,
            shipped[name].dtype.qmax,
            (_SAMPLES, *shipped[name].shape),
            endpoint=True,
        ).astype(shipped[name].dtype.numpy)
        for name in shipped.inputs
    ]
    trace = chosen.run(products, inputs, trace=True)
    found = require_agreement(shipped, trace, chosen.describe())
    size = chosen.deployed_bytes(products)
    worst = max((each.max_lsb for each in found), default=0)
    device = chosen.device(products, inputs)
    return Compiled(products.main, size, parity, _SAMPLES, worst, device)


def _empty(out: Path) -> None:
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = next(out.iterdir(), None)
    except OSError as error:
        raise CacheError(
            f"cannot write to {out}: {error.strerror}", fix="choose another --out folder"
        ) from error
    if occupied is not None:
        raise CacheError(
            f"output folder {out} is not empty (it has {occupied.name!r})",
            fix="choose an empty or new folder for --out",
        )
