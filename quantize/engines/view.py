"""The float network as an engine sees it: a plain module, one submodule per step.

Its layers are plain torch layers behind stable paths (`steps.<index>.layer`), so that what an
engine made of a module or of a traced node leads back to the step.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from edgesmith.quantize.network import INPUT, Network, Step
from edgesmith.quantize.ops import Layer

_STEP = re.compile(r"(?:^|\.)steps\.(\d+)(?:\.|$)")
_CONSTANT = re.compile(r"(?:^|\.)constant_(\d+)$")


class StepView(nn.Module):
    """One step; `layer` is a copy of its layer, if it has one."""

    def __init__(self, step: Step, layer: nn.Module | None) -> None:
        super().__init__()
        self.step = step
        self.layer = layer

    def forward(self, *operands: Tensor) -> Tensor:
        result: Tensor = (
            self.step.op.run(*operands) if self.layer is None else self.layer(*operands)
        )
        return result if self.step.activation is None else self.step.activation.run(result)


class NetworkView(nn.Module):
    """Computes what the float network computes, on a batch [N, *sample shape]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network_steps = network.steps
        self.constant_names = network.constant_names
        self.steps = nn.ModuleList(
            StepView(
                step,
                copy.deepcopy(network.layer(step.name)) if isinstance(step.op, Layer) else None,
            )
            for step in network.steps
        )
        for index, value in enumerate(network.constants().values()):
            self.register_buffer(f"constant_{index}", value)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for index, name in enumerate(self.constant_names):
            values[name] = self.get_buffer(f"constant_{index}")
        for step, module in zip(self.network_steps, self.steps, strict=True):
            values[step.name] = module(*(values[name] for name in step.inputs))
        return values[self.network_steps[-1].name]

    def step_at(self, path: str) -> Step | None:
        """The step that a module's or parameter's path lies in."""
        found = _STEP.search(path)
        return None if found is None else self.network_steps[int(found[1])]

    def constant_at(self, path: str) -> str | None:
        """The name of the constant that a buffer's path stands for."""
        found = _CONSTANT.search(path)
        return None if found is None else self.constant_names[int(found[1])]

    def step_of(self, node: fx.Node) -> Step | None:
        """The step whose module a traced node was called in."""
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        return next((step for path in paths if (step := self.step_at(path)) is not None), None)


@torch.no_grad()
def run_all(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let a module see batches; its outputs are dropped."""
    for batch in batches:
        module(batch)
