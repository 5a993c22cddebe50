"""CIFAR-10 images and spoken digits, in disjoint splits.

Both come as .zip archives in the folder that `EDGESMITH_DATA` names: CIFAR-10
re-encoded as JPEG, and the Free Spoken Digit Dataset (8 kHz WAV, 6 speakers).
Which sample goes where follows from its file's name alone.
"""

from __future__ import annotations

import io
import re
import wave
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from edgesmith.pipeline.errors import DataError

from archives import FIX, Member, members, read, take_by
from features import SAMPLE_RATE, mfcc
from location import data_file
from variation import varied

Part = Literal["train", "calibration", "selection", "test"]
Inputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CACHE_FILES = (  # what the results of this file depend on besides its arguments
    "${EDGESMITH_DATA}/cifar10_train.zip",
    "${EDGESMITH_DATA}/cifar10_test_dev.zip",
    "${EDGESMITH_DATA}/fsdd_dev.zip",
)
CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
DIGITS = tuple("0123456789")

_IMAGE = re.compile(rf"(train|test)/(?P<label>{'|'.join(CIFAR_CLASSES)})/\d{{1,6}}\.jpg")
_RECORDING = re.compile(r"(?P<label>\d)_[a-z]{1,20}_\d{1,4}\.wav")
_MAX_JPEG_BYTES = 16 << 10
_MAX_WAV_BYTES = 256 << 10

_IMAGES_PER_CLASS: dict[Part, slice] = {
    "selection": slice(0, 500),
    "train": slice(500, None),
    "calibration": slice(500, 600),  # the only overlap: calibration samples are training samples
}
_RECORDINGS_PER_SPEAKER_AND_DIGIT: dict[Part, slice] = {
    "test": slice(0, 8),
    "selection": slice(8, 12),
    "train": slice(12, None),
    "calibration": slice(12, 17),
}


def cifar10(part: Part, per_class: int | None = None) -> tuple[Inputs, Labels]:
    """CIFAR-10: 45,000 train, 1,000 calibration, 5,000 selection, 5,000 test images.

    Args:
        part: which split.
        per_class: take only that many images of each class.

    Returns:
        Images [N, 3, 32, 32], red-green-blue, 0 to 255 as the official model takes
        them, and labels [N] in the order of `CIFAR_CLASSES`; classes in turn.

    Raises:
        DataError: no such part, or an archive that is missing, damaged or not the one expected.
    """
    test = data_file("cifar10_test_dev.zip")
    test_images = members(test, _IMAGE, _MAX_JPEG_BYTES)
    if part == "test":
        path, images, wanted = test, test_images, slice(None)
    else:
        path = data_file("cifar10_train.zip")
        seen = {each.content for each in test_images}
        images = [
            each for each in members(path, _IMAGE, _MAX_JPEG_BYTES) if each.content not in seen
        ]
        wanted = _slice(_IMAGES_PER_CLASS, part)
    chosen = take_by(lambda each: each.label, images, wanted)
    chosen = take_by(lambda each: each.label, chosen, slice(per_class))
    pixels = np.stack(
        [_pixels(jpeg, each.name) for jpeg, each in zip(read(path, chosen), chosen, strict=True)]
    )
    inputs = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(inputs), _labels(chosen, CIFAR_CLASSES)


def spoken_digits(part: Part, variants: int = 0) -> tuple[Inputs, Labels]:
    """Spoken digits: 1,680 train, 300 calibration, 240 selection, 480 test recordings.

    Recordings are disjoint, speakers are not: each of the six speaks in every split.

    Args:
        part: which split.
        variants: of every recording, after all recordings as they are (`variation.varied`); to
            train on.

    Returns:
        MFCCs [N, 1, 49, 10] (`features.mfcc`) and digits [N].

    Raises:
        DataError: no such part, variants of another part than train, or an archive that is
            missing, damaged or not the one expected.
    """
    if variants and part != "train":
        raise DataError(
            f"variants of {part!r}: what is measured or calibrated on is recorded, not made",
            fix="ask for `variants` of `train` alone",
        )
    path = data_file("fsdd_dev.zip")
    wanted = _slice(_RECORDINGS_PER_SPEAKER_AND_DIGIT, part)
    recordings = members(path, _RECORDING, _MAX_WAV_BYTES)
    chosen = take_by(lambda each: each.name.rpartition("_")[0], recordings, wanted)
    samples = [
        _samples(wav, each.name) for wav, each in zip(read(path, chosen), chosen, strict=True)
    ]
    generator = np.random.default_rng(0)
    made = [mfcc(varied(each, generator)) for _ in range(variants) for each in samples]
    inputs = np.stack([mfcc(each) for each in samples] + made)
    return inputs, np.tile(_labels(chosen, DIGITS), 1 + variants)


def _slice(parts: dict[Part, slice], part: Part) -> slice:
    if part not in parts:
        raise DataError(f"there is no part {part!r}", fix=f"choose one of {', '.join(parts)}")
    return parts[part]


def _labels(chosen: list[Member], classes: tuple[str, ...]) -> Labels:
    return np.array([classes.index(each.label) for each in chosen], np.int64)


def _pixels(jpeg: bytes, name: str) -> npt.NDArray[np.uint8]:
    """[32, 32, 3]; the size is checked before the image is decoded."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if image.size != (32, 32) or image.mode != "RGB":
                raise DataError(f"{name!r} is {image.size} {image.mode}, not 32x32 RGB", fix=FIX)
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{name!r} is not a JPEG image: {error}", fix=FIX) from error


def _samples(wav: bytes, name: str) -> npt.NDArray[np.int16]:
    """[n], n >= 1."""
    try:
        with wave.open(io.BytesIO(wav)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{name!r} is not a WAV file: {error}", fix=FIX) from error
    if form != (1, 2, SAMPLE_RATE) or not samples or len(samples) % 2:
        raise DataError(f"{name!r} is not 16-bit mono at {SAMPLE_RATE} Hz: {form}", fix=FIX)
    return np.frombuffer(samples, "<i2")
