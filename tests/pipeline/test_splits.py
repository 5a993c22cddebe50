"""Data splits: what factories may return, what is refused, and overlap."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from edgesmith.pipeline.cache import Cache
from edgesmith.pipeline.errors import (
    DataError,
    EdgesmithError,
    EmptySplitError,
    FactoryError,
    OverlappingSplitsError,
)
from edgesmith.pipeline.planner import Status, plan
from edgesmith.pipeline.spec import SplitSpec
from edgesmith.pipeline.splits import (
    Split,
    as_split,
    check_disjoint,
    load_split,
    read_split,
    shared_samples,
)
from edgesmith.pipeline.stage import SilentProgress, StageContext
from edgesmith.pipeline.stages.data import Data
from edgesmith.pipeline.steps import key_parts, steps_of
from tests.pipeline.world import DATA, SPEC, load, registries

INPUTS = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Listed:
    """The least that counts as a dataset."""

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return INPUTS[index], int(LABELS[index])


@pytest.mark.parametrize(
    "made",
    [
        (INPUTS, LABELS),
        [INPUTS.astype(np.float64), LABELS.astype(np.uint8)],
        (INPUTS.tolist(), LABELS.tolist()),
        (torch.from_numpy(INPUTS).requires_grad_(), torch.from_numpy(LABELS)),
        TensorDataset(torch.from_numpy(INPUTS), torch.from_numpy(LABELS)),
        Listed(),
        Split(INPUTS, LABELS),
    ],
)
@pytest.mark.parametrize("limit", [None, 1, 4, 6, 99])
def test_every_promised_form_gives_the_same_arrays(made: object, limit: int | None) -> None:
    split = as_split("test", made, limit)
    assert split.inputs.dtype == np.float32
    assert split.labels.dtype == np.int64
    np.testing.assert_array_equal(split.inputs, INPUTS[:limit])
    np.testing.assert_array_equal(split.labels, LABELS[:limit])
    assert len(split) == min(limit or 6, 6)


class Ragged(Listed):
    """Samples of two shapes."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.zeros(2 + index // 3, np.float32), 0


