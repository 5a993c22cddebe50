"""`measure`: latency of the artifact and its float baseline, interleaved, and peak memory.

A target that emulates its device counts there instead: instructions, cycles, flash, stack.

Output: `latency.json` and `memory.json` where the target can be timed here, `device.json` where
it is emulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec

DEVICE = "device.json"


@dataclass(frozen=True)
class Measure(Stage):
    """Time single samples after warm-up.

    Args:
        runs: timed runs of each model.
        warmups: runs before them.
        threads: of the runtime.
        device_samples: test samples that an emulated device counts.
    """

    name: ClassVar[str] = "measure"
    per_target: ClassVar[bool] = True

    runs: Annotated[int, Field(ge=100)] = 300
    warmups: Annotated[int, Field(ge=10)] = 30
    threads: Annotated[int, Field(ge=1)] = 1
    device_samples: Annotated[int, Field(ge=1)] = 8

    def __post_init__(self) -> None:
        if self.runs < 100 or self.warmups < 10 or self.threads < 1:
            raise ValueError("a latency needs at least 100 runs, 10 warm-ups and 1 thread")

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("data", "build")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.target_facts import tool_parts
        from edgesmith.pipeline.versions import machine

        return {"machine": canonical_json(machine()), **tool_parts(target)}

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.jsonvalue import to_json
        from edgesmith.pipeline.stages.run import codes_of_test
        from edgesmith.pipeline.target_facts import float_baseline_in, get_target, products_in
        from edgesmith.targets.base import LatencyOptions

        target = get_target(context.target)
        products = products_in(context.inputs["build"])
        baseline = float_baseline_in(context.inputs["build"])
        options = LatencyOptions(self.warmups, self.runs, self.threads)
        latency = target.measure_latency(products, baseline, options)
        if latency is not None:
            (context.folder / "latency.json").write_text(to_json(latency))
        memory = target.peak_memory_bytes(products)
        (context.folder / "memory.json").write_text(to_json(MemoryFound(memory)))
        device = target.device(products, codes_of_test(context, target, self.device_samples))
        if device is not None:
            (context.folder / DEVICE).write_text(to_json(device))


@dataclass(frozen=True)
class MemoryFound:
    """Peak resident memory that the model adds, bytes; None where unknown."""

    peak_bytes: int | None
