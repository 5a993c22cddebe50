"""The TFLite family of CPU targets: one file, written directly, on different runtimes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.cpu.measure import CPU_METRICS, CpuTarget

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.graph.ir import Graph

MODEL_FILE = "model.tflite"

WEIGHTED = (
    OpFormat("int8", "int8", "int32", per_channel=True),
    OpFormat("int8", "int8", "int32"),
    OpFormat("int8", "int4", "int32", per_channel=True),
    OpFormat("int8", "int4", "int32"),
    OpFormat("int16", "int8", "int64", per_channel=True),
    OpFormat("int16", "int8", "int64"),
)
BOTH = (OpFormat("int8"), OpFormat("int16"))
_INT8 = (OpFormat("int8"),)

# Fully connected weights with a scale per channel came after 2.14; as 1x1 convolutions they
# run everywhere, so one file serves devices of every age.
TFLITE_OPS: Mapping[str, tuple[OpFormat, ...]] = {
    "Conv2D": WEIGHTED,
    "DepthwiseConv2D": WEIGHTED,
    "FullyConnected": tuple(form for form in WEIGHTED if not form.per_channel),
    **dict.fromkeys(
        (
            "BatchMatMul",
            "Add",
            "Sub",
            "Mul",
            "AveragePool2D",
            "MaxPool2D",
            "Mean",
            "Relu",
            "Clip",
            "Logistic",
            "Tanh",
            "Softmax",
            "Concat",
            "Reshape",
            "Transpose",
            "Pad",
            "StridedSlice",
            "ResizeNearest",
            "ResizeBilinear",
        ),
        BOTH,
    ),
    "Quantize": tuple(
        OpFormat(source, output=output)
        for source in ("int8", "int16")
        for output in ("int8", "int16")
    ),
    "HardSwish": _INT8,
    "Gelu": _INT8,
}


class TFLiteTarget(CpuTarget):
    """A runtime that loads TFLite files."""

    title: ClassVar[str]
    summary: ClassVar[str]
    fuses_padding: ClassVar[bool] = True

    def describe(self) -> TargetDescription:
        return TargetDescription(
            name=self.name,
            title=self.title,
            summary=self.summary,
            ops=TFLITE_OPS,
            cost_metrics=CPU_METRICS,
            rounding_profile="litert-reference",
            # The default int16 sigmoid and tanh interpolate other tables than the reference.
            lsb_budget={"*": 1, "Logistic/int16": 8, "Tanh/int16": 16},
        )

    def build(self, graph: Graph) -> BuildPlan:
        from edgesmith.targets.graph.tflite_writer import write_tflite

        return BuildPlan({MODEL_FILE: write_tflite(graph)}, main=MODEL_FILE)

    def shipped(self, products: BuildProducts) -> Graph:
        from edgesmith.targets.graph.tflite_reader import read_tflite

        return read_tflite((Path(products.folder) / products.main).read_bytes())

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        from edgesmith.targets.graph.tflite_writer import write_tflite

        model = Path(products.folder) / products.main
        if not trace:
            return self.runtime().run(model, inputs)
        # Runtimes compute in place and delegates fuse: only graph outputs are sure to survive,
        # so a trace runs a copy of the file with every tensor as one, on the built-in kernels.
        graph = self.shipped(products)
        shown = tuple(name for op in graph.ops for name in op.outputs)
        with tempfile.TemporaryDirectory(prefix="edgesmith-trace-") as folder:
            wide = Path(folder) / MODEL_FILE
            wide.write_bytes(write_tflite(replace(graph, outputs=shown)))
            found = replace(self.runtime(), kernels="builtin").run(wide, inputs)
        return {**dict(zip(graph.inputs, inputs, strict=True)), **found}

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        from edgesmith.targets.graph.legalizer import legalize
        from edgesmith.targets.graph.onnx_reader import read_float_onnx
        from edgesmith.targets.graph.tflite_writer import write_tflite

        path = folder / "float.tflite"
        twin = legalize(read_float_onnx(float_onnx, "float"), self.describe())
        path.write_bytes(write_tflite(twin))
        return path
