"""A super-network: one trained model's weights, run as any of its sub-networks.

A sub-network's parameters are slices of the trained model's, through which gradients flow back. To
know which slices, the plan is carried out once on a copy whose every weight is its own number; what
is left in each place says where it came from. So a sub-network that is run here and one that is
extracted are cut by the same code, and the largest one is the trained model, bit for bit.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from edgesmith.nas.codes import Codes
from edgesmith.nas.elastic import Architecture, Elastic
from edgesmith.nas.rounding import Policy, rounded_input, rounded_weight
from edgesmith.prune.surgery import Conv, apply_plan

_REMEMBERED = 16
"""Sub-networks whose slices are kept; the least recently run one is forgotten first."""


@dataclass(frozen=True, eq=False)
class _Slice:
    """Where a sub-network's parameter comes from; `places` is None for all of it."""

    source: str
    places: Tensor | None
    shape: torch.Size

    def of(self, whole: Tensor) -> Tensor:
        if self.places is None:
            return whole
        return whole.flatten().index_select(0, self.places).view(self.shape)


@dataclass(frozen=True, eq=False)
class _SubNetwork:
    """A smaller module without weights, with batch statistics of its own."""

    module: nn.Module
    slices: dict[str, _Slice]


class SuperNetwork(nn.Module):
    """Shares the weights of a trained model between all of its sub-networks.

    Args:
        model: the trained model; copied.
        elastic: what can vary in it.
    """

    def __init__(self, model: nn.Module, elastic: Elastic) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.elastic = elastic
        numbered, self._first = _numbered(self.model)
        self._numbered = (numbered,)  # in a tuple, it is no part of the state
        self._names = list(self._first)
        self._policy: Policy = {}
        self._codes = Codes()
        self._known: OrderedDict[tuple[tuple[str, int], ...], _SubNetwork] = OrderedDict()
        self.eval()

    def forward(
        self, x: Tensor, architecture: Architecture | None = None, policy: Policy | None = None
    ) -> Tensor:
        """What a sub-network computes; the largest one if none is given.

        In training mode batch norms normalize by the batch.

        Args:
            policy: formats that layers are rounded to on the way.

        Raises:
            ValueError: there is no such sub-network.
        """
        found = self._subnetwork(architecture or {})
        found.module.train(self.training)
        shared = dict(self.model.named_parameters())
        parameters = {name: each.of(shared[each.source]) for name, each in found.slices.items()}
        self._policy = policy or {}
        for path, formats in self._policy.items():
            weight = f"{path}.weight"
            if formats.weight is not None and weight in parameters:
                parameters[weight] = rounded_weight(parameters[weight], formats.weight)
        self._codes = Codes()
        with saved_tensors_hooks(self._codes.pack, self._codes.unpack):
            out: Tensor = torch.func.functional_call(found.module, parameters, (x,))
        return out

    def extract(self, architecture: Architecture) -> nn.Module:
        """The sub-network as a plain module of its own, in eval mode.

        Raises:
            ValueError: there is no such sub-network.
        """
        found = self._subnetwork(architecture)
        made = apply_plan(self.model, self.elastic.plan(architecture)).eval()
        statistics = dict(found.module.named_buffers())
        for name, value in made.named_buffers():
            value.copy_(statistics[name])
        return made

    def _subnetwork(self, architecture: Architecture) -> _SubNetwork:
        chosen = self.elastic.canonical(architecture)
        key = tuple(sorted(chosen.items()))
        if key not in self._known:
            self._known[key] = self._cut(chosen)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _cut(self, architecture: Architecture) -> _SubNetwork:
        module = apply_plan(self._numbered[0], self.elastic.plan(architecture))
        slices = {name: self._slice(value) for name, value in _named(module)}
        for name, found in slices.items():
            parent, _, last = name.rpartition(".")
            kind = self.model.get_parameter(found.source).dtype
            empty = nn.Parameter(torch.empty(found.shape, dtype=kind, device="meta"))
            setattr(module.get_submodule(parent), last, empty)
        module.float()  # batch statistics, which are not numbered
        for path, layer in module.named_modules():
            if isinstance(layer, (*Conv, nn.Linear)):
                layer.register_forward_pre_hook(partial(self._rounded, path))
        return _SubNetwork(module, slices)

    def _rounded(self, path: str, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """What a layer reads, in the format that the present pass has for it."""
        formats = self._policy.get(path)
        if formats is None or formats.reads is None:
            return None
        return (rounded_input(inputs[0], formats.reads, self._codes),)

    def _slice(self, numbers: Tensor) -> _Slice:
        flat = numbers.detach().flatten().long()
        starts = list(self._first.values())
        source = self._names[bisect_right(starts, int(flat[0])) - 1]
        size = self.model.get_parameter(source).numel()
        places = flat - self._first[source]
        whole = len(places) == size and bool((places == torch.arange(size)).all())
        return _Slice(source, None if whole else places.int(), numbers.shape)


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters under all of their names: tied ones are slices of one."""
    return module.named_parameters(remove_duplicate=False)


@torch.no_grad()
def _numbered(model: nn.Module) -> tuple[nn.Module, dict[str, int]]:
    """A copy whose weights are 0, 1, 2, ..., and the first number of each parameter."""
    made = copy.deepcopy(model).double().requires_grad_(False)
    first: dict[str, int] = {}
    count = 0
    for name, value in made.named_parameters():
        first[name] = count
        value.copy_(torch.arange(count, count + value.numel()).view(value.shape))
        count += value.numel()
    return made, first
