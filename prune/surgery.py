"""From a plan to a smaller module: layers lose channels, everything else stays the user's.

The same plan on the same factory's module gives the same module, so a pruned model is stored as
the plan (JSON) and a state dict; nothing is pickled.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError, EmptyLayerError
from edgesmith.prune.conversion import with_heads
from edgesmith.prune.values import Axis, ChannelGroup, Cut, PrunePlan, Structure
from edgesmith.quantize.columns import pads_of

Conv = (nn.Conv1d, nn.Conv2d)
Norm = (nn.BatchNorm1d, nn.BatchNorm2d)
Kept = Mapping[str, Collection[int]]
"""Group name -> units that stay; a group that is not named stays whole."""


def is_depthwise(layer: nn.Module | nn.Parameter) -> bool:
    """A convolution with as many groups as inputs and outputs: channels pass it one by one."""
    return isinstance(layer, Conv) and layer.groups == layer.in_channels == layer.out_channels > 1


def has_inputs(layer: nn.Module | nn.Parameter) -> bool:
    """Whether its inputs are an axis of their own."""
    return isinstance(layer, (*Conv, nn.Linear)) and not is_depthwise(layer)


def width(model: nn.Module, layer: str, axis: Axis) -> int:
    """How many positions an axis of a layer has, as `Slot` counts them."""
    try:
        module = model.get_submodule(layer)
    except AttributeError:
        return _parameter(model, layer).shape[-1]
    if isinstance(module, Conv):
        return module.out_channels if axis == "out" else module.in_channels // module.groups
    if isinstance(module, nn.Linear):
        return module.out_features if axis == "out" else module.in_features
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    assert isinstance(module, Norm)
    return int(module.num_features)


def without(model: nn.Module, paths: Iterable[str]) -> nn.Module:
    """The model, in place, without these blocks.

    Raises:
        AttributeError: there is no such module.
    """
    for path in paths:
        model.set_submodule(path, nn.Identity(), strict=True)
    return model


def lies_in(layer: str, blocks: Iterable[str]) -> bool:
    """Whether a layer is part of one of these blocks."""
    return any(layer.startswith(f"{block}.") for block in blocks)


def plan_of(
    model: nn.Module, structure: Structure, kept: Kept, dropped: Collection[str] = ()
) -> PrunePlan:
    """The plan that keeps these units.

    Args:
        model: the one that `structure` was found in, with its attention converted
            (`surgery.converted`).
        dropped: paths of blocks that go as a whole; what `kept` says of layers in them is moot.

    Raises:
        EmptyLayerError: a layer would have no channel left.
    """
    removed: dict[tuple[str, Axis], set[int]] = {}
    for group in structure.groups:
        if group.name in kept:
            _remove(group, set(kept[group.name]), removed)
    layers: dict[str, Cut] = {}
    for (layer, axis), gone in sorted(removed.items()):
        if lies_in(layer, dropped):
            continue
        staying = tuple(i for i in range(width(model, layer, axis)) if i not in gone)
        if not staying:
            raise EmptyLayerError(
                f"pruning would leave layer {layer!r} without {axis}put channels",
                fix="choose a higher cost goal, a lower `max_pruned`, or exclude the layer",
            )
        cut = layers.get(layer, Cut())
        out_kept = staying if axis == "out" else cut.out_kept
        layers[layer] = Cut(out_kept, staying if axis == "in" else cut.in_kept)
    touched = tuple(a for a in structure.attention if any(x.startswith(f"{a}.") for x in layers))
    return PrunePlan(layers, touched, tuple(sorted(dropped)))


def _remove(
    group: ChannelGroup, staying: set[int], removed: dict[tuple[str, Axis], set[int]]
) -> None:
    for number, unit in enumerate(group.units):
        if number not in staying:
            for slot in unit:
                removed.setdefault((slot.layer, slot.axis), set()).update(slot.index)


def converted(model: nn.Module, structure: Structure) -> nn.Module:
    """A copy with all attention that may lose heads converted; computes the same."""
    return with_heads(copy.deepcopy(model), structure.attention)


def apply_plan(model: nn.Module, plan: PrunePlan) -> nn.Module:
    """A smaller copy of the original module; its class and its other attributes are the same.

    Raises:
        CheckpointError: the plan belongs to another model.
    """
    made = copy.deepcopy(model)
    try:
        without(made, plan.dropped)
        with_heads(made, plan.attention)
        for path, cut in plan.layers.items():
            _cut(made, path, cut)
    except (AttributeError, AssertionError, IndexError) as error:
        raise CheckpointError(
            f"the pruning plan does not fit {type(model).__name__}: {error}",
            fix="prune again: the model's code or arguments have changed",
        ) from error
    return made


def after(plan: PrunePlan, then: PrunePlan) -> PrunePlan:
    """One plan for two in a row: `then` counts positions of what `plan` left."""
    layers = {path: cut for path, cut in plan.layers.items() if not lies_in(path, then.dropped)}
    for path, cut in then.layers.items():
        old = layers.get(path, Cut())
        layers[path] = Cut(
            _chained(old.out_kept, cut.out_kept),
            _chained(old.in_kept, cut.in_kept),
            cut.kernel or old.kernel,
        )
    attention = dict.fromkeys((*plan.attention, *then.attention))
    staying = tuple(path for path in attention if not lies_in(path, then.dropped))
    dropped = tuple(sorted({*plan.dropped, *then.dropped}))
    return PrunePlan(dict(sorted(layers.items())), staying, dropped)


def _chained(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    if first is None or second is None:
        return first if second is None else second
    return tuple(first[i] for i in second)


def _cut(model: nn.Module, path: str, cut: Cut) -> None:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        parent, _, name = path.rpartition(".")
        value = _parameter(model, path)
        assert cut.out_kept is not None
        setattr(model.get_submodule(parent), name, _selected(value, -1, cut.out_kept))
        return
    if isinstance(layer, Conv):
        _cut_conv(layer, cut)
    elif isinstance(layer, nn.Linear):
        _take(layer, ("weight", "bias"), 0, cut.out_kept)
        _take(layer, ("weight",), 1, cut.in_kept)
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.LayerNorm):
        assert cut.out_kept is not None
        _take(layer, ("weight", "bias"), -1, cut.out_kept)
        layer.normalized_shape = (*layer.normalized_shape[:-1], len(cut.out_kept))
    else:
        assert isinstance(layer, Norm), f"layer {path!r} is a {type(layer).__name__}"
        assert cut.out_kept is not None
        _take(layer, ("weight", "bias", "running_mean", "running_var"), 0, cut.out_kept)
        layer.num_features = len(cut.out_kept)


def _cut_conv(layer: nn.Conv1d | nn.Conv2d, cut: Cut) -> None:
    depthwise = is_depthwise(layer)
    _take(layer, ("weight", "bias"), 0, cut.out_kept)
    _take(layer, ("weight",), 1, cut.in_kept)
    layer.out_channels = len(layer.weight)
    if depthwise:
        layer.groups = layer.out_channels
    layer.in_channels = layer.weight.shape[1] * layer.groups
    if cut.kernel is not None:
        _crop(layer, cut.kernel)


def has_centre(layer: nn.Conv1d | nn.Conv2d, kernel: Sequence[int]) -> bool:
    """Whether a smaller kernel is the centre of the layer's, and leaves its outputs in place."""
    for axis, (old, new) in enumerate(zip(layer.kernel_size, kernel, strict=True)):
        if not 0 < new <= old or (old - new) % 2 != 0:
            return False
        gone = (old - new) // 2 * layer.dilation[axis]
        if isinstance(layer.padding, str):
            if gone and layer.padding != "same":
                return False
        elif gone > layer.padding[axis]:
            return False
    return True


