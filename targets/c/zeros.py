"""Arrays without their zeros: a bit for every unit that says whether it is there, then those.

    presence words | present units           (`kernels/include/es_expand.h`)

Kernels read weights as lowerings have arranged and combined them, where a zero code is not
always a zero. A form says how to see an array so that it is one. Every form gives every array
back exactly; the smallest is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]

UNITS = 32
"""Units of a block: bits of a presence word."""


class Zeros(StrEnum):
    """Which weights lie in flash without their zeros."""

    AUTO = "auto"
    STORE = "store"
    COMPRESS = "compress"


@dataclass(frozen=True)
class Form:
    """How an array is seen.

    Args:
        bits: of a unit.
        blank: what turns words of units into those of the kernel: each half h into
            (h ^ b) - b, modulo 2**16, with units of 8 bits; h ^ b with units of 4.
    """

    bits: int
    blank: int

    @property
    def function(self) -> str:
        return f"es_expand_s{self.bits}"

    @property
    def source(self) -> str:
        return f"portable/expand_s{self.bits}.c"

    @property
    def block_bytes(self) -> int:
        """Of the array, per presence word."""
        return UNITS * self.bits // 8

    def seen(self, data: Bytes) -> Bytes:
        """An array of whole blocks as units [count]; 0 is one that need not be stored."""
        words = data.view(np.uint32)
        if self.bits == 4:
            found = (words ^ np.uint32(self.blank)).view(np.uint8)
            return np.stack([found & 15, found >> 4], axis=-1).reshape(-1)
        half = np.uint16(self.blank & 0xFFFF)
        return ((words.view(np.uint16) + half) ^ half).view(np.uint8)

    def given_back(self, units: Bytes) -> Bytes:
        """The inverse of `seen`."""
        if self.bits == 4:
            found = (units[0::2] | units[1::2] << 4).astype(np.uint8)
            return (found.view(np.uint32) ^ np.uint32(self.blank)).view(np.uint8)
        half = np.uint16(self.blank & 0xFFFF)
        return ((units.view(np.uint16) ^ half) - half).view(np.uint8)

    def packed(self, units: Bytes) -> Bytes:
        """Present units as they are stored, whole words."""
        if self.bits == 4:
            units = np.pad(units, (0, len(units) % 2))
            units = (units[0::2] | units[1::2] << 4).astype(np.uint8)
        return np.pad(units, (0, -len(units) % 4))

    def unpacked(self, stored: Bytes, count: int) -> Bytes:
        """The inverse of `packed`: `count` units."""
        if self.bits == 4:
            stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(-1)
        return stored[:count]


# Pairs of codes in a half (`packing.pack_matrix_s8`) borrow from the upper one; nibbles of words
# may hold codes plus 8, two bits codes plus 2, and four in a half the last one as it is
# (`packing.pack_matrix_s4`).
FORMS = (
    Form(8, 0),
    Form(8, 0x00800080),
    Form(4, 0),
    Form(4, 0x08880888),
    Form(4, 0x88888888),
    Form(4, 0xAAAAAAAA),
)


@dataclass(frozen=True, eq=False)
class Encoded:
    """An array without its zeros; `stored` is what lies in flash."""

    form: Form
    blocks: int
    stored: Words

    @property
    def expanded_bytes(self) -> int:
        """What expanding writes: the array, filled up to whole blocks."""
        return self.blocks * self.form.block_bytes


def encode_as(form: Form, data: bytes) -> Encoded:
    """An array in one form."""
    given = np.frombuffer(data, np.uint8)
    padded = np.pad(given, (0, -len(given) % form.block_bytes))
    units = form.seen(padded)
    units[-(-len(given) * 8 // form.bits) :] = 0  # what is behind the end may be anything
    present = units != 0
    bits = np.packbits(present).view(">u4").astype(np.uint32)
    values = form.packed(units[present]).view(np.uint32)
    return Encoded(form, len(bits), np.concatenate([bits, values]))


def encode(data: bytes) -> Encoded:
    """An array in the form that takes the fewest bytes, the first of equals."""
    return min((encode_as(form, data) for form in FORMS), key=lambda each: each.stored.size)


def decode(form: Form, blocks: int, stored: bytes, count: int) -> bytes:
    """The first `count` bytes that expanding gives."""
    words = np.frombuffer(stored, np.uint32)
    bits = words[:blocks].astype(">u4").view(np.uint8)
    present = np.unpackbits(bits).astype(bool)
    units = np.zeros(len(present), np.uint8)
    units[present] = form.unpacked(words[blocks:].view(np.uint8), int(present.sum()))
    return form.given_back(units)[:count].tobytes()
