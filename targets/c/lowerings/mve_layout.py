"""How the MVE kernels lay out weights and requantization words (`kernels/include/es_mve.h`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.int8]
Words = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

GROUP = 4
"""Output channels whose sums one step of a convolution computes."""
LANES = 16
"""Bytes of a vector: channels of a block of a depthwise convolution."""


def join_nibbles(codes: Codes) -> Bytes:
    """4-bit codes [..., n] as bytes [..., ceil(n / 2)]: the first half low, the second high."""
    half = (codes.shape[-1] + 1) // 2
    padded = np.zeros((*codes.shape[:-1], 2 * half), np.int64)
    padded[..., : codes.shape[-1]] = codes
    low, high = padded[..., :half], padded[..., half:]
    return ((low & 15) | (high & 15) << 4).astype(np.uint8).view(np.int8)


def split_nibbles(packed: Bytes, count: int) -> Bytes:
    """The inverse of `join_nibbles`: codes [..., count]."""
    codes = np.concatenate([packed << 4 >> 4, packed >> 4], axis=-1)
    return codes[..., :count]


def pack_rows(rows: Codes, bits: int) -> Bytes:
    """Weights [O, K] for convolutions, without the bytes that are read behind the end.

    Groups of four rows take turns with chunks of 16 bytes; what is left of them, and rows
    that fill no group, follow one after the other.
    """
    outputs, depth = rows.shape
    chunk = LANES * 8 // bits
    whole = depth // chunk * chunk
    pack = join_nibbles if bits == 4 else _as_bytes
    chunks = pack(rows[:, :whole].reshape(outputs, -1, chunk))
    rest = pack(rows[:, whole:])
    grouped = outputs // GROUP * GROUP
    parts: list[Bytes] = []
    for first in range(0, grouped, GROUP):
        group = slice(first, first + GROUP)
        parts += [chunks[group].swapaxes(0, 1).reshape(-1), rest[group].reshape(-1)]
    for row in range(grouped, outputs):
        parts += [chunks[row].reshape(-1), rest[row]]
    return np.concatenate(parts)


def unpack_rows(packed: Bytes, outputs: int, depth: int, bits: int) -> Bytes:
    """The inverse of `pack_rows`: codes [O, K]."""
    chunk = LANES * 8 // bits
    count, left = divmod(depth, chunk)
    row_bytes = (depth * bits + 7) // 8
    grouped = outputs // GROUP * GROUP
    sizes = [GROUP] * (grouped // GROUP) + [1] * (outputs - grouped)
    rows = []
    at = 0
    for size in sizes:
        part = packed[at : at + size * row_bytes]
        at += size * row_bytes
        chunks = part[: count * size * LANES].reshape(count, size, LANES).swapaxes(0, 1)
        rest = part[count * size * LANES :].reshape(size, -1)
        if bits == 4:
            chunks, rest = split_nibbles(chunks, chunk), split_nibbles(rest, left)
        rows.append(np.concatenate([chunks.reshape(size, -1), rest], axis=1))
    return np.concatenate(rows)


def bytes_behind(outputs: int, depth: int, bits: int) -> int:
    """How many bytes kernels may read behind `pack_rows`."""
    partial = depth % (LANES * 8 // bits) != 0
    return LANES - 1 if partial else LANES if bits == 4 and outputs % GROUP else 0


def pack_taps(taps: Codes, bits: int) -> Bytes:
    """Weights [taps, C] for depthwise convolutions: [blocks][taps][16], zeros behind C."""
    blocks = _padded(taps, LANES).reshape(len(taps), -1, LANES).swapaxes(0, 1)
    flat = blocks.reshape(-1)
    if bits == 8:
        return _as_bytes(flat)
    return join_nibbles(_padded(flat, 2 * LANES).reshape(-1, 2 * LANES)).reshape(-1)


def unpack_taps(packed: Bytes, taps: int, channels: int, bits: int) -> Bytes:
    """The inverse of `pack_taps`: codes [taps, C]."""
    if bits == 4:
        packed = split_nibbles(packed.reshape(-1, LANES), 2 * LANES).reshape(-1)
    blocks = -(-channels // LANES)
    codes = packed[: blocks * taps * LANES].reshape(blocks, taps, LANES).swapaxes(0, 1)
    return codes.reshape(taps, -1)[:, :channels]


def pack_columns(rows: Codes) -> Bytes:
    """Weights [C, 9] of 3x3 windows: per channel its columns as words; a zero word before each."""
    channels = len(rows)
    words = np.zeros((channels, 4, 4), np.int8)
    words[:, :3, :3] = rows.reshape(channels, 3, 3).swapaxes(1, 2)
    return np.concatenate([np.zeros(4, np.int8), words.reshape(-1)])


def unpack_columns(packed: Bytes) -> Bytes:
    """The inverse of `pack_columns`: codes [C, 9]."""
    return packed[4:].reshape(-1, 4, 4)[:, :3, :3].swapaxes(1, 2).reshape(-1, 9)


def pack_records(bias: Int64Array, multiplier: Int64Array, shift: Int64Array, lanes: int) -> Words:
    """Records of `lanes` channels: biases, multipliers, bytes of shifts; biases wrap.

    In records of 16, channel 4 i + j is at 4 j + i: the order in which widening and narrowing
    instructions leave and take the lanes of four vectors.
    """
    order = np.arange(lanes)
    if lanes == LANES:
        order = order.reshape(4, 4).T.reshape(-1)
    filled = [
        _padded(each, lanes, value).reshape(-1, lanes)[:, order]
        for each, value in ((bias, 0), (multiplier, 0), (shift, -1))
    ]
    shifts = np.ascontiguousarray(filled[2], np.int8).view(np.int32)
    words = [each.astype(np.int32) for each in filled[:2]]
    return np.concatenate([*words, shifts], axis=1).reshape(-1)


def _as_bytes(codes: Codes) -> Bytes:
    return codes.astype(np.int8)


def _padded(values: Codes, unit: int, value: int = 0) -> Int64Array:
    """The last axis filled up to whole units."""
    missing = -values.shape[-1] % unit
    widths = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
    return np.pad(values.astype(np.int64), widths, constant_values=value)
