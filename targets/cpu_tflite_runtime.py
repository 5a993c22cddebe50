"""`cpu-tflite-runtime`: the same TFLite file on tflite-runtime 2.14.

That release (2023) is what many devices in the field still carry. It wants
NumPy 1, so it lives in an environment of its own, `.venvs/tflite-runtime` in the
working folder or beside this package, which `make setup` makes.

It takes what newer runtimes take but for QUANTIZE from int8 to int16, which its
kernel refuses to prepare.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.tools import Tool
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.cpu.tflite import TFLITE_OPS, TFLiteTarget

if TYPE_CHECKING:
    from edgesmith.targets.cpu.runtime import Runtime

_REFUSED = OpFormat("int8", output="int16")
_ENVIRONMENT = Path(".venvs") / "tflite-runtime" / "bin" / "python"


@dataclass(frozen=True)
class InterpreterTool(Tool):
    """The Python interpreter of the environment that carries the old runtime."""

    def find(self) -> str | None:
        """The runtime's version and the interpreter; None unless both are there."""
        python = self.interpreter()
        version = _runtime_version(python) if python is not None else None
        return None if version is None else f"{version} ({python})"

    def interpreter(self) -> Path | None:
        """The interpreter's path, or None."""
        for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
            if (root / _ENVIRONMENT).is_file():
                return root / _ENVIRONMENT
        return None


def _runtime_version(python: Path) -> str | None:
    """Version of tflite-runtime in an interpreter's environment, by its metadata folder's name."""
    found = python.parent.parent.glob("lib/python3*/site-packages/tflite_runtime-*.dist-info")
    names = sorted(path.name.removesuffix(".dist-info") for path in found)
    return names[0].partition("-")[2] if names else None


class CpuTFLiteRuntime(TFLiteTarget):
    """tflite-runtime 2.14 on this machine's CPU."""

    name: ClassVar[str] = "cpu-tflite-runtime"
    title: ClassVar[str] = "tflite-runtime 2.14 on CPU"
    summary: ClassVar[str] = "The same TFLite file on the 2023 runtime that devices still carry"

    def describe(self) -> TargetDescription:
        quantize = tuple(form for form in TFLITE_OPS["Quantize"] if form != _REFUSED)
        return replace(super().describe(), ops={**TFLITE_OPS, "Quantize": quantize})

    def tools(self) -> tuple[InterpreterTool]:
        install = (
            "run `make setup`, or `python3.11 -m venv .venvs/tflite-runtime` and, with its pip, "
            "`install tflite-runtime==2.14.0 'numpy<2'`"
        )
        return (InterpreterTool("tflite-runtime environment", install),)

    def runtime(self) -> Runtime:
        from edgesmith.targets.cpu.runtime import Runtime

        (tool,) = self.tools()
        tool.require()
        return Runtime("tflite-runtime", str(tool.interpreter()))
