"""CIFAR-10 and spoken digits: features, splits, and what hostile archives are answered with."""

from __future__ import annotations

import io
import wave
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgesmith.pipeline.errors import DataError
from tests.examples.loading import Floats, Labels, accuracy, data_folder, example

PARTS = ("train", "calibration", "selection", "test")
IMAGE = "test/cat/0001.jpg"
RECORDING = "7_jackson_0.wav"


def cifar10(part: str, per_class: int | None = None) -> tuple[Floats, Labels]:
    data_folder()
    loaded: tuple[Floats, Labels] = example("mlperf_tiny", "data.py:cifar10")(part, per_class)
    return loaded


def spoken_digits(part: str) -> tuple[Floats, Labels]:
    data_folder()
    loaded: tuple[Floats, Labels] = example("mlperf_tiny", "data.py:spoken_digits")(part)
    return loaded


def mfcc(recording: npt.NDArray[Any]) -> Floats:
    features: Floats = example("mlperf_tiny", "features.py:mfcc")(recording)
    return features


def chirp() -> npt.NDArray[np.int16]:
    """Three quarters of a second that rise from 200 Hz and fade."""
    t = np.arange(6000) / 8000
    tone = np.sin(2 * np.pi * (200 + 1500 * t) * t) * np.linspace(1, 0.2, 6000)
    return np.round(12000 * tone).astype(np.int16)


def test_mfccs_equal_those_of_tensorflow() -> None:
    # tf.signal 2.21 in float32: stft, linear_to_mel_weight_matrix, mfccs_from_log_mel_spectrograms
    expected = {
        7: (-33.623, 10.644, -7.382, -11.954, -4.019, 2.921, 4.359, 1.253, -2.103, -3.494),
        30: (-49.128, -10.848, -3.383, 8.043, -8.131, 0.973, 3.015, -5.741, 2.605, 0.519),
    }
    features = mfcc(chirp())
    assert features.shape == (1, 49, 10)
    assert features.dtype == np.float32
    for frame, coefficients in expected.items():
        np.testing.assert_allclose(features[0, frame], coefficients, atol=3e-3)


@pytest.mark.parametrize("samples", [1, 8000, 20000])
def test_silence_of_any_length_gives_the_floor(samples: int) -> None:
    features = mfcc(np.zeros(samples, np.int16))
    np.testing.assert_allclose(features[0, :, 0], 2 * 40 * np.log(1e-6) / np.sqrt(80), rtol=1e-6)
    np.testing.assert_allclose(features[0, :, 1:], 0, atol=1e-4)


def test_loudness_does_not_matter() -> None:
    np.testing.assert_allclose(mfcc(chirp()), mfcc((chirp() * 2).astype(np.int16)), atol=0.02)


