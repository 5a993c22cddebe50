"""The network while it is being written: what normalization rules emit into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.quantize.channel_statistics import Statistics
from edgesmith.quantize.network import INPUT, Step
from edgesmith.quantize.ops import Layer, Linear, Op, Reshape
from edgesmith.quantize.trace import BATCHES, Fact


@dataclass(frozen=True)
class Ref:
    """A tensor of the network: its name and its shape on two samples."""

    name: str
    shape: tuple[int, ...]
    batch_axes: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


class BatchDependent:
    """Stands for an integer that follows the batch size."""


BATCH_DEPENDENT = BatchDependent()


@dataclass
class Draft:
    """Steps in order, with the float tensors they need.

    `weights` maps a layer step to (weight, bias); `norms` maps a batch norm step
    to (scale, shift) per channel, float64, and `statistics` to what it knows about its
    output; `ranks` has every step's number of axes.
    """

    steps: list[Step] = field(default_factory=list)
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    norms: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=lambda: {INPUT})
    output: str = INPUT

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken."""
        candidate, count = name, 0
        while candidate in self.names:
            count += 1
            candidate = f"{name}_{count}"
        self.names.add(candidate)
        return candidate


@dataclass(frozen=True)
class Call:
    """One operator of the traced graph, as a normalization rule sees it."""

    draft: Draft
    node: fx.Node
    fact: Fact
    scope: str
    """Path of the module whose forward contains the call; of the called module for call_module."""
    title: str
    """The operator as the user wrote it."""
    module: nn.Module | None

    def emit(self, op: Op, *operands: Ref | Tensor | float, part: bool = False) -> Ref:
        """Append a step and return its output.

        Args:
            operands: earlier tensors, or constants, which get a name of their own.
            part: one of several steps of a called module; its kind becomes part of its name.
        """
        name = self._name(op, part)
        inputs = tuple(self._operand(name, value) for value in operands)
        self.draft.steps.append(Step(name, op, inputs))
        shape, batch_axes = self._result(op, operands)
        self.draft.ranks[name] = len(shape)
        return Ref(name, shape, batch_axes)

    def layer(
        self,
        op: Layer,
        x: Ref,
        weight: Tensor,
        bias: Tensor | None,
        width: int,
        *,
        part: bool = False,
    ) -> Ref:
        """Append a step with weight and bias (zeros where it has none) of `width` channels."""
        made = self.emit(op, x, part=part)
        zeros = torch.zeros(width)
        self.draft.weights[made.name] = (
            weight.detach().float().clone(),
            zeros if bias is None else bias.detach().float().clone(),
        )
        return made

    def reshape(self, x: Ref, fact: Fact | None = None) -> Ref:
        """`x` in the shape of `fact` (this call's own by default); no step when it has it."""
        two, three = ((self.fact if fact is None else fact).values[i].shape for i in (0, 1))
        if tuple(two) == x.shape:
            return x
        pairs = list(zip(two, three, strict=True))
        if sum(a != b for a, b in pairs) != 1 or any(
            a != b and a * BATCHES[1] != b * BATCHES[0] for a, b in pairs
        ):
            self.refuse("its result does not hold the samples along one axis", "keep axis 0")
        shape = tuple(-1 if a != b else a for a, b in pairs)
        static = tuple(a // BATCHES[0] if a != b else a for a, b in pairs)
        return self.emit(Reshape(shape, static), x)

    def refuse(self, reason: str, fix: str) -> NoReturn:
        """Raise: this operator cannot be quantized."""
        where = f" in module {self.scope!r}" if self.scope else ""
        raise UnsupportedError(f"{self.title}{where} cannot be quantized: {reason}", fix=fix)

    def _name(self, op: Op, part: bool) -> str:
        if self.module is not None:
            return self.draft.unique(f"{self.scope}.{op.kind}" if part else self.scope)
        return self.draft.unique(f"{self.scope}.{op.kind}" if self.scope else op.kind)

    def _operand(self, step: str, value: Ref | Tensor | float) -> str:
        if isinstance(value, Ref):
            return value.name
        tensor = torch.as_tensor(value, dtype=torch.float32)
        name = self.draft.unique(f"{step}.constant")
        self.draft.constants[name] = tensor.reshape(1) if tensor.ndim == 0 else tensor.clone()
        return name

    def _result(
        self, op: Op, operands: tuple[Ref | Tensor | float, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape and batch axes of a step's output; convolutions have those of the call itself."""
        if isinstance(op, Linear) and isinstance(operands[0], Ref):
            x = operands[0]
            return (*x.shape[:-1], op.out_features), x.batch_axes
        if isinstance(op, Layer):
            return self.fact.shape, self.fact.batch_axes
        if op.kind == "batch_norm":
            assert isinstance(operands[0], Ref)
            return operands[0].shape, operands[0].batch_axes
        runs = [op.run(*(_stand_in(value, extra) for value in operands)) for extra in (0, 1)]
        pairs = zip(runs[0].shape, runs[1].shape, strict=True)
        axes = tuple(axis for axis, (two, three) in enumerate(pairs) if two != three)
        return tuple(runs[0].shape), axes


def _stand_in(value: Any, extra: int) -> Tensor:
    """A shape without storage for an operand, on two or (`extra` 1) three samples."""
    if not isinstance(value, Ref):
        return torch.empty(torch.as_tensor(value).shape, device="meta")
    shape = list(value.shape)
    for axis in value.batch_axes:
        shape[axis] += extra * shape[axis] // BATCHES[0]
    return torch.empty(shape, device="meta")
