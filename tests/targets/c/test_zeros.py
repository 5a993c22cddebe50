"""Arrays without their zeros: what is stored, in Python and as C expands it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgesmith.targets.c import packing
from edgesmith.targets.c.expansion import expansion_of, restored
from edgesmith.targets.c.lowerings.matrix import pack_pairs
from edgesmith.targets.c.program import Array, Call, Role
from edgesmith.targets.c.zeros import FORMS, UNITS, Form, decode, encode, encode_as
from tests.targets.c.host import Kernels, Request

SOURCES = tuple(dict.fromkeys(form.source for form in FORMS))


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    """Bytes, many of them zero."""
    count = draw(st.integers(0, 200))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    data = random.integers(0, 256, count).astype(np.uint8)
    data[random.random(count) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))] = 0
    return data.tobytes()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"s{form.bits}-{form.blank:08x}")
@example(b"")
@example(b"\0")
@example(bytes(97))
@example(b"\xff" * 33)
@given(arrays())
def test_every_form_gives_every_array_back(form: Form, data: bytes) -> None:
    encoded = encode_as(form, data)
    assert decode(form, encoded.blocks, encoded.stored.tobytes(), len(data)) == data
    assert encoded.expanded_bytes >= len(data) > encoded.expanded_bytes - form.block_bytes - 1


@given(arrays())
def test_what_is_stored_is_a_bit_for_each_byte_and_what_is_no_zero(data: bytes) -> None:
    present = sum(byte != 0 for byte in data)
    words = -(-len(data) // UNITS) + -(-present // 4)
    assert encode_as(FORMS[0], data).stored.size == words
    assert encode(data).stored.size <= words


def test_the_first_unit_is_the_highest_bit() -> None:
    data = bytes([7, *[0] * 30, 9, 0, 5])
    assert encode_as(FORMS[0], data).stored.tolist() == [0x80000001, 0x40000000, 0x00050907]
    nibbles = encode_as(Form(4, 0), bytes([0x30, *[0] * 14, 0x02]))
    assert nibbles.stored.tolist() == [0x40000002, 0x23]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.8]))
def test_a_zero_code_is_an_absent_unit_however_it_is_packed(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 13)), int(random.integers(1, 40)))

    def codes(most: int) -> npt.NDArray[np.int8]:
        drawn = random.integers(1, most + 1, shape) * random.choice([-1, 1], shape)
        return np.where(random.random(shape) < share, 0, drawn).astype(np.int8)

    eight, four = codes(127), codes(7)
    stored = (
        (eight, packing.pack_matrix_s8(eight, 4), Form(8, 0x00800080)),
        (eight, packing.pack_matrix_s8(eight, 8), Form(8, 0x00800080)),
        (eight, packing.pack_matrix_wide(eight, 4), Form(8, 0)),
        (four, packing.pack_matrix_s4(four, 4), Form(4, 0x08880888)),
        (four, packing.pack_matrix_s4(four, 8), Form(4, 0x08880888)),
    )
    for rows, words, form in stored:
        data = words.tobytes()
        units = form.seen(np.frombuffer(data, np.uint8))
        assert np.count_nonzero(units) == np.count_nonzero(rows)
    even = np.repeat(np.repeat(four, 2, axis=0), 4, axis=1)  # nothing is filled up
    units = Form(4, 0x88888888).seen(pack_pairs(even, 4).view(np.uint8))
    assert np.count_nonzero(units) == np.count_nonzero(even)


def test_c_expands_what_python_stored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    requests, expected = [], []
    for form in FORMS:
        for count in (0, 1, 3, 16, 31, 32, 33, 100, 1000):
            for share in (0.0, 0.5, 0.9, 1.0):
                data = random.integers(0, 256, count).astype(np.uint8)
                data[random.random(count) < share] = 0
                encoded = encode_as(form, data.tobytes())
                expanded = expansion_of(Array(data, Role.WEIGHTS), encoded)
                assert restored(expanded, encoded.stored.tobytes()) == data.tobytes()
                call = Call("x", "", form.function, (), expanded.arguments, (), ("to",))
                requests.append(Request(call, (), np.dtype(np.uint8), (expanded.bytes,)))
                expected.append(data)
    found = Kernels(SOURCES, tmp_path).run(requests)
    for got, data in zip(found, expected, strict=True):
        assert np.array_equal(got[: len(data)], data)