@pytest.mark.parametrize(
    ("part", "size"), [("train", 1680), ("calibration", 300), ("selection", 240), ("test", 480)]
)
def test_a_split_of_spoken_digits_is_balanced(part: str, size: int) -> None:
    features, labels = spoken_digits(part)
    assert features.shape == (size, 1, 49, 10)
    assert features.dtype == np.float32
    assert np.bincount(labels).tolist() == [size // 10] * 10
    assert np.bincount(labels[:60]).tolist() == [6] * 10


def test_splits_of_spoken_digits_share_only_calibration_with_train() -> None:
    check_disjoint({part: spoken_digits(part)[0] for part in PARTS})


def test_the_model_to_be_searched_is_trained_on_every_recording_and_no_variant() -> None:
    digits = example("mlperf_tiny", "training.py:digits")
    assert digits.__globals__["RECORDINGS"] == len(spoken_digits("train")[0])


@given(length=st.integers(1, 9000), seed=st.integers(0, 2**32 - 1))
def test_a_variant_is_as_loud_and_as_long_as_its_recording(length: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    recording = generator.integers(-3000, 3000, length).astype(np.int16)
    made = example("mlperf_tiny", "variation.py:varied")(recording, generator)
    assert 1 <= len(made) <= np.ceil(length / 0.85) + 160
    assert np.isfinite(made).all()
    assert np.abs(made).max() <= 3 * 3000
    assert np.isfinite(mfcc(made)).all()


def test_variants_follow_the_recordings_and_are_the_same_every_time(folder: Path) -> None:
    names = [f"{digit}_jackson_{take}.wav" for digit in (3, 7) for take in range(14)]
    (folder / "fsdd_dev.zip").write_bytes(
        zipped({name: wav(spoken=chirp() + i) for i, name in enumerate(names)})
    )
    load = example("mlperf_tiny", "data.py:spoken_digits")
    features, digits = load("train")
    more, again = load("train", variants=2), load("train", variants=2)
    np.testing.assert_array_equal(more[0][: len(features)], features)
    np.testing.assert_array_equal(more[1], np.tile(digits, 3))
    np.testing.assert_array_equal(more[0], again[0])
    assert len({sample.tobytes() for sample in more[0][len(features) :]}) == 2 * len(features)


@pytest.mark.parametrize("part", PARTS[1:])
def test_what_is_measured_on_has_no_variants(folder: Path, part: str) -> None:
    with pytest.raises(DataError, match=f"variants of '{part}'") as caught:
        example("mlperf_tiny", "data.py:spoken_digits")(part, variants=1)
    assert "train" in caught.value.fix


def test_splits_of_images_share_only_calibration_with_train() -> None:
    splits = {part: cifar10(part)[0] for part in PARTS[1:]}
    splits["train"] = cifar10("train", per_class=700)[0]
    check_disjoint(splits)


def check_disjoint(splits: Mapping[str, Floats]) -> None:
    held = {part: {sample.tobytes() for sample in inputs} for part, inputs in splits.items()}
    assert held["calibration"] < held["train"]
    assert not held["train"] & held["selection"]
    assert not held["train"] & held["test"]
    assert not held["selection"] & held["test"]


def test_images_keep_the_scale_that_the_official_model_takes() -> None:
    images, labels = cifar10("calibration")
    assert images.shape == (1000, 3, 32, 32)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 255.0)
    assert np.bincount(labels).tolist() == [100] * 10


def test_the_official_image_classifier_has_its_accuracy_on_the_test_split() -> None:
    images, labels = cifar10("test")
    assert images.shape == (5000, 3, 32, 32)
    model = example("mlperf_tiny", "models.py:image_classification")()
    example("mlperf_tiny", "weights.py:load_official")(model)
    # 75.78 % with this Pillow; JPEG decoders may round pixels differently
    assert accuracy(model, images, labels) == pytest.approx(0.757, abs=0.004)


@pytest.mark.parametrize("name", ["cifar10", "spoken_digits"])
def test_an_unknown_part_is_refused_with_the_known_ones(name: str) -> None:
    data_folder()
    with pytest.raises(DataError, match="no part 'validation'") as caught:
        example("mlperf_tiny", f"data.py:{name}")("validation")
    assert "selection" in caught.value.fix


# Hostile archives. Each stands in for the test images or the recordings.


def jpeg(size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "JPEG")
    return buffer.getvalue()


def wav(
    rate: int = 8000,
    width: int = 2,
    samples: int = 100,
    spoken: npt.NDArray[np.int16] | None = None,
) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(width * samples) if spoken is None else spoken.tobytes())
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged(members: Mapping[str, bytes]) -> bytes:
    """An archive whose first member's packed bytes are not what its checksum says."""
    content = bytearray(zipped(members))
    start = 30 + len(next(iter(members)))
    content[start : start + 8] = bytes(8)
    return bytes(content)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESMITH_DATA", str(tmp_path))
    return tmp_path


def load_images(folder: Path, content: bytes) -> Any:
    (folder / "cifar10_test_dev.zip").write_bytes(content)
    return example("mlperf_tiny", "data.py:cifar10")("test")


def load_recordings(folder: Path, content: bytes) -> Any:
    (folder / "fsdd_dev.zip").write_bytes(content)
    return example("mlperf_tiny", "data.py:spoken_digits")("test")


def test_a_small_archive_of_the_right_kind_is_read(folder: Path) -> None:
    images, labels = load_images(folder, zipped({IMAGE: jpeg()}))
    assert (images.shape, labels.tolist()) == ((1, 3, 32, 32), [3])
    features, digits = load_recordings(folder, zipped({RECORDING: wav()}))
    assert (features.shape, digits.tolist()) == ((1, 1, 49, 10), [7])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "is not a .zip archive"),
        (zipped({"../escape.jpg": jpeg()}), "does not belong: '../escape.jpg'"),
        (zipped({IMAGE: bytes(20_000)}), "has 20000 bytes, more than 16384"),
        (zipped({IMAGE: b"GIF89a"}), "is not a JPEG image"),
        (zipped({IMAGE: jpeg()[:200]}), "is not a JPEG image"),
        (zipped({IMAGE: jpeg((64, 32))}), "is (64, 32) RGB, not 32x32 RGB"),
        (zipped({IMAGE: jpeg(mode="L")}), "is (32, 32) L, not 32x32 RGB"),
        (damaged({IMAGE: jpeg()}), "cannot unpack"),
        (zipped({}), "has no files"),
    ],
)
def test_a_hostile_archive_of_images_is_refused(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_images(folder, content)
    assert message in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({"notes.txt": b""}), "does not belong: 'notes.txt'"),
        (zipped({RECORDING: bytes(300_000)}), "has 300000 bytes, more than"),
        (zipped({RECORDING: b"RIFF"}), "is not a WAV file"),
        (zipped({RECORDING: wav(rate=16000)}), "is not 16-bit mono at 8000 Hz"),
        (zipped({RECORDING: wav(width=1)}), "is not 16-bit mono at 8000 Hz"),
        (zipped({RECORDING: wav(samples=0)}), "is not 16-bit mono at 8000 Hz"),
        (damaged({RECORDING: wav()}), "cannot unpack"),
        (zipped({}), "has no files"),
    ],
)
def test_a_hostile_archive_of_recordings_is_refused(
    folder: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_recordings(folder, content)
    assert message in caught.value.message
    assert caught.value.fix
