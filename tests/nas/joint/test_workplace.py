"""Files of a workplace: what was saved comes back, and damage is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import CacheError
from tests.nas.joint.worlds import classifier


def place(folder: Path) -> Workplace:
    """Of which only the folder is looked at."""
    nothing = cast("Any", None)
    return Workplace(nothing, nothing, nothing, folder, folder, folder)


def test_weights_and_favourites_come_back(tmp_path: Path) -> None:
    _, trained = classifier()
    with torch.no_grad():
        next(trained.network.parameters()).add_(1.0)
    space = trained.genes.space
    last = space.canonical([size - 1 for size in space.sizes])
    place(tmp_path).save(trained, {"policy for 0.5": last})
    _, fresh = classifier()
    assert place(tmp_path).restore(fresh)
    expected = trained.network.state_dict()
    for name, value in fresh.network.state_dict().items():
        assert torch.equal(value, expected[name])
    (favourite,) = place(tmp_path).favourites(fresh)
    assert (favourite.candidate, favourite.origin) == (last, "seed: policy for 0.5")


def test_nothing_comes_back_where_nothing_was_saved(tmp_path: Path) -> None:
    _, found = classifier()
    assert not place(tmp_path).restore(found)
    assert place(tmp_path).favourites(found) == ()


@pytest.mark.parametrize("name", ["network.safetensors", "favourites.json"])
@pytest.mark.parametrize("damage", [b"", b"nonsense", b'{"policy": [99]}'])
def test_a_damaged_file_is_named(name: str, damage: bytes, tmp_path: Path) -> None:
    _, found = classifier()
    (tmp_path / name).write_bytes(damage)
    read = place(tmp_path).restore if name.endswith("tensors") else place(tmp_path).favourites
    with pytest.raises(CacheError, match=name) as caught:
        read(found)
    assert "delete" in caught.value.fix
