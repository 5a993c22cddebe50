"""`run`: the artifact, and the reference executor on the same graph, over the test split.

Every operator is compared with the reference on the inputs that the artifact saw; one
that is beyond the target's budget stops the deployment. An exported file with 8-bit floats
is compared as a whole: its outputs, and the bit patterns of its quantized tensors.

Output: `outputs.npz` ("deployed" and "reference": codes of the first graph output) and
`trace-deployed.npz`, `trace-reference.npz` (codes of every tensor, first test samples).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec
    from edgesmith.targets.base import Codes, Target


def codes_of_test(context: StageContext, target: Target, limit: int | None = None) -> list[Codes]:
    """The test split as codes of the artifact's inputs: [samples, *tensor shape] for each.

    Args:
        limit: at most so many samples, the first ones.
    """
    from edgesmith.pipeline.jsonvalue import from_json
    from edgesmith.pipeline.splits import read_split
    from edgesmith.pipeline.stages.build import ORDER
    from edgesmith.pipeline.target_facts import products_in
    from edgesmith.targets.graph.drift import TraceOrder
    from edgesmith.targets.graph.edges import encode_inputs

    graph = target.shipped(products_in(context.inputs["build"]))
    samples = read_split(context.inputs["data"], "test").inputs[:limit]
    order = from_json(TraceOrder, (context.inputs["build"] / ORDER).read_bytes())
    source = graph[graph.inputs[0]]
    return [encode_inputs(source, samples, order.layouts.get(source.name))]


@dataclass(frozen=True)
class Run(Stage):
    """Run the deployed artifact and the reference executor.

    Args:
        trace_samples: test samples whose intermediate tensors are compared layer by layer.
    """

    name: ClassVar[str] = "run"
    per_target: ClassVar[bool] = True

    trace_samples: Annotated[int, Field(ge=1)] = 16

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("data", "build")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.target_facts import tool_parts
        from edgesmith.pipeline.versions import installed

        return {**installed("numpy"), **tool_parts(target)}

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.arrays import save_arrays
        from edgesmith.pipeline.target_facts import get_target, products_in
        from edgesmith.targets.graph.agreement import (
            require_agreement,
            require_same_codes,
            require_same_outputs,
        )

        target = get_target(context.target)
        products = products_in(context.inputs["build"])
        graph = target.shipped(products)
        (codes,) = codes_of_test(context, target)
        context.progress.report("running the test split", 0, 2)
        deployed = target.run(products, [codes])
        context.progress.report("running the test split", 1, 2)
        reference = target.reference(products, [codes])
        context.progress.report("running the test split", 2, 2)
        output = graph.outputs[0]
        both = {"deployed": deployed[output], "reference": reference[output]}
        save_arrays(context.folder / "outputs.npz", both)
        few = [codes[: self.trace_samples]]
        shown = target.run(products, few, trace=True)
        save_arrays(context.folder / "trace-deployed.npz", shown)
        computed = target.reference(products, few, trace=True)
        save_arrays(context.folder / "trace-reference.npz", computed)
        if target.deploys_exported:
            require_same_outputs(both["deployed"], both["reference"], target.name)
            shares = require_same_codes(graph, shown, computed, target.describe())
            most = 100 * max(shares.values(), default=0.0)
            context.log.info("at most %.3g %% of a tensor's codes differ", most)
        else:
            found = require_agreement(graph, shown, target.describe())
            worst = max((each.max_lsb for each in found), default=0)
            context.log.info("%d operators within %d LSB of the reference", len(found), worst)
