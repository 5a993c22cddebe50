"""How the DSP kernels store weights and channel parameters, and back.

The formats are described beside the loops that read them, `kernels/dsp/dsp_*.c`.
`unpack_*` inverts `pack_*`, so that what a binary holds can be compared with the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer]
Words = npt.NDArray[np.uint32]
Int64Array = npt.NDArray[np.int64]

# Elements of a word as SXTB16 pairs them: {0, 2}, then {1, 3}.
PAIRED = (0, 2, 1, 3)

# The offset that makes int4 codes non-negative.
NIBBLE_OFFSET = 8


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _grouped(codes: Codes, group: int) -> Int64Array:
    """[O, K] -> [groups, K / 4, pair, half, channel of the group], zeros where they reach out."""
    outputs, depth = codes.shape
    padded = np.zeros((_ceil(outputs, group), _ceil(depth, 4)), np.int64)
    padded[:outputs, :depth] = codes
    split = padded.reshape(-1, group, padded.shape[1] // 4, 4)[..., PAIRED]
    return split.transpose(0, 2, 3, 1).reshape(len(split), -1, 2, 2, group)


def _ungrouped(values: Int64Array, outputs: int, depth: int) -> npt.NDArray[np.int8]:
    """The inverse of `_grouped`."""
    groups, fours, _, _, group = values.shape
    split = values.reshape(groups, fours, 4, group).transpose(0, 3, 1, 2)
    natural = np.empty_like(split)
    natural[..., PAIRED] = split
    return natural.reshape(groups * group, fours * 4)[:outputs, :depth].astype(np.int8)


def _words(halves: Int64Array) -> Words:
    """[..., half] -> one word, the first half lowest."""
    low, high = halves[..., 0] & 0xFFFF, halves[..., 1] & 0xFFFF
    return (low | high << 16).astype(np.uint32)


def _halves(words: Words) -> Int64Array:
    """The inverse of `_words`; halves are signed."""
    flat = np.ascontiguousarray(words).view(np.int16).astype(np.int64)
    return flat.reshape(*words.shape, 2)


def fits_matrix_s8(codes: Codes) -> bool:
    """Whether every pair of channels fits a signed half: 256 * w[b] + w[a] >= -32768."""
    pairs = _grouped(codes, 4)
    return bool(np.all(pairs[..., 1::2] * 256 + pairs[..., 0::2] >= -(1 << 15)))


def pack_matrix_s8(codes: Codes, group: int) -> Words:
    """int8 weights [O, K] for `group` channels at a time, as words, flat.

    [groups, K / 4, pair, group / 2] words; a half holds 256 * w[b] + w[a] of neighbours a, b.
    """
    values = _grouped(codes, group)
    halves = values[..., 1::2] * 256 + values[..., 0::2]
    return _words(np.moveaxis(halves, 3, -1)).reshape(-1)


def unpack_matrix_s8(words: Words, shape: tuple[int, ...], group: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_matrix_s8`: codes of shape [outputs, depth]."""
    outputs, depth = shape
    halves = _halves(words.reshape(-1, _ceil(depth, 4) // 4, 2, group // 2))
    first = ((halves & 0xFF) ^ 0x80) - 0x80
    second = (halves - first) >> 8
    values = np.stack([first, second], axis=-1)  # [groups, fours, pair, group / 2, half, 2]
    ordered = np.moveaxis(values, 4, 3)
    return _ungrouped(ordered.reshape(*ordered.shape[:4], group), outputs, depth)


def pack_matrix_wide(codes: Codes, group: int) -> Words:
    """int8 weights [O, K] of any kind, two bytes in a half; otherwise as `pack_matrix_s8`."""
    values = _grouped(codes, group)
    halves = (values[..., 1::2] & 0xFF) << 8 | values[..., 0::2] & 0xFF
    return _words(np.moveaxis(halves, 3, -1)).reshape(-1)


def unpack_matrix_wide(words: Words, shape: tuple[int, ...], group: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_matrix_wide`: codes of shape [outputs, depth]."""
    outputs, depth = shape
    halves = _halves(words.reshape(-1, _ceil(depth, 4) // 4, 2, group // 2))
    values = np.stack([((halves & 0xFF) ^ 0x80) - 0x80, halves >> 8], axis=-1)
    ordered = np.moveaxis(values, 4, 3)
    return _ungrouped(ordered.reshape(*ordered.shape[:4], group), outputs, depth)


def pack_matrix_s4(codes: Codes, group: int) -> Words:
    """int4 weights [O, K], four channels in a half, as words, flat.

    [groups, K / 4, pair, group / 4] words. From the top, a half holds the last channel's code,
    then the others' plus 8, four bits each.
    """
    values = _grouped(codes, group)
    shifted = values + NIBBLE_OFFSET
    halves = (
        values[..., 3::4] * 4096
        + shifted[..., 2::4] * 256
        + shifted[..., 1::4] * 16
        + shifted[..., 0::4]
    )
    return _words(np.moveaxis(halves, 3, -1)).reshape(-1)


def unpack_matrix_s4(words: Words, shape: tuple[int, ...], group: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_matrix_s4`: codes of shape [outputs, depth]."""
    outputs, depth = shape
    halves = _halves(words.reshape(-1, _ceil(depth, 4) // 4, 2, group // 4))
    low = [((halves >> shift) & 15) - NIBBLE_OFFSET for shift in (0, 4, 8)]
    values = np.stack([*low, halves >> 12], axis=-1)
    ordered = np.moveaxis(values, 4, 3)
    return _ungrouped(ordered.reshape(*ordered.shape[:4], group), outputs, depth)


def pack_3x3_s8(codes: Codes) -> npt.NDArray[np.int8]:
    """3x3 depthwise weights [C, 9]: nine bytes per channel, and one to read past the last."""
    return _whole_words(np.append(codes.astype(np.int8).reshape(-1), np.int8(0)))


def unpack_3x3_s8(packed: npt.NDArray[np.int8], channels: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_3x3_s8`."""
    return packed[: 9 * channels].reshape(channels, 9)


# Position of a weight in the nibbles of five bytes; {w0, w2} of a row stand 16 bits apart.
NIBBLES_3X3 = (0, 3, 4, 1, 7, 5, 2, 8, 6)


def pack_3x3_s4(codes: Codes) -> npt.NDArray[np.int8]:
    """3x3 depthwise int4 weights [C, 9]: five bytes per channel, whole words in all."""
    nibbles = np.zeros((len(codes), 10), np.uint8)
    nibbles[:, NIBBLES_3X3] = codes.astype(np.int64) + NIBBLE_OFFSET
    packed = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
    return _whole_words(packed.view(np.int8).reshape(-1))


def unpack_3x3_s4(packed: npt.NDArray[np.int8], channels: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_3x3_s4`."""
    stored = packed[: 5 * channels].view(np.uint8).reshape(channels, 5)
    nibbles = np.stack([stored & 15, stored >> 4], axis=2).reshape(channels, 10)
    return (nibbles[:, NIBBLES_3X3].astype(np.int16) - NIBBLE_OFFSET).astype(np.int8)


def _whole_words(flat: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    return np.pad(flat, (0, -len(flat) % 4))


@dataclass(frozen=True, eq=False)
class Channels:
    """Per output channel: folded bias, multiplier and rounding word; int64, [O] each."""

    bias: Int64Array
    multiplier: Int64Array
    rounding: Int64Array

    def _padded(self, group: int) -> tuple[Int64Array, Int64Array]:
        """Biases [groups, group] and parameters [groups, group, 2]."""
        missing = _ceil(len(self.bias), group) - len(self.bias)
        bias, multiplier, rounding = (
            np.pad(values, (0, missing)).reshape(-1, group)
            for values in (self.bias, self.multiplier, self.rounding)
        )
        return bias, np.stack([multiplier, rounding], axis=-1)

    def table(self, group: int, weights: tuple[int, ...] = (1,)) -> npt.NDArray[np.int32]:
        """The channel table, flat.

        A group's sums start at its biases; where the kernel sums several channels in one
        word, channel i of every len(weights) starts at the sum over j <= i that the word's
        own combination makes.

        Args:
            group: channels that the kernel computes at a time.
            weights: factors of the channels that share a word, lowest first.
        """
        bias, parameters = self._padded(group)
        start = self._starts(bias.reshape(len(bias), -1, len(weights)), weights)
        flat = parameters.reshape(len(bias), -1)
        words = np.concatenate([start.reshape(len(bias), -1), flat], axis=1)
        return words.reshape(-1).astype(np.uint32).view(np.int32)

    def starts(self, group: int, weights: tuple[int, ...] = (1,)) -> npt.NDArray[np.int32]:
        """The starting values alone, flat, whole groups; arguments as for `table`."""
        bias, _ = self._padded(group)
        start = self._starts(bias.reshape(len(bias), -1, len(weights)), weights)
        return start.reshape(-1).astype(np.uint32).view(np.int32)

    @property
    def uniform(self) -> tuple[int, int] | None:
        """The multiplier and the rounding word that all channels share, if they do."""
        pair = int(self.multiplier[0]), int(self.rounding[0])
        same = np.all(self.multiplier == pair[0]) and np.all(self.rounding == pair[1])
        return pair if same else None

    @staticmethod
    def _starts(bias: Int64Array, weights: tuple[int, ...]) -> Int64Array:
        """What each accumulator of a word's channels starts at."""
        starts = bias.copy()
        for position, members in COMBINED[len(weights)].items():
            starts[..., position] = sum(bias[..., m] * weights[m] for m in members)
        return starts & 0xFFFFFFFF


# Channels in a word -> accumulator -> the channels that it sums.
COMBINED: dict[int, dict[int, tuple[int, ...]]] = {
    1: {},
    2: {1: (0, 1)},
    4: {1: (0, 1), 2: (0, 1, 2), 3: (0, 1, 2, 3)},
}

BYTE_PAIR = (1, 256)
NIBBLES = (1, 16, 256, 4096)
