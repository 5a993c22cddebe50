"""What can be pruned in a model: groups of channels, each proven by removing some; whole blocks.

The dependency graph is a claim. It is believed where a copy of the model with random weights,
half of the group's units removed, computes what the whole copy computes with the removed
channels unread. A group that fails is frozen and listed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError, PruningError
from edgesmith.pipeline.problems import did_you_mean
from edgesmith.prune.blocks import residual_blocks
from edgesmith.prune.conversion import attention_in, with_heads
from edgesmith.prune.dependencies import channel_groups
from edgesmith.prune.surgery import Kept, Norm, apply_plan, lies_in, plan_of
from edgesmith.prune.values import Block, ChannelGroup, Frozen, Slot, Structure
from edgesmith.prune.written_out import FORWARD_ERRORS

TOLERANCE = 1e-4
"""Largest difference of an output that counts as equal, relative to the largest output."""
_SEEN = 10 * TOLERANCE
_TRIES = 3
_SAMPLES = 4


def structure_of(
    model: nn.Module, sample_shape: tuple[int, ...], exclude: Iterable[str] = ()
) -> Structure:
    """The groups of a model, and what is frozen.

    Args:
        model: torch module with one input [N, *sample shape] and one output; not changed.
        exclude: shell-style patterns of layers that must keep their channels.

    Raises:
        PruningError: the model cannot be traced at all, a pattern matches no layer, or groups that
            are right one by one are wrong together.
    """
    work = copy.deepcopy(model).eval().to("cpu", torch.float32)
    paths = attention_in(work, sample_shape)
    work = with_heads(work, paths)
    for parameter in work.parameters():
        parameter.requires_grad_(True)
    found, frozen = channel_groups(work, torch.randn(1, *sample_shape))
    groups: list[ChannelGroup] = []
    refused = list(frozen)
    rules = tuple(exclude)
    _check(rules, [name for name, _ in work.named_modules() if name])
    for group in found:
        reason = _excluded(group, rules) or _wrong(work, [group], sample_shape)
        if reason is None:
            groups.append(group)
        else:
            refused.append(Frozen(_layers(group), reason))
    together = _wrong(work, groups, sample_shape) if groups else None
    if together is not None:
        raise PruningError(
            f"the channel groups of {type(model).__name__} contradict each other: {together}",
            fix="exclude layers of the part that is built unusually (`exclude`)",
        )
    return Structure(
        tuple(groups), tuple(refused), paths, _blocks(work, groups, rules, sample_shape)
    )


def _check(rules: tuple[str, ...], names: list[str]) -> None:
    for rule in rules:
        if not any(fnmatchcase(name, rule) for name in names):
            guess = did_you_mean(rule, names)
            raise PruningError(
                f"`exclude`: {rule!r} matches none of the {len(names)} layers",
                fix=f"did you mean {guess!r}?" if guess else f"choose of {', '.join(names)}",
            )


def _blocks(
    work: nn.Module,
    groups: Iterable[ChannelGroup],
    rules: tuple[str, ...],
    sample_shape: tuple[int, ...],
) -> tuple[Block, ...]:
    """Residual blocks in which no layer is excluded."""
    generator = torch.Generator().manual_seed(0)
    random = _randomized(work, generator)
    found = residual_blocks(random, torch.randn(_SAMPLES, *sample_shape, generator=generator))
    kept = [name for name, _ in work.named_modules() if any(fnmatchcase(name, r) for r in rules)]
    return tuple(
        Block(path, tuple(g.name for g in groups if all(lies_in(n, (path,)) for n in _layers(g))))
        for path in found
        if path not in kept and not any(lies_in(name, (path,)) for name in kept)
    )


def _layers(group: ChannelGroup) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer for layer, _ in group.members))


def _excluded(group: ChannelGroup, rules: tuple[str, ...]) -> str | None:
    for layer in _layers(group):
        for rule in rules:
            if fnmatchcase(layer, rule):
                return f"excluded: {layer!r} matches {rule!r}"
    return None if len(group.units) > 1 else "its channels can only be removed all together"


def _wrong(
    work: nn.Module, groups: list[ChannelGroup], sample_shape: tuple[int, ...]
) -> str | None:
    """Why a claim does not hold; None where it is proven."""
    if len(groups) == 1 and all(axis == "out" for _, axis in groups[0].members):
        return "no layer reads its channels: it makes the model's output"
    for seed in range(_TRIES):
        generator = torch.Generator().manual_seed(seed)
        random = _randomized(work, generator)
        x = torch.randn(_SAMPLES, *sample_shape, generator=generator)
        kept = {group.name: _half(group, generator) for group in groups}
        problem, seen = _compared(random, groups, kept, x)
        if problem is not None or seen:
            return problem
    return "its influence on the output is too small to be checked"


@torch.no_grad()
def _compared(
    random: nn.Module, groups: list[ChannelGroup], kept: Kept, x: Tensor
) -> tuple[str | None, bool]:
    """What is wrong with removing units, and whether the output shows them at all."""
    whole = random(x)
    try:
        expected = unread(random, groups, kept)(x)
        plan = plan_of(random, Structure(tuple(groups), ()), kept)
        actual = apply_plan(random, plan)(x)
    except (*FORWARD_ERRORS, CheckpointError) as error:
        return f"the model does not run without some of its channels: {_first(error)}", True
    if actual.shape != expected.shape:
        return "its channels decide the shape of the output", True
    scale = float(expected.abs().max())
    if not float((actual - expected).abs().max()) <= TOLERANCE * scale:
        return "removing channels changes more than what they carry", True
    return None, float((whole - expected).abs().max()) > _SEEN * scale


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _half(group: ChannelGroup, generator: torch.Generator) -> tuple[int, ...]:
    count = len(group.units)
    chosen = torch.randperm(count, generator=generator)[: (count + 1) // 2]
    return tuple(sorted(chosen.tolist()))


def unread(model: nn.Module, groups: Iterable[ChannelGroup], kept: Kept) -> nn.Module:
    """A copy of full size that computes what the pruned model computes.

    What reads removed channels gets zero weights; layer normalization looks past them.
    """
    made = copy.deepcopy(model)
    for group in groups:
        staying = set(kept.get(group.name, range(len(group.units))))
        for number, unit in enumerate(group.units):
            if number not in staying:
                for slot in unit:
                    _ignore(made, slot)
    for module in made.modules():
        if isinstance(module, nn.LayerNorm) and hasattr(module, "removed"):
            module.register_forward_hook(_normalized_without(module))
    return made


def _ignore(model: nn.Module, slot: Slot) -> None:
    try:
        layer = model.get_submodule(slot.layer)
    except AttributeError:
        return  # a parameter: whoever reads the sum has zero weights
    if slot.axis == "in":
        with torch.no_grad():
            layer.weight[:, list(slot.index)] = 0  # type: ignore[operator]
    elif isinstance(layer, nn.LayerNorm):
        removed: set[int] = getattr(layer, "removed", set())
        layer.removed = removed | set(slot.index)  # type: ignore[assignment]


def _normalized_without(
    layer: nn.LayerNorm,
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    removed: set[int] = layer.removed  # type: ignore[assignment]
    kept = [i for i in range(layer.normalized_shape[-1]) if i not in removed]

    def normalize(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        made = torch.zeros_like(output)
        weight, bias = layer.weight, layer.bias
        made[..., kept] = nn.functional.layer_norm(
            inputs[0][..., kept],
            [len(kept)],
            None if weight is None else weight[kept],
            None if bias is None else bias[kept],
            layer.eps,
        )
        return made

    return normalize


@torch.no_grad()
def _randomized(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with random weights and batch statistics, so that no channel is dead."""
    made = copy.deepcopy(model)

    def random(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator)

    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.copy_(random(parameter) * (2 / parameter[0].numel()) ** 0.5)
        else:
            parameter.copy_(0.3 * random(parameter))
    for module in made.modules():
        if isinstance(module, (*Norm, nn.LayerNorm)) and module.weight is not None:
            module.weight.copy_(0.75 + 0.2 * random(module.weight).abs())
        if isinstance(module, Norm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.copy_(0.3 * random(module.running_mean))
            module.running_var.copy_(0.5 + random(module.running_var).abs())
    return made
