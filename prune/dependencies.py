"""Which channels of which layers hang together, read from torch-pruning's dependency graph.

The graph (Fang et al., "DepGraph: Towards Any Structural Pruning", 2023) comes from autograd, so
it sees functions as well as modules. Its groups of a whole layer merge channels that are tied to
each other (both halves of a split), so the graph is walked here once per layer with every channel
traced on its own, and channels that meet anywhere become one unit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning._helpers import _HybridIndex

from edgesmith.pipeline.errors import PruningError
from edgesmith.prune.attention import HeadAttention
from edgesmith.prune.surgery import Conv, Norm, has_inputs, is_depthwise
from edgesmith.prune.values import Axis, ChannelGroup, Frozen, Slot

Element = tuple[str, Axis, int]
ENTRANCE = "(input)"
_CUTTABLE = (*Conv, *Norm, nn.Linear, nn.LayerNorm)


@dataclass
class _Walk:
    """What one layer's channels touch."""

    elements: set[Element] = field(default_factory=set)
    ties: list[tuple[Element, Element]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # layer -> why it cannot be cut


class _Sets:
    """Disjoint sets of elements."""

    def __init__(self) -> None:
        self._parent: dict[Element, Element] = {}

    def root(self, element: Element) -> Element:
        parent = self._parent.setdefault(element, element)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        self._parent[element] = parent
        return parent

    def join(self, one: Element, other: Element) -> None:
        self._parent[self.root(other)] = self.root(one)

    def roots(self) -> tuple[Element, ...]:
        """Every element."""
        return tuple(self._parent)

    def sets(self) -> dict[Element, list[Element]]:
        """Elements by the root of their set."""
        found: dict[Element, list[Element]] = {}
        for element in sorted(self._parent):
            found.setdefault(self.root(element), []).append(element)
        return found


class _Entrance(nn.Module):
    """A model behind a 1x1 convolution, so that the graph knows the channels of an image.

    Without it, a concatenation with the model's own input gets wrong offsets.
    """

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        super().__init__()
        self.model = model
        image = sample.ndim == 4
        self.entrance = nn.Conv2d(sample.shape[1], sample.shape[1], 1) if image else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(self.entrance(x))
        return out


def channel_groups(
    model: nn.Module, sample: Tensor
) -> tuple[tuple[ChannelGroup, ...], tuple[Frozen, ...]]:
    """Groups as the dependency graph has them, unverified, and layers it has no slices for.

    Args:
        model: with `HeadAttention` for attention; every parameter must require gradients.
        sample: one input [1, *sample shape].

    Raises:
        PruningError: the graph cannot be built.
    """
    entrance = _Entrance(model, sample)
    graph = _graph(entrance, sample)
    names = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    names[entrance.entrance] = ENTRANCE
    attention = [m for m in model.modules() if isinstance(m, HeadAttention)]
    inner = {names[layer] for m in attention for layer in (m.query, m.key, m.value)}
    sets, frozen = _Sets(), {}
    for layer in list(graph.module2node):
        if not isinstance(layer, (*Conv, nn.Linear)) or names.get(layer, "") in inner:
            continue
        walk = _walk(graph, layer, names)
        if walk.reasons:
            frozen[names[layer]] = "; ".join(sorted(set(walk.reasons.values())))
            continue
        for element in walk.elements:
            sets.root(element)
        for one, other in walk.ties:
            sets.join(one, other)
    for module in attention:
        _tie_heads(module, names[module], sets)
    inputs = {element for element in sets.roots() if element[0] == ENTRANCE}
    closed = {sets.root(element) for element in inputs}
    found = sets.sets()
    if closed:
        tied = (element for root in closed for element in found[root])
        makers = {layer for layer, axis, _ in tied if axis == "out"} - {ENTRANCE}
        frozen |= dict.fromkeys(sorted(makers), "its channels are added to the model's input")
    units = [_slots(elements) for root, elements in found.items() if root not in closed]
    order = {name: place for place, name in enumerate(names.values())}
    return _grouped(units, order), tuple(Frozen((n,), why) for n, why in sorted(frozen.items()))


def _graph(entrance: _Entrance, sample: Tensor) -> Any:
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            return torch_pruning.DependencyGraph().build_dependency(entrance, sample, verbose=False)
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise PruningError(
                f"the channels of {type(entrance.model).__name__} cannot be traced: {error}",
                fix="make the forward pass take one tensor and return one, through autograd",
            ) from error


def _walk(graph: Any, layer: nn.Module, names: dict[Any, str]) -> _Walk:
    """Everything that the layer's output channels lead to, channel by channel."""
    node = graph.module2node[layer]
    pruner = graph.get_pruner_of_module(layer)
    channels = [_HybridIndex(idx=i, root_idx=i) for i in range(layer.weight.shape[0])]  # type: ignore[index]
    stack = [(node, pruner.prune_out_channels, channels)]
    seen: set[tuple[Any, Any, tuple[Any, ...]]] = set()
    walk = _Walk()
    while stack:
        node, handler, indices = stack.pop()
        mark = (node, handler, tuple(indices))
        if mark in seen:
            continue
        seen.add(mark)
        _note(graph, walk, node, handler, indices, names, names[layer])
        for edge in node.dependencies:
            if not edge.is_triggered_by(handler):
                continue
            onward = indices
            for mapping in edge.index_mapping:
                onward = onward if mapping is None else mapping(onward)
            if onward:
                stack.append((edge.target, edge.handler, onward))
    return walk


def _note(
    graph: Any, walk: _Walk, node: Any, handler: Any, indices: Any, names: Any, root: str
) -> None:
    """The elements of one node, each tied to the root channel that led there."""
    module = node.module
    name = names.get(module)
    if name is None:
        return  # an operation without weights
    if not isinstance(module, (*_CUTTABLE, nn.Parameter)):
        walk.reasons[name] = f"{name!r} is a {type(module).__name__}"
        return
    reads = handler not in graph._out_channel_pruning_fn and has_inputs(module)
    axis: Axis = "in" if reads else "out"
    for index in indices:
        start: Element = (root, "out", index.root_idx)
        for element in _elements(module, name, axis, index.idx):
            walk.elements.add(element)
            walk.ties.append((start, element))


def _elements(module: Any, name: str, axis: Axis, index: int) -> Iterator[Element]:
    """The element of a channel; groups of a convolution lose the same positions together."""
    if not isinstance(module, Conv) or module.groups == 1 or is_depthwise(module):
        yield name, axis, index
    elif axis == "in":
        yield name, "in", index % (module.in_channels // module.groups)
    else:
        size = module.out_channels // module.groups
        yield from ((name, "out", index % size + g * size) for g in range(module.groups))


def _tie_heads(module: HeadAttention, name: str, sets: _Sets) -> None:
    """A head is one unit: its queries, keys, values, and what reads them."""
    for index in range(module.query.out_features):
        head = index - index % module.head_width
        for layer in ("query", "key", "value"):
            sets.join((f"{name}.query", "out", head), (f"{name}.{layer}", "out", index))
        sets.join((f"{name}.query", "out", head), (f"{name}.output", "in", index))


def _slots(elements: list[Element]) -> tuple[Slot, ...]:
    found: dict[tuple[str, Axis], list[int]] = {}
    for layer, axis, index in elements:
        found.setdefault((layer, axis), []).append(index)
    return tuple(Slot(layer, axis, tuple(sorted(index))) for (layer, axis), index in found.items())


def _grouped(units: list[tuple[Slot, ...]], order: dict[str, int]) -> tuple[ChannelGroup, ...]:
    """Units that touch the same axes are one group, named by the first layer that makes them."""
    families: dict[tuple[tuple[str, Axis], ...], list[tuple[Slot, ...]]] = {}
    for unit in units:
        slots = tuple(sorted(unit, key=lambda slot: (order[slot.layer], slot.axis)))
        families.setdefault(tuple((s.layer, s.axis) for s in slots), []).append(slots)
    groups: dict[str, ChannelGroup] = {}
    for members, slots_of in families.items():
        first = next((layer for layer, axis in members if axis == "out"), members[0][0])
        name = first
        while name in groups:  # another part of the same layer's channels
            name += "'"
        groups[name] = ChannelGroup(name, tuple(sorted(slots_of, key=lambda unit: unit[0].index)))
    return tuple(
        sorted(groups.values(), key=lambda group: (order[group.name.rstrip("'")], group.name))
    )
