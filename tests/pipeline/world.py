"""A small spec with small stages and targets, for tests of what moves them.

The stages note every execution in `ran.log` beside the spec and obey the file
`behaviour` there, which is no part of any key: the same command can fail first
and succeed later.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.pipeline.jsonvalue import to_json
from edgesmith.pipeline.lint import load_spec
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.stage import Stage, StageContext
from edgesmith.targets.base import LatencyOptions, LatencyRun, OpFormat, Target, TargetDescription
from tests.reports.sample import bare_result

if TYPE_CHECKING:
    from edgesmith.pipeline.tools import Tool
    from edgesmith.pipeline.values import BuildPlan, BuildProducts
    from edgesmith.targets.base import Codes
    from edgesmith.targets.graph.ir import Graph

SPEC = """\
spec_version: 1
name: small
model:
  kind: torch
  factory: model.py:build_model
  args: {width: 8}
  checkpoint: weights.safetensors
  input_shape: [1, 2, 2]
data:
  calibration: {factory: data.py:split, args: {part: calibration}, limit: 3}
  selection: {factory: data.py:split, args: {part: selection}}
  test: {factory: data.py:split, args: {part: test}}
  labels: ["zero", "one"]
stages:
  - stage: make
    text: abc
targets: [plain-board]
budgets: {accuracy_drop_points: 0.5, latency_ms: {percentile: p90, max: 5.0}}
seed: 7
"""
MODEL = "def build_model(width=4):\n    return width\n"
DATA = """\
import numpy as np

PARTS = {"train": 0, "calibration": 1, "selection": 2, "test": 3}


def split(part, seed=0, count=6):
    rng = np.random.default_rng([seed, PARTS[part]])
    inputs = rng.normal(size=(count, 1, 2, 2)).astype(np.float32)
    return inputs, np.arange(count) % 2
"""


def write_spec(folder: Path, text: str = SPEC) -> Path:
    """The spec and the user's files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "weights.safetensors").write_bytes(b"")
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str = SPEC) -> Spec:
    """The checked spec of a folder that `write_spec` fills."""
    return load_spec(write_spec(folder, text), registries())


def ran(folder: Path) -> list[str]:
    """The steps that were executed since the last call."""
    log = folder / "ran.log"
    steps = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return steps


def behave(folder: Path, what: str) -> None:
    """What stages do from now on: "STEP:hang", "STEP:kill", ..., or "" for their work."""
    (folder / "behaviour").write_text(what)


def _work(context: StageContext, stage: str) -> None:
    """Note the execution, then do what `behaviour` says about this step."""
    folder = context.spec.folder
    label = stage if context.target is None else f"{stage}@{context.target}"
    with (folder / "ran.log").open("a") as log:
        log.write(label + "\n")
    context.log.info("at work on %s", label)
    behaviour = folder / "behaviour"
    who, _, what = behaviour.read_text().partition(":") if behaviour.exists() else ("", "", "")
    if who == label:
        _misbehave(what, context)


def _misbehave(what: str, context: StageContext) -> None:
    half = context.folder / "half-written"
    if what == "hang":
        half.write_bytes(b"half")
        (context.spec.folder / "hanging").touch()
        time.sleep(120)
    elif what == "slow":
        time.sleep(1.5)
    elif what == "kill":
        half.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "interrupt":
        raise KeyboardInterrupt
    elif what == "exit":
        sys.exit(0)
    elif what == "raise":
        raise RuntimeError("something [bold]odd[/bold]")
    elif what == "tool":
        raise ToolFailedError("the compiler crashed", fix="install another one")
    elif what == "full":
        raise OSError(errno.ENOSPC, "No space left on device", str(half))
    elif what == "big":
        half.write_bytes(bytes(1 << 20))
    elif what == "link":
        half.symlink_to("/etc/hostname")


@dataclass(frozen=True)
class Make(Stage):
    """Writes its parameter."""

    name: ClassVar[str] = "make"

    text: str = "abc"
    times: int = 1

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        return {"model args": str(spec.model.args)} if spec.model.kind == "torch" else {}

    def run(self, context: StageContext) -> None:
        _work(context, self.name)
        (context.folder / "deep").mkdir()
        (context.folder / "deep" / "text.txt").write_text(self.text * self.times)


@dataclass(frozen=True)
class Measure(Stage):
    """Writes the length of what `make` wrote: often the same for another input."""

    name: ClassVar[str] = "count"
    environment: ClassVar[Mapping[str, str]] = {"COUNTED_WITH": "care"}

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("make",)

    def run(self, context: StageContext) -> None:
        _work(context, self.name)
        text = (context.inputs["make"] / "deep" / "text.txt").read_text()
        for _ in context.progress.track(range(3), "counting"):
            pass
        (context.folder / "length").write_text(str(len(text)))


@dataclass(frozen=True)
class Fit(Stage):
    """Per target: the length and the seed, under the target's name."""

    name: ClassVar[str] = "fit"
    per_target: ClassVar[bool] = True

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("count",)

    def run(self, context: StageContext) -> None:
        _work(context, self.name)
        length = (context.inputs["count"] / "length").read_text()
        (context.folder / "fitted").write_text(f"{context.target} {length} {context.seed}")


@dataclass(frozen=True)
class SmallReport(Stage):
    """Per target: a result. The budget is missed when `size_bytes` is below ten."""

    name: ClassVar[str] = "report"
    per_target: ClassVar[bool] = True

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("fit",)

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        return {"budgets": to_json(spec.budgets)}

    def run(self, context: StageContext) -> None:
        _work(context, self.name)
        limit = context.spec.budgets.size_bytes
        result: DeploymentResult = replace(
            bare_result(),
            name=context.spec.name,
            target=context.target or "",
            ok=limit is None or limit >= 10,
            notes=tuple(sorted(context.records)),
        )
        (context.folder / "result.json").write_text(to_json(result))
        (context.folder / "report.html").write_text(f"<p>{context.target}")
        fitted = (context.inputs["fit"] / "fitted").read_text()
        (context.folder / "artifact.bin").write_text(fitted)


class Board(Target):
    """A target that only describes itself."""

    name: ClassVar[str] = "plain-board"
    ram: ClassVar[int] = 1024

    def describe(self) -> TargetDescription:
        ops = {"Add": (OpFormat("int8"),)}
        return TargetDescription(
            self.name, "A board", "for tests", ops, "tflite-micro", ram_bytes=self.ram
        )

    def tools(self) -> Sequence[Tool]:
        return ()

    def build(self, graph: Graph) -> BuildPlan:
        raise NotImplementedError

    def shipped(self, products: BuildProducts) -> Graph:
        raise NotImplementedError

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        raise NotImplementedError

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        return None

    def measure_latency(
        self, products: BuildProducts, baseline: Path | None, options: LatencyOptions
    ) -> LatencyRun | None:
        return None

    def peak_memory_bytes(self, products: BuildProducts) -> int | None:
        return None


class OtherBoard(Board):
    """A second one."""

    name: ClassVar[str] = "other-board"


def registries(board: type[Target] = Board) -> Registries:
    """The discovered members with the ones of this module; `report` is the one here."""
    found = Registries.discovered()
    return Registries(
        stages=found.stages.plus(
            {"make": Make, "count": Measure, "fit": Fit, "report": SmallReport}
        ),
        targets=found.targets.plus({"plain-board": board, "other-board": OtherBoard}),
    )
