"""`edgesmith compile`: the back half alone, for a model file that is quantized already."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesmith.pipeline.errors import CacheError, DoesNotFitError
from edgesmith.pipeline.lowering import build_for, prove, read_model, scored_in_file
from edgesmith.pipeline.results import Device, Parity
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.tools import require_all
from edgesmith.targets.graph.agreement import require_agreement

if TYPE_CHECKING:
    from edgesmith.targets.base import Target
    from edgesmith.targets.graph.ir import Graph

_SAMPLES = 4
LOG = "build.log"


@dataclass(frozen=True)
class Compiled:
    """What `compile_model` made.

    `interface` is the header of a folder of source, `artifact` the main file; `bytes` are of what
    `size_name` says. `max_lsb` is the largest difference of one operator to the reference
    executor; `device` what running on an emulated device costs.
    """

    artifact: str
    bytes: int
    parity: Parity
    samples: int
    max_lsb: int
    device: Device | None = None
    interface: str | None = None
    size_name: str = "deployed file"


def compile_model(model: Path, target: str, out: Path) -> Compiled:
    """Build a quantized model file for a target, prove parity, compare it with the reference.

    Args:
        model: a QDQ .onnx or full-integer .tflite file.
        target: the target's name.
        out: folder for the artifact; made when missing, must be empty otherwise but for the
            `build.log` of a failure.

    Raises:
        ModelFileError: the file is damaged or of another kind.
        UnsupportedError: something in it that no target, or this target, takes.
        ToolMissingError: a tool of the target is not installed.
        CacheError: the folder is not empty or cannot be written.
        ParityError: the artifact differs from the file.
        DoesNotFitError: the target has too little memory.
        ToolFailedError: a compiler or an emulator failed.
        KernelMismatchError: an operator computes other codes than the reference executor.

    After any error the folder holds nothing but `build.log`, where a program failed: the same
    command can be given again.
    """
    chosen = get_target(target)
    graph = read_model(model)
    require_all({f"target {target!r}": chosen.tools()})
    _prepare(out)
    try:
        return _made(graph, chosen, out)
    except DoesNotFitError:
        _empty(out)
        raise
    except BaseException:
        _empty(out, keep=LOG)
        raise


def _made(graph: Graph, chosen: Target, out: Path) -> Compiled:
    products, legal = build_for(graph, chosen, out)
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
    device = chosen.device(products, inputs)
    if device is not None:
        _require_ram(device)
    return Compiled(
        artifact=products.main,
        bytes=chosen.deployed_bytes(products),
        parity=parity,
        samples=_SAMPLES,
        max_lsb=max((each.max_lsb for each in found), default=0),
        device=device,
        interface=chosen.interface(),
        size_name=chosen.size_name,
    )


def _require_ram(device: Device) -> None:
    """The stack is known only after running."""
    used, arena, limit = device.ram.value, device.arena.value, device.ram_limit
    if limit is None or used <= limit:
        return
    beside = used - arena
    room = limit - beside
    smaller = f"give ram={room:.0f}, so that a smaller arena is planned, or " if room > 0 else ""
    raise DoesNotFitError(
        f"the image needs {used:,.0f} bytes of RAM, {used - limit:,.0f} more than the {limit:,} "
        f"there are: {arena:,.0f} of arena, {device.stack.value:,.0f} of stack and "
        f"{beside - device.stack.value:,.0f} of variables",
        fix=f"{smaller}choose a device with more RAM",
    )


def _empty(out: Path, keep: str = "") -> None:
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != keep:
            path.unlink()


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = next((path for path in sorted(out.iterdir()) if path.name != LOG), None)
        if occupied is None:
            (out / LOG).unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"cannot write to {out}: {error.strerror}", fix="choose another --out folder"
        ) from error
    if occupied is not None:
        raise CacheError(
            f"output folder {out} is not empty (it has {occupied.name!r})",
            fix="choose an empty or new folder for --out",
        )
