"""Files of a workplace: what was saved comes back, and damage is said."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from edgesmith.nas import workplace
from edgesmith.nas.genes import offered
from edgesmith.nas.joint import joint_of
from edgesmith.nas.options import SearchOptions
from edgesmith.nas.training import SuperTrained
from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.prune.costs import QUICK
from tests.nas.joint.test_evaluation import evaluator
from tests.nas.joint.worlds import SHAPE, classifier, joint


@dataclass
class Said(SilentProgress):
    """Keeps what it was told."""

    labels: list[str] = field(default_factory=list)

    def report(self, label: str, done: int, total: int | None) -> None:
        self.labels.append(label)


def place(folder: Path) -> Workplace:
    """Of which only the folder is looked at."""
    nothing = cast("Any", None)
    return Workplace(nothing, nothing, nothing, folder, folder, "search", folder, folder, "scored")


def test_weights_and_favourites_come_back(tmp_path: Path) -> None:
    _, trained = classifier()
    with torch.no_grad():
        next(trained.network.parameters()).add_(1.0)
    space = trained.genes.space
    last = space.canonical([size - 1 for size in space.sizes])
    tuned = Tuned(20.0, 61.5, 3, diverged=True)
    place(tmp_path).save(trained, SuperTrained(tuned, {"policy for 0.5": last}))
    _, fresh = classifier()
    assert place(tmp_path).restore(fresh)
    expected = trained.network.state_dict()
    for name, value in fresh.network.state_dict().items():
        assert torch.equal(value, expected[name])
    assert place(tmp_path).tuned(fresh) == tuned
    (favourite,) = place(tmp_path).favourites(fresh)
    assert (favourite.candidate, favourite.origin) == (last, "seed: policy for 0.5")


def test_nothing_comes_back_where_nothing_was_saved(tmp_path: Path) -> None:
    _, found = classifier()
    assert not place(tmp_path).restore(found)
    assert place(tmp_path).favourites(found) == ()
    assert place(tmp_path).tuned(found) is None
    place(tmp_path).save(found, None)
    assert place(tmp_path).restore(found)
    assert place(tmp_path).tuned(found) is None


def test_a_worker_without_what_the_search_trained_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the folder may be empty, of another search, or the machine of another kind."""
    _, found = classifier()
    scoring = evaluator()
    here = place(tmp_path / "here")
    here.save(found, None)
    monkeypatch.setattr(Workplace, "joint", lambda _: classifier()[1])
    monkeypatch.setattr(Workplace, "evaluator", lambda *_: scoring)
    expected = here.facts(found, scoring)
    assert replace(here, expected=expected)() is scoring
    other = replace(expected, machine="another")
    with pytest.raises(CacheError, match="does not see what the search trained"):
        replace(here, expected=other)()
    with pytest.raises(CacheError, match="does not see what the search trained"):
        replace(place(tmp_path / "there"), expected=expected)()
    with torch.no_grad():
        next(found.network.parameters()).add_(1.0)
    here.save(found, None)
    with pytest.raises(CacheError, match="does not see what the search trained"):
        replace(here, expected=expected)()


@pytest.mark.parametrize("name", ["network.safetensors", "favourites.json"])
@pytest.mark.parametrize("damage", [b"", b"nonsense", b'{"policy": [99]}'])
def test_a_damaged_file_is_named(name: str, damage: bytes, tmp_path: Path) -> None:
    _, found = classifier()
    folder = place(tmp_path).trained_folder(found)
    folder.mkdir()
    (folder / name).write_bytes(damage)
    read = place(tmp_path).restore if name.endswith("tensors") else place(tmp_path).favourites
    with pytest.raises(CacheError, match=name) as caught:
        read(found)
    assert "delete" in caught.value.fix


def test_importance_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is read again; a damaged file is named."""
    measured: list[str] = []

    def scores(*given: Any) -> dict[str, Any]:
        measured.append(given[3])
        return {"conv1": np.arange(4.0)}

    monkeypatch.setattr(workplace, "unit_scores", scores)
    monkeypatch.setattr(workplace, "read_split", lambda *_: None)
    options = SearchOptions(importance="taylor")
    spec = cast("Any", SimpleNamespace(seed=3))
    here = replace(place(tmp_path), spec=spec, options=options)
    for _ in range(2):
        found = here._scores(classifier()[0], SHAPE)
        assert found.keys() == {"conv1"}
        assert found["conv1"].tolist() == [0, 1, 2, 3]
    assert measured == ["taylor"]
    (file,) = tmp_path.rglob("scores.npz")
    file.write_bytes(b"nonsense")
    with pytest.raises(CacheError, match=r"scores\.npz") as caught:
        here._scores(classifier()[0], SHAPE)
    assert "delete" in caught.value.fix


def test_super_networks_of_other_spaces_lie_apart(tmp_path: Path) -> None:
    _, found = classifier()
    other = joint("cnn")
    here = place(tmp_path)
    assert here.trained_folder(found) == here.trained_folder(classifier()[1])
    assert here.trained_folder(found) != here.trained_folder(other)


def test_super_networks_of_other_formats_lie_apart_though_there_is_no_choice(
    tmp_path: Path,
) -> None:
    """With one format there is no gene for it, and yet the weights learn to bear just that one."""
    host = get_target("c-host").describe()
    pairs = itertools.product(("int8", "int4"), ("int8", "int16"))
    folders = set()
    for weight, activation in pairs:
        formats = offered((weight,), (activation,), [host])
        found = joint_of(classifier()[0], SHAPE, formats, QUICK, divisor=4)
        folders.add(place(tmp_path).trained_folder(found))
    assert len(folders) == 4


def test_who_needs_what_another_search_trains_waits(tmp_path: Path) -> None:
    """And finds it trained."""
    _, found = classifier()
    here, said, order = place(tmp_path), Said(), []

    def second() -> None:
        with here.training(found, said):
            order.append("second")

    with here.training(found, SilentProgress()):
        other = Thread(target=second)
        other.start()
        while not said.labels:
            time.sleep(0.01)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert said.labels == ["waiting for a search that trains the same super-network"]
