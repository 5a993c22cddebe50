"""Packing of weights, and how far a window operator's output may lie over its input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.targets.c.lowerings.matrix import pack_pairs, pack_rows, unpack_pairs, unpack_rows
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.graph.ir import Padding
from edgesmith.targets.graph.padding import output_size


@given(
    st.sampled_from([8, 4, 2]),
    st.integers(1, 5),
    st.integers(1, 33),
    st.integers(0, 2**31),
)
def test_unpacking_inverts_packing(bits: int, rows: int, count: int, seed: int) -> None:
    limit = 1 << (bits - 1)
    codes = np.random.default_rng(seed).integers(-limit, limit, (rows, count)).astype(np.int8)
    packed = pack_rows(codes, bits)
    assert packed.size == rows * -(-count * bits // 8)
    assert np.array_equal(unpack_rows(packed, count, bits), codes)


@given(
    st.sampled_from([4, 2]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 33),
    st.integers(0, 2**31),
)
def test_unpacking_inverts_packing_in_pairs(
    bits: int, groups: int, filters: int, count: int, seed: int
) -> None:
    limit = 1 << (bits - 1)
    shape = groups * filters, count
    codes = np.random.default_rng(seed).integers(-limit, limit, shape).astype(np.int8)
    packed = pack_pairs(codes, bits, groups)
    assert packed.size == groups * -(-filters // 2) * -(-count * bits // 16)
    assert np.array_equal(unpack_pairs(packed, shape, bits, groups), codes)


@given(st.data())
def test_an_overlapping_output_never_reaches_needed_input(data: st.DataObject) -> None:
    """Simulated byte by byte: the stated distance is safe, and one less is not."""
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    channels, filters = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = Padding(*(data.draw(st.integers(0, size - 1)) for size in np.repeat(kernel, 2)))
    size = output_size((height, width), kernel, stride, padding, (1, 1))
    if min(size) < 1:
        return
    per_step, delay = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 9))
    found = overlap(
        (1, height, width, channels),
        (1, *size, filters),
        stride,
        padding,
        positions_per_step=per_step,
        delay=delay,
    )
    assert not found.exact

    def safe(distance: int) -> bool:
        """Whether running with input at 0 and output at -distance reads only what it wrote."""
        clobbered: set[int] = set()
        waiting: list[set[int]] = []
        positions = [(y, x) for y in range(size[0]) for x in range(size[1])]
        for start in range(0, len(positions), per_step):
            step = positions[start : start + per_step]
            made = {
                -distance + p * filters + c
                for p in range(start, start + len(step))
                for c in range(filters)
            }
            waiting.append(made)
            if len(waiting) > delay:
                clobbered |= waiting.pop(0)
            for y, x in step:
                for ky in range(kernel[0]):
                    for kx in range(kernel[1]):
                        iy, ix = y * stride[0] - padding.top + ky, x * stride[1] - padding.left + kx
                        if not (0 <= iy < height and 0 <= ix < width):
                            continue
                        base = (iy * width + ix) * channels
                        if clobbered.intersection(range(base, base + channels)):
                            return False
        return True

    assert safe(found.distance)
    assert safe(found.distance + 3)


@pytest.mark.parametrize(
    ("stride", "padding", "expected"),
    [
        ((1, 1), Padding(), 0),  # a 1x1 window in place
        ((1, 1), Padding(1, 1, 1, 1), (8 + 1) * 4),  # 3x3: a row and a column
    ],
)
def test_known_distances(stride: tuple[int, int], padding: Padding, expected: int) -> None:
    found = overlap((1, 8, 8, 4), (1, 8, 8, 4), stride, padding, delay=1)
    assert found.distance == expected
