"""Data splits: from what a user's factory returns to checked arrays, and their overlap."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.arrays import load_arrays, save_arrays
from edgesmith.pipeline.errors import (
    DataError,
    EmptySplitError,
    FactoryError,
    OverlappingSplitsError,
)
from edgesmith.pipeline.factories import call_factory, user_code
from edgesmith.pipeline.spec import SplitSpec

_RETURN_PAIR = (
    "return (inputs float32 [N, ...], labels int64 [N]) or a torch Dataset of (input, label)"
)


@dataclass(frozen=True, eq=False)
class Split:
    """`inputs` are float32 [N, *sample shape] and finite, `labels` int64 [N] and not negative."""

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def load_split(name: str, spec: SplitSpec, folder: Path) -> Split:
    """Call a split's factory and check what it returns.

    Args:
        name: the split's name, for messages.
        folder: where relative paths start.

    Raises:
        FactoryError: the factory raised or returned something else than promised.
        EmptySplitError: there are no samples.
        DataError: shapes disagree, or inputs are NaN or infinite.
    """
    made = call_factory(spec.factory, spec.args, folder)
    split = as_split(name, made, spec.limit)
    _check_values(name, split)
    return split


def as_split(name: str, made: Any, limit: int | None = None) -> Split:
    """The arrays in what a factory returned, at most `limit` of its first samples.

    Raises:
        FactoryError: it is neither a pair of arrays nor a dataset.
        EmptySplitError: it has no samples.
        DataError: inputs and labels disagree in number or kind.
    """
    if isinstance(made, Split):
        made = (made.inputs, made.labels)
    if isinstance(made, (tuple, list)):
        if len(made) != 2:
            raise _bad_return(name, f"{len(made)} values")
        inputs, labels = _array(name, made[0]), _array(name, made[1])
        if inputs.ndim == 0 or labels.ndim == 0:
            raise _bad_return(name, "a single number for an array")
    elif hasattr(made, "__getitem__") and hasattr(made, "__len__") and not isinstance(made, dict):
        inputs, labels = _from_dataset(name, made, limit)
    else:
        raise _bad_return(name, f"a {type(made).__name__}")
    return _typed(name, inputs[:limit], labels[:limit])


def check_shape(name: str, split: Split, shape: tuple[int, ...]) -> None:
    """Raise unless samples have the model's input shape.

    Raises:
        DataError: they do not.
    """
    if split.inputs.shape[1:] != shape:
        raise DataError(
            f"split {name!r} has samples of shape {list(split.inputs.shape[1:])}; "
            f"`model.input_shape` is {list(shape)}",
            fix="correct `input_shape`, or the factory (channels first, no batch axis)",
        )


def check_labels(name: str, split: Split, names: tuple[str, ...]) -> None:
    """Raise unless every label has a class name.

    Raises:
        DataError: a label is not in [0, len(names)).
    """
    largest = int(split.labels.max())
    if largest >= len(names):
        raise DataError(
            f"split {name!r} has the label {largest}; `data.labels` names {len(names)} classes",
            fix="list every class in `data.labels`, or correct the factory",
        )


def shared_samples(first: Split, second: Split) -> list[tuple[int, int]]:
    """Pairs of indices of equal inputs, in the order of `second`; labels are not compared."""
    places: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(first)):
        places.setdefault(digest, index)
    return [(places[d], index) for index, d in enumerate(_digests(second)) if d in places]


def check_disjoint(
    selection: Split, test: Split, names: tuple[str, str] = ("selection", "test")
) -> None:
    """Raise when two splits share samples: what chooses a model must not judge it.

    Raises:
        OverlappingSplitsError: they do; counts and the first index pairs are named.
    """
    shared = shared_samples(selection, test)
    if not shared:
        return
    pairs = ", ".join(f"{names[0]}[{a}] = {names[1]}[{b}]" for a, b in shared[:5])
    raise OverlappingSplitsError(
        f"{len(shared)} of {len(test)} samples of split {names[1]!r} are also in {names[0]!r}: "
        f"{pairs}{', ...' if len(shared) > 5 else ''}",
        fix="give the two splits disjoint parts of the data, and drop duplicates between them",
    )


def write_split(folder: Path, name: str, split: Split) -> dict[str, Any]:
    """Write `<name>.npz` and return its manifest entry: samples, shape, digests, labels."""
    save_arrays(folder / f"{name}.npz", {"inputs": split.inputs, "labels": split.labels})
    classes, counts = np.unique(split.labels, return_counts=True)
    return {
        "samples": len(split),
        "shape": list(split.inputs.shape[1:]),
        "inputs_sha256": hashlib.sha256(split.inputs.tobytes()).hexdigest(),
        "labels_sha256": hashlib.sha256(split.labels.tobytes()).hexdigest(),
        "label_counts": {str(c): int(n) for c, n in zip(classes, counts, strict=True)},
    }


def read_split(folder: Path, name: str) -> Split:
    """A split that the `data` stage wrote.

    Raises:
        DataError: the spec has no such split.
        CacheError: the file is damaged.
    """
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise DataError(
            f"the spec has no split {name!r}", fix=f"add `{name}: {{factory: ...}}` under `data:`"
        )
    arrays = load_arrays(path)
    return Split(arrays["inputs"].astype(np.float32), arrays["labels"].astype(np.int64))


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    """A NumPy array of an array, a torch tensor or nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise _bad_return(name, f"a {type(values).__name__} that is no array") from error
    if array.dtype.kind not in "fiub":
        raise _bad_return(name, f"an array of {array.dtype}")
    return array