class Raising(Listed):
    """A sample that cannot be read."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        raise OSError("image 3 is gone")


class Single(Listed):
    """Inputs without labels."""

    def __getitem__(self, index: int) -> Any:
        return INPUTS[index]


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (None, FactoryError, "a NoneType"),
        ({"a": 1}, FactoryError, "a dict"),
        ((x for x in LABELS), FactoryError, "a generator"),
        ((INPUTS,), FactoryError, "1 values"),
        ((INPUTS, LABELS, LABELS), FactoryError, "3 values"),
        ((["a", "b"], [0, 1]), FactoryError, "an array of <U1"),
        (([[1.0], [1.0, 2.0]], [0, 1]), FactoryError, "no array"),
        ((INPUTS[:0], LABELS[:0]), EmptySplitError, "no samples"),
        ((np.float32(1), LABELS), FactoryError, "a single number"),
        ((INPUTS.astype(np.uint8), LABELS), DataError, "inputs of uint8"),
        ((INPUTS, LABELS.astype(np.float32)), DataError, "labels of float32"),
        ((INPUTS, LABELS[:5]), DataError, r"6 inputs and labels of shape \[5\]"),
        ((INPUTS, np.eye(6, dtype=np.int64)), DataError, r"shape \[6, 6\]"),
        (Ragged(), DataError, "sample 3 has shape"),
        (Raising(), FactoryError, "OSError: image 3 is gone"),
        (Single(), FactoryError, "sample 0 is no"),
        (TensorDataset(torch.zeros(0, 2), torch.zeros(0)), EmptySplitError, "no samples"),
    ],
)
def test_everything_else_is_refused(made: object, error: type[EdgesmithError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        as_split("test", made)
    assert type(caught.value) is error
    assert "'test'" in caught.value.message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x[2, 0] = float('nan')", "NaN or infinite inputs in 1 of 4 samples, first in sample 2"),
        ("x[1:] = float('-inf')", "in 3 of 4 samples, first in sample 1"),
        ("x = x.astype('float64'); x[3] = 1e300", "first in sample 3"),
        ("y[0] = -1", "label -1"),
    ],
)
def test_bad_values_are_refused(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\ndef split():\n    x = np.zeros((4, 2), 'float32')\n"
        f"    y = np.zeros(4, int)\n    {code}\n    return x, y\n"
    )
    with pytest.raises(DataError, match=words):
        load_split("test", SplitSpec(factory="d.py:split"), tmp_path)


SAMPLES = st.lists(st.integers(0, 12), max_size=8)


def split_of(values: list[int]) -> Split:
    inputs = np.array(values, np.float32).reshape(-1, 1)
    return Split(inputs, np.zeros(len(values), np.int64))


@given(SAMPLES, SAMPLES)
def test_shared_samples_are_those_of_a_plain_comparison(one: list[int], two: list[int]) -> None:
    expected = [(one.index(value), place) for place, value in enumerate(two) if value in one]
    assert shared_samples(split_of(one), split_of(two)) == expected
    if expected:
        with pytest.raises(OverlappingSplitsError, match=f"{len(expected)} of {len(two)} samples"):
            check_disjoint(split_of(one), split_of(two))
    else:
        check_disjoint(split_of(one), split_of(two))


def test_negative_zero_is_zero() -> None:
    split = Split(np.array([[-0.0]], np.float32), np.zeros(1, np.int64))
    assert shared_samples(split_of([0]), split) == [(0, 0)]


def run_data(folder: Path, text: str = SPEC, data: str = DATA) -> Path:
    spec = load(folder, text)
    (folder / "data.py").write_text(data)
    out = folder / "out"
    out.mkdir()
    log = logging.getLogger("test")
    Data().run(StageContext(out, {}, spec, None, 0, SilentProgress(), log))
    return out


def test_the_data_stage_writes_splits_and_a_manifest(tmp_path: Path) -> None:
    out = run_data(tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    assert sorted(manifest["splits"]) == ["calibration", "selection", "test"]
    assert manifest["splits"]["calibration"]["samples"] == 3
    assert manifest["splits"]["test"]["shape"] == [1, 2, 2]
    assert manifest["splits"]["test"]["label_counts"] == {"0": 3, "1": 3}
    assert manifest["overlaps"] == {}
    split = read_split(out, "test")
    rng = np.random.default_rng([0, 3])
    np.testing.assert_array_equal(split.inputs, rng.normal(size=(6, 1, 2, 2)).astype(np.float32))
    with pytest.raises(DataError, match="no split 'train'"):
        read_split(out, "train")


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (run_data(tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_overlapping_selection_and_test_stop_the_stage(tmp_path: Path) -> None:
    shared = DATA.replace('"test": 3', '"test": 2')
    with pytest.raises(OverlappingSplitsError, match=r"6 of 6.*selection\[0\] = test\[0\]"):
        run_data(tmp_path, data=shared)


def test_other_overlaps_are_in_the_manifest(tmp_path: Path) -> None:
    shared = DATA.replace('"calibration": 1', '"calibration": 3')
    manifest = json.loads((run_data(tmp_path, data=shared) / "manifest.json").read_text())
    assert manifest["overlaps"] == {"calibration+test": 3}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[1, 2, 2]", "[1, 4]", r"samples of shape \[1, 2, 2\]"),
        ('["zero", "one"]', '["zero"]', "label 1"),
        ("limit: 3", "args: {part: calibration, count: 0}, limit: 3", "no samples"),
    ],
)
def test_splits_that_do_not_fit_the_spec(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = SPEC.replace(old, new)
    if "count: 0" in new:
        text = SPEC.replace("args: {part: calibration}, limit: 3", new)
    with pytest.raises(DataError, match=words):
        run_data(tmp_path, text)


def test_the_key_names_what_changed(tmp_path: Path) -> None:
    text = SPEC.replace("stage: make\n    text: abc", "stage: data").replace(
        "part: test", "part: test, seed: table.csv"
    )
    (tmp_path / "table.csv").write_text("1")
    spec = load(tmp_path, text)
    found = registries()
    step = next(s for s in steps_of(spec, (), found) if s.stage.name == "data")
    before = key_parts(step, spec, found, {})
    (tmp_path / "table.csv").write_text("2")
    (tmp_path / "data.py").write_text(DATA + "# edited\n")
    after = key_parts(step, spec, found, {})
    changed = {name for name in before.keys() | after.keys() if before[name] != after[name]}
    assert changed == {
        "file table.csv",
        "source of calibration",
        "source of selection",
        "source of test",
    }
    other = load(tmp_path / "other", SPEC.replace("stage: make\n    text: abc", "stage: data"))
    statuses = plan(other, (), found, Cache(tmp_path / "cache"))
    assert [each.status for each in statuses if each.stage == "data"] == [Status.RUN]