def _crop(layer: nn.Conv1d | nn.Conv2d, kernel: tuple[int, ...]) -> None:
    assert has_centre(layer, kernel), f"a kernel of {layer.kernel_size} has no centre of {kernel}"
    gone = [(old - new) // 2 for old, new in zip(layer.kernel_size, kernel, strict=True)]
    cropped = layer.weight.detach()
    for axis, (first, size) in enumerate(zip(gone, kernel, strict=True), start=2):
        cropped = cropped.narrow(axis, first, size)
    layer.weight = nn.Parameter(cropped.clone(), requires_grad=layer.weight.requires_grad)
    layer.kernel_size = kernel
    if not isinstance(layer.padding, str):
        pads = zip(layer.padding, gone, layer.dilation, strict=True)
        layer.padding = tuple(int(pad) - r * d for pad, r, d in pads)
    # What torch pads with by hand in the other padding modes.
    layer._reversed_padding_repeated_twice = pads_of(layer)


def _take(layer: nn.Module, names: Iterable[str], axis: int, kept: tuple[int, ...] | None) -> None:
    """Keep positions of parameters and buffers."""
    if kept is None:
        return
    for name in names:
        value = getattr(layer, name, None)
        if value is not None:
            setattr(layer, name, _selected(value, axis, kept))


def _selected(value: Tensor, axis: int, kept: tuple[int, ...]) -> Tensor:
    if not (kept and kept[0] >= 0 and kept[-1] < value.shape[axis]):
        raise IndexError(f"positions {kept[0]}..{kept[-1]} of {value.shape[axis]}")
    chosen = value.detach().index_select(axis, torch.tensor(kept, device=value.device))
    if isinstance(value, nn.Parameter):
        return nn.Parameter(chosen, requires_grad=value.requires_grad)
    return chosen


def _parameter(model: nn.Module, path: str) -> Tensor:
    parent, _, name = path.rpartition(".")
    value: Tensor = model.get_submodule(parent).get_parameter(name)
    return value
