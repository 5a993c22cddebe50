"""`cpu-litert`: a TFLite file on LiteRT (ai-edge-litert), default kernels with XNNPACK.

LiteRT rounds once where TFLite Micro rounds twice, and XNNPACK's kernels round
otherwise again: outputs may differ from the reference executor by one LSB an
operator, which the target's description states as its budget.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.tools import Tool
from edgesmith.targets.cpu.tflite import TFLiteTarget

if TYPE_CHECKING:
    from edgesmith.targets.cpu.runtime import Runtime


class CpuLiteRT(TFLiteTarget):
    """LiteRT on this machine's CPU."""

    name: ClassVar[str] = "cpu-litert"
    title: ClassVar[str] = "LiteRT on CPU"
    summary: ClassVar[str] = "Full-integer TFLite file, measured on this machine with LiteRT"

    def tools(self) -> Sequence[Tool]:
        return (
            Tool(
                "ai_edge_litert",
                "pip install ai-edge-litert",
                package=True,
                distribution="ai-edge-litert",
            ),
        )

    def runtime(self) -> Runtime:
        from edgesmith.targets.cpu.runtime import Runtime

        return Runtime("litert", sys.executable)
