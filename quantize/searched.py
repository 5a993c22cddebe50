"""The integers that the quantizer scored: every scale, zero point and code, as values.

Saved as arrays (`searched.npz`) and their names (`searched.json`), both without
pickle and bit for bit the same for the same values; loads without torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydantic

from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.values import FLOAT8_STORAGE, FLOAT32
from edgesmith.quantize.formats import decode, stored_codes, stored_values

Role = Literal["activation", "weight", "bias"]


@dataclass(frozen=True, eq=False)
class SearchedTensor:
    """One quantized tensor, axes in torch's order.

    Args:
        name: of an activation its group's; of codes `<group>.weight`, `<group>.bias`
            or the constant's own.
        dtype: the type that stores the codes: `int2`, `int4`, `int8`, `int16`, `int32`,
            `int64`, `float8e4m3fn`, `float8e5m2`; `float32` of what is not quantized.
        scale: float32, [1] or one per entry of `axis`.
        zero_point: int64, shaped as `scale`.
        axis: of per-channel scales; None per tensor.
        codes: int64, bit patterns where the type is a float; None for activations.
    """

    name: str
    role: Role
    dtype: str
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None
    codes: npt.NDArray[np.int64] | None = None
    layout: str = "torch"

    @classmethod
    def of_floats(cls, name: str, values: npt.NDArray[np.float32]) -> SearchedTensor:
        """A bias that is float32, as its bit patterns."""
        one, zero = np.ones(1, np.float32), np.zeros(1, np.int64)
        return cls(name, "bias", "float32", one, zero, codes=stored_codes(values, FLOAT32))

    def same_as(self, other: SearchedTensor) -> bool:
        """Equality of every field, floats bit for bit."""
        codes = (self.codes, other.codes)
        return (
            self.header == other.header
            and self.scale.tobytes() == other.scale.tobytes()
            and np.array_equal(self.zero_point, other.zero_point)
            and (codes[0] is None) == (codes[1] is None)
            and (codes[0] is None or codes[1] is None or np.array_equal(codes[0], codes[1]))
        )

    @property
    def header(self) -> _Header:
        return _Header(self.name, self.role, self.dtype, self.axis, self.layout)

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Real values of the codes, float32.

        Raises:
            ValueError: the tensor is an activation and has no codes.
        """
        if self.codes is None:
            raise ValueError(f"activation {self.name!r} has no codes")
        if self.dtype == "float32":
            return stored_values(self.codes, FLOAT32)
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        if self.dtype in FLOAT8_STORAGE:
            shifted = decode(self.codes, FLOAT8_STORAGE[self.dtype]).astype(np.float32)
        else:
            shifted = (self.codes - self.zero_point.reshape(shape)).astype(np.float32)
        return np.asarray(shifted * self.scale.reshape(shape), np.float32)


@dataclass(frozen=True)
class _Header:
    name: str
    role: Role
    dtype: str
    axis: int | None
    layout: str


@dataclass(frozen=True)
class _Index:
    tensors: tuple[_Header, ...]


@dataclass(frozen=True, eq=False)
class Searched:
    """All quantized tensors: the input, then per step its codes and its output, in order."""

    tensors: tuple[SearchedTensor, ...]

    @cached_property
    def by_name(self) -> Mapping[str, SearchedTensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    def __getitem__(self, name: str) -> SearchedTensor:
        return self.by_name[name]

    def same_as(self, other: Searched) -> bool:
        """Bit equality of all tensors, in the same order."""
        return len(self.tensors) == len(other.tensors) and all(
            mine.same_as(theirs) for mine, theirs in zip(self.tensors, other.tensors, strict=True)
        )

    def save(self, folder: Path) -> None:
        """Write `searched.npz` and `searched.json` into an existing folder."""
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for index, tensor in enumerate(self.tensors):
            arrays[f"{index}.scale"] = tensor.scale
            arrays[f"{index}.zero_point"] = tensor.zero_point
            if tensor.codes is not None:
                arrays[f"{index}.codes"] = tensor.codes
        with (folder / "searched.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        index_value = _Index(tuple(tensor.header for tensor in self.tensors))
        (folder / "searched.json").write_text(to_json(index_value), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Searched:
        """What `save` wrote.

        Raises:
            CacheError: a file is missing, damaged or does not belong to the other.
        """
        try:
            index = from_json(_Index, (folder / "searched.json").read_bytes())
            with np.load(folder / "searched.npz", allow_pickle=False) as arrays:
                tensors = [
                    SearchedTensor(
                        head.name,
                        head.role,
                        head.dtype,
                        arrays[f"{i}.scale"],
                        arrays[f"{i}.zero_point"],
                        head.axis,
                        arrays[f"{i}.codes"] if head.role != "activation" else None,
                        head.layout,
                    )
                    for i, head in enumerate(index.tensors)
                ]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(folder, error) from error
        return cls(tuple(tensors))


def _damaged(folder: Path, error: Exception) -> CacheError:
    reason = "does not validate" if isinstance(error, pydantic.ValidationError) else str(error)
    return CacheError(
        f"the searched integers in {folder} cannot be read: {reason}",
        fix="run the quantize stage again with --force quantize",
    )
