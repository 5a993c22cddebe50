"""Views against NumPy: whatever ONNX reshapes and transposes, memory can be read back."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.targets.graph.onnx_reader.layout import Groups, Reshaped, Transposed, View

Codes = npt.NDArray[np.int64]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


def apply_moves(memory: Codes, view: View, target: Groups) -> Codes:
    for move in view.moves(target):
        if isinstance(move, Reshaped):
            memory = memory.reshape(move.shape)
        else:
            memory = memory.transpose(move.permutation)
    return memory


def in_onnx_order(memory: Codes, view: View) -> Codes:
    return apply_moves(memory, view, view.identity)


@st.composite
def factorings(draw: st.DrawFn, total: int) -> tuple[int, ...]:
    """A shape of `total` elements, axes of size 1 among them."""
    sizes, rest = [], total
    while rest > 1:
        divisors = [d for d in range(2, rest + 1) if rest % d == 0]
        sizes.append(draw(st.sampled_from(divisors)))
        rest //= sizes[-1]
    for _ in range(draw(st.integers(0, 2))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return tuple(sizes)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Codes, Codes, View]:
    """What ONNX has, what memory has, and the view, after random reshapes and transposes."""
    shape = draw(SHAPES)
    onnx = np.arange(math.prod(shape)).reshape(shape)
    view = View.of(shape)
    memory = onnx
    if len(shape) == 4 and draw(st.booleans()):
        view = view.arranged(view.channels_last)
        memory = onnx.transpose(0, 2, 3, 1)
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            permutation = tuple(draw(st.permutations(range(onnx.ndim))))
            onnx, view = onnx.transpose(permutation), view.transposed(permutation)
            continue
        wanted = draw(factorings(onnx.size))
        reshaped = view.reshaped(wanted)
        if reshaped is not None:
            onnx, view = onnx.reshape(wanted), reshaped
    return onnx, memory, view


@given(histories())
def test_a_view_always_says_what_onnx_has(history: tuple[Codes, Codes, View]) -> None:
    onnx, memory, view = history
    assert view.shape == onnx.shape
    assert view.memory_shape == memory.shape or view.memory_shape == memory.squeeze().shape
    np.testing.assert_array_equal(in_onnx_order(memory, view), onnx)


@given(histories())
def test_layout_reads_memory_from_onnx_and_back(history: tuple[Codes, Codes, View]) -> None:
    onnx, memory, view = history
    layout = view.layout
    if layout is None:
        np.testing.assert_array_equal(onnx.reshape(-1), memory.reshape(-1))
        return
    found = layout.from_source(onnx[None], memory.shape)
    np.testing.assert_array_equal(found[0], memory)
    np.testing.assert_array_equal(layout.to_source(found, onnx.shape)[0], onnx)


@given(histories(), st.booleans())
def test_settling_gives_every_axis_its_own(history: tuple[Codes, Codes, View], image: bool) -> None:
    onnx, memory, view = history
    target, _ = view.settled(image)
    settled = view.arranged(target)
    moved = apply_moves(memory, view, target)
    assert moved.shape == settled.memory_shape
    assert sorted(moved.shape) == sorted((*onnx.shape, *(1,) * (moved.ndim - onnx.ndim)))
    np.testing.assert_array_equal(in_onnx_order(moved, settled), onnx)


@given(histories())
def test_at_most_three_moves_and_one_transpose(history: tuple[Codes, Codes, View]) -> None:
    view = history[2]
    moves = view.moves(view.identity)
    assert len(moves) <= 3
    assert sum(isinstance(move, Transposed) for move in moves) <= 1


@given(histories())
def test_columns_put_a_matrix_into_memory_order(history: tuple[Codes, Codes, View]) -> None:
    onnx, memory, view = history
    flat = view.reshaped((onnx.size,))
    if flat is None:
        return
    order = tuple(atom for group in flat.physical for atom in group)
    columns = flat.columns(order)
    expected = onnx.reshape(-1)
    found = expected if columns is None else expected[columns]
    np.testing.assert_array_equal(found, memory.reshape(-1))


def test_flattened_images_need_no_transpose() -> None:
    view = View.of((1, 3, 4, 5))
    image = view.arranged(view.channels_last)
    flat = image.reshaped((1, 60))
    assert flat is not None
    target, is_image = flat.settled(image=True)
    assert flat.moves(target) == [Reshaped((1, 60))]
    assert not is_image
    assert image.reshaped((1, 3, 20)) is not None


def test_one_transpose_brings_channels_last() -> None:
    view = View.of((1, 3, 4, 5))
    assert view.moves(view.channels_last) == [Transposed((0, 2, 3, 1))]
    assert view.arranged(view.channels_last).moves(view.identity) == [Transposed((0, 3, 1, 2))]


def test_channels_alone_are_an_image_without_moving() -> None:
    """[1, C, 1, 1] from a fully connected layer's [1, C]."""
    view = View.of((1, 7)).reshaped((1, 7, 1, 1))
    assert view is not None
    target, image = view.settled(image=False)
    assert image
    assert view.moves(target) == [Reshaped((1, 1, 1, 7))]


def test_a_reshape_across_atoms_is_refused() -> None:
    """[6][4] in separate memory axes after a transpose cannot be seen as [8][3]."""
    view = View.of((4, 6)).transposed((1, 0))
    assert view.reshaped((8, 3)) is None
    assert view.reshaped((2, 3, 4)) is not None