def _from_dataset(
    name: str, dataset: Any, limit: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    inputs, labels = [], []
    count = len(dataset) if limit is None else min(limit, len(dataset))
    for index in range(count):
        with user_code(f"sample {index} of split {name!r}"):
            sample = dataset[index]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise _bad_return(name, f"a dataset whose sample {index} is no (input, label)")
        inputs.append(_array(name, sample[0]))
        labels.append(_array(name, sample[1]))
        if inputs[-1].shape != inputs[0].shape:
            raise DataError(
                f"split {name!r}: sample {index} has shape {list(inputs[-1].shape)}, "
                f"sample 0 {list(inputs[0].shape)}",
                fix="resize or pad all samples to one shape",
            )
    if not inputs:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int64)
    return np.stack(inputs), np.stack(labels)


def _typed(name: str, inputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Split:
    if len(inputs) == 0:
        raise EmptySplitError(
            f"split {name!r} has no samples", fix="check the factory's `args` and its data"
        )
    if inputs.dtype.kind != "f":
        raise DataError(
            f"split {name!r} has inputs of {inputs.dtype}; float32 was expected",
            fix="scale them as the model was trained, and return float32",
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"split {name!r} has labels of {labels.dtype}; int64 class indices were expected",
            fix="return class indices, not one-hot vectors or probabilities",
        )
    if labels.shape != inputs.shape[:1]:
        raise DataError(
            f"split {name!r} has {len(inputs)} inputs and labels of shape {list(labels.shape)}",
            fix="return one class index per input",
        )
    with np.errstate(over="ignore"):  # what overflows float32 is reported as infinite
        return Split(
            np.ascontiguousarray(inputs, np.float32), np.ascontiguousarray(labels, np.int64)
        )


def _check_values(name: str, split: Split) -> None:
    finite = np.isfinite(split.inputs).reshape(len(split), -1).all(axis=1)
    if not finite.all():
        raise DataError(
            f"split {name!r} has NaN or infinite inputs in {int((~finite).sum())} of "
            f"{len(split)} samples, first in sample {int(np.argmin(finite))}",
            fix="repair or drop them in the factory",
        )
    if int(split.labels.min()) < 0:
        raise DataError(
            f"split {name!r} has the label {int(split.labels.min())}",
            fix="use class indices from 0",
        )


def _digests(split: Split) -> list[bytes]:
    """A digest per sample; -0.0 and 0.0 are the same input."""
    return [hashlib.sha256((sample + 0.0).tobytes()).digest() for sample in split.inputs]


def _bad_return(name: str, what: str) -> FactoryError:
    return FactoryError(f"the factory of split {name!r} returned {what}", fix=_RETURN_PAIR)
