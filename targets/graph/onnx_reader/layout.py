"""Views: what an ONNX tensor's axes are in terms of the memory that holds it.

ONNX orders images NCHW, the IR orders them NHWC, and models reshape and
transpose on the way. A `View` factors the elements of a tensor into *atoms*
(axes that never need to be split further) and says twice how they group:
logically, as ONNX sees the tensor, and physically, as the IR tensor holds it.

    NHWC image            atoms c, h, w     logical [][c][h][w]   physical [][h][w][c]
    the same, flattened   atoms c, h, w     logical [][chw]       physical [][h][w][c]

So ONNX's Reshape, Flatten, Squeeze and Transpose only regroup the logical side;
nothing moves in memory. An operator that needs a certain physical grouping asks
for it, and `moves` gives the fewest Reshape and Transpose steps to get there
(none, where the memory already lies that way). Axes of size 1 hold no atom, so
they come and go freely.

Atoms are numbered in logical order, which makes equal views compare equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph.ir import Layout

Shape = tuple[int, ...]
Groups = tuple[tuple[int, ...], ...]

_MAX_TRANSPOSED = 5
"""Axes that transpose kernels commonly take."""


def _flat(groups: Groups) -> tuple[int, ...]:
    return tuple(chain.from_iterable(groups))


@dataclass(frozen=True)
class Reshaped:
    """A step in memory: the same elements under another shape."""

    shape: Shape


@dataclass(frozen=True)
class Transposed:
    """A step in memory: axes permuted."""

    permutation: tuple[int, ...]


Move = Reshaped | Transposed


@dataclass(frozen=True)
class View:
    """Atoms by size, and their logical and physical grouping; see the module's docstring."""

    sizes: Shape
    logical: Groups
    physical: Groups

    @classmethod
    def of(cls, shape: Shape) -> View:
        """A tensor whose memory has exactly the axes that ONNX sees."""
        atoms = iter(range(len(shape)))
        groups = tuple((next(atoms),) if size > 1 else () for size in shape)
        return cls(tuple(size for size in shape if size > 1), groups, groups)

    def _shape(self, groups: Groups) -> Shape:
        return tuple(math.prod(self.sizes[atom] for atom in group) for group in groups)

    @property
    def shape(self) -> Shape:
        """The shape that ONNX sees."""
        return self._shape(self.logical)

    @property
    def memory_shape(self) -> Shape:
        """The shape of the IR tensor."""
        return self._shape(self.physical)

    @property
    def rank(self) -> int:
        return len(self.logical)

    @property
    def order(self) -> tuple[int, ...] | None:
        """Per memory axis the ONNX axis it is; None where axes were merged, split or dropped."""
        if len(self.logical) != len(self.physical):
            return None
        units = iter([axis for axis, group in enumerate(self.logical) if not group])
        whole = {group: axis for axis, group in enumerate(self.logical) if group}
        found = []
        for group in self.physical:
            axis = whole.get(group) if group else next(units, None)
            if axis is None:
                return None
            found.append(axis)
        return tuple(found)

    @property
    def identity(self) -> Groups:
        """The physical grouping that equals the logical one."""
        return self.logical

    @property
    def channels_last(self) -> Groups:
        """NHWC for logical [N, C, H, W], N1LC for [N, C, L]."""
        order = _channels_last_axes(self.rank)
        if order is None:
            raise ValueError(f"rank {self.rank} has no channels-last form")
        return tuple(self.logical[axis] if axis >= 0 else () for axis in order)

    def settled(self, image: bool) -> tuple[Groups, bool]:
        """A grouping with ONNX's axes that keeps memory's order if any does, and whether
        it is channels-last.

        Where each ONNX axis lies in one piece, in ONNX's order or channels-last, only
        the shape changes; inside a piece the order may be memory's own (the columns of
        a flattened image). Otherwise memory has to move. `image` prefers channels-last.
        """
        plain = tuple(range(self.rank))
        last = _channels_last_axes(self.rank)
        pieces = self._pieces()
        # [N, C, 1, 1] lies both ways; as an image it meets other images without a reshape.
        image = image or (self.rank == 4 and pieces is not None and set(pieces) <= {0, 1})
        orders = [plain]
        if last is not None and (image or self.rank == 4):
            orders = [last, plain] if image else [plain, last]
        for order in orders if pieces is not None else []:
            assert pieces is not None
            if tuple(axis for axis in order if axis in pieces) == tuple(pieces):
                groups = tuple(pieces.get(axis, ()) for axis in order)
                return groups, order is last
        if image and last:
            return self.channels_last, True
        return self.identity, False

    def _pieces(self) -> dict[int, tuple[int, ...]] | None:
        """Per ONNX axis its atoms as memory orders them; None where one lies scattered."""
        axis_of = {atom: axis for axis, group in enumerate(self.logical) for atom in group}
        pieces: dict[int, tuple[int, ...]] = {}
        previous = None
        for atom in _flat(self.physical):
            axis = axis_of[atom]
            if axis in pieces and axis != previous:
                return None
            pieces[axis] = (*pieces.get(axis, ()), atom)
            previous = axis
        return pieces

    @property
    def layout(self) -> Layout | None:
        """How memory orders the elements, or None where it does as ONNX does."""
        memory = _flat(self.physical)
        return None if memory == tuple(range(len(self.sizes))) else Layout(self.sizes, memory)

    def arranged(self, physical: Groups) -> View:
        """The same tensor in memory grouped that way."""
        return View(self.sizes, self.logical, physical)

    def ordered(self, order: tuple[int, ...]) -> View:
        """The same tensor with one memory axis per ONNX axis, in that order."""
        return self.arranged(tuple(self.logical[axis] for axis in order))

    def padded(self, rank: int) -> View:
        """With leading ONNX axes of size 1, as broadcasting adds them."""
        return View(self.sizes, ((),) * (rank - self.rank) + self.logical, self.physical)

    def transposed(self, permutation: tuple[int, ...]) -> View:
        """What ONNX's Transpose gives; memory stays."""
        logical = tuple(self.logical[axis] for axis in permutation)
        number = {atom: index for index, atom in enumerate(_flat(logical))}
        sizes = tuple(self.sizes[atom] for atom in _flat(logical))
        return View(sizes, _renumbered(logical, number), _renumbered(self.physical, number))

    def reshaped(self, shape: Shape) -> View | None:
        """What ONNX's Reshape gives; None where it cuts across the atoms and memory must move."""
        view = self._merged()
        parts: list[list[int]] = [[size] for size in view.sizes]
        groups: list[int] = []
        atom, position = 0, 0
        for size in shape:
            rest, count = size, 0
            while rest > 1:
                if atom >= len(parts):
                    return None
                available = parts[atom][position]
                step = math.gcd(available, rest)
                if step != min(available, rest):
                    return None
                if step < available:
                    parts[atom][position : position + 1] = [step, available // step]
                rest //= step
                count += 1
                position += 1
                if position == len(parts[atom]):
                    atom, position = atom + 1, 0
            groups.append(count)
        return view._split(parts, groups) if atom == len(parts) else None

    def _split(self, parts: list[list[int]], groups: list[int]) -> View:
        starts = np.cumsum([0, *(len(part) for part in parts)])
        pieces = [tuple(range(starts[i], starts[i + 1])) for i in range(len(parts))]
        ends = np.cumsum([0, *groups])
        logical = tuple(tuple(range(ends[i], ends[i + 1])) for i in range(len(groups)))
        physical = tuple(_flat(tuple(pieces[atom] for atom in group)) for group in self.physical)
        return View(tuple(chain.from_iterable(parts)), logical, physical)._merged(logical)

    def _merged(self, logical: Groups | None = None) -> View:
        """Atoms that are neighbours in memory joined; across ONNX axes unless `logical` is kept."""
        after = {a: b for group in self.physical for a, b in pairwise(group)}
        inside = None
        if logical is not None:
            inside = {(a, b) for g in logical for a, b in pairwise(g)}
        number: dict[int, int] = {}
        sizes: list[int] = []
        for atom, size in enumerate(self.sizes):
            pair = (atom - 1, atom)
            if after.get(atom - 1) == atom and (inside is None or pair in inside):
                sizes[-1] *= size
            else:
                sizes.append(size)
            number[atom] = len(sizes) - 1
        kept = self.logical if inside is not None else (tuple(range(len(self.sizes))),)
        return View(tuple(sizes), _renumbered(kept, number), _renumbered(self.physical, number))

    def moves(self, target: Groups) -> list[Move]:
        """The steps that bring memory into the grouping `target`."""
        have, want = _flat(self.physical), _flat(target)
        shape = self._shape(target)
        if have == want:
            return [] if self.memory_shape == shape else [Reshaped(shape)]
        direct = _matching(self.physical, target)
        if direct is not None:
            return [Transposed(direct)]
        segments = _segments(self.physical, want)
        if segments is not None:
            moved = self._shape(tuple(self.physical[axis] for axis in segments))
            return [Transposed(segments), *([] if moved == shape else [Reshaped(shape)])]
        return self._split_moves(have, target)

    def _split_moves(self, have: tuple[int, ...], target: Groups) -> list[Move]:
        """Moves that must first cut a memory axis: into as few pieces as will do."""
        want = _flat(target)
        units = tuple(group for group in target if not group)
        pieces = units + _runs(have, want, {group[-1] for group in target if group})
        direct = _matching(pieces, target)
        if direct is not None and len(pieces) <= _MAX_TRANSPOSED:
            return [Reshaped(self._shape(pieces)), Transposed(direct)]
        pieces = _runs(have, want, set())
        segments = _segments(pieces, want)
        assert segments is not None
        steps: list[Move] = [Reshaped(self._shape(pieces)), Transposed(segments)]
        shape = self._shape(target)
        if self._shape(tuple(pieces[axis] for axis in segments)) != shape:
            steps.append(Reshaped(shape))
        return steps

    def columns(self, physical: tuple[int, ...]) -> npt.NDArray[np.int64] | None:
        """Where ONNX counts the elements of its last axis, in memory's order; None if the same.

        `physical` are the last axis' atoms as memory orders them. A matrix whose
        columns are taken in this order multiplies memory as it lies.
        """
        atoms = self.logical[-1]
        if physical == atoms:
            return None
        sizes = tuple(self.sizes[atom] for atom in atoms)
        axes = tuple(atoms.index(atom) for atom in physical)
        return np.arange(math.prod(sizes)).reshape(sizes).transpose(axes).reshape(-1)


def _channels_last_axes(rank: int) -> tuple[int, ...] | None:
    """ONNX axes in channels-last order; -1 is the height that [N, C, L] lacks."""
    return {4: (0, 2, 3, 1), 3: (0, -1, 2, 1)}.get(rank)


def _renumbered(groups: Groups, number: dict[int, int]) -> Groups:
    """Atoms by their new number; atoms that were joined appear once."""
    return tuple(tuple(dict.fromkeys(number[atom] for atom in group)) for group in groups)


def _segments(groups: Groups, want: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of whole groups that reads `want`, unit axes first; None where a group is cut."""
    first = {group[0]: axis for axis, group in enumerate(groups) if group}
    found = [axis for axis, group in enumerate(groups) if not group]
    position = 0
    while position < len(want):
        axis = first.get(want[position])
        if axis is None or groups[axis] != want[position : position + len(groups[axis])]:
            return None
        found.append(axis)
        position += len(groups[axis])
    return tuple(found)


def _matching(groups: Groups, target: Groups) -> tuple[int, ...] | None:
    """The permutation of `groups` that is `target`, units in order; None if there is none."""
    if len(groups) != len(target):
        return None
    units = iter([axis for axis, group in enumerate(groups) if not group])
    whole = {group: axis for axis, group in enumerate(groups) if group}
    found = [whole.get(group) if group else next(units, None) for group in target]
    kept = [axis for axis in found if axis is not None]
    return tuple(kept) if len(kept) == len(found) else None


def _runs(have: tuple[int, ...], want: tuple[int, ...], ends: set[int]) -> Groups:
    """`have` cut into the longest pieces that `want` also has in one piece, and after `ends`."""
    after = dict(pairwise(want))
    runs: list[tuple[int, ...]] = []
    for atom in have:
        if runs and after.get(runs[-1][-1]) == atom and runs[-1][-1] not in ends:
            runs[-1] = (*runs[-1], atom)
        else:
            runs.append((atom,))
    return tuple(runs)
