"""Residual blocks that can go as a whole: what is left of one without its branch is its input.

A block is a module that returns what it reads when all its parameters are zero. It is found by
trying, on what arrives there in a model with random weights: a ReLU at its end is none where only
values that are not negative arrive. `nn.Identity` takes its place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from edgesmith.prune.surgery import Conv


@torch.no_grad()
def residual_blocks(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Paths of the innermost residual blocks, in the order of the module tree.

    Blocks without a convolution or linear layer are left out: they cost next to nothing. So are
    those that the forward pass calls more than once, or with more than one tensor.

    Args:
        model: in eval mode, with weights that leave no channel dead; not changed.
        x: samples [N, *sample shape].
    """
    calls: dict[str, list[Tensor | None]] = {}
    hooks = []
    for path, module in model.named_modules():
        if path and not isinstance(module, (*Conv, nn.Linear)) and _computes(module):

            def note(
                module: nn.Module, given: Any, named: Any, output: Any, path: str = path
            ) -> None:
                alike = len(given) == 1 and not named and _alike(given[0], output)
                calls.setdefault(path, []).append(given[0] if alike else None)

            hooks.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    once = {path: seen[0] for path, seen in calls.items() if len(seen) == 1}
    found = [
        path
        for path, given in once.items()
        if given is not None and _is_input(model.get_submodule(path), given)
    ]
    return tuple(
        path
        for path, _ in model.named_modules()
        if path in found and not any(other.startswith(f"{path}.") for other in found)
    )


def _computes(module: nn.Module) -> bool:
    return any(isinstance(each, (*Conv, nn.Linear)) for each in module.modules())


def _alike(given: Any, output: Any) -> bool:
    tensors = isinstance(given, Tensor) and isinstance(output, Tensor)
    return tensors and given.shape == output.shape


def _is_input(module: nn.Module, given: Tensor) -> bool:
    made = copy.deepcopy(module)
    for parameter in made.parameters():
        parameter.zero_()
    return torch.equal(made(given), given)
