"""Folders of long work: which changes begin anew, and which go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.stage import Stage, StageContext
from edgesmith.pipeline.unfinished import kept_folder, trainings_folder, unfinished_folder


@dataclass(frozen=True)
class Long(Stage):
    name: ClassVar[str] = "long"
    rate: float = 0.1
    workers: int = 1

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("load",)

    def run(self, context: StageContext) -> None:
        raise NotImplementedError


def context(folder: Path, *, digest: str = "a", seed: int = 0) -> StageContext:
    """Of which only the spec's folder, the seed and a record's digest are looked at."""
    given = {
        "spec": SimpleNamespace(folder=folder),
        "records": {
            "load": SimpleNamespace(digest=digest),
            "data": SimpleNamespace(digest="d"),
            "other": SimpleNamespace(digest="x"),
        },
        "seed": seed,
        "target": None,
    }
    return cast("StageContext", SimpleNamespace(**given))


def test_an_unfinished_stage_has_a_folder_of_its_parameters_and_inputs(tmp_path: Path) -> None:
    here, stage = context(tmp_path), Long()
    folder = unfinished_folder(stage, here)
    assert folder.parent == tmp_path / ".edgesmith/unfinished"
    assert folder == unfinished_folder(Long(), context(tmp_path))
    changed: list[tuple[Any, StageContext]] = [
        (replace(stage, rate=0.2), here),
        (stage, context(tmp_path, digest="b")),
        (stage, context(tmp_path, seed=1)),
    ]
    assert len({folder, *(unfinished_folder(*each) for each in changed)}) == 4


def test_parameters_that_stand_apart_change_nothing(tmp_path: Path) -> None:
    here = context(tmp_path)
    one, two = (unfinished_folder(Long(workers=n), here, ("workers",)) for n in (1, 2))
    assert one == two
    assert one != unfinished_folder(Long(rate=0.2), here, ("workers",))


def test_what_is_kept_depends_on_its_parts_and_inputs_alone(tmp_path: Path) -> None:
    here = context(tmp_path)
    folder = kept_folder(Long(), here, "networks", {"epochs": 2})
    assert folder.parent == tmp_path / ".edgesmith/networks"
    assert folder == kept_folder(Long(rate=0.2), here, "networks", {"epochs": 2})
    others = (
        kept_folder(Long(), here, "networks", {"epochs": 3}),
        kept_folder(Long(), context(tmp_path, digest="b"), "networks", {"epochs": 2}),
        kept_folder(Long(), context(tmp_path, seed=1), "networks", {"epochs": 2}),
    )
    assert folder not in others


def test_trainings_depend_on_model_and_data_alone(tmp_path: Path) -> None:
    folder = trainings_folder(context(tmp_path))
    assert folder.parent == tmp_path / ".edgesmith/trainings"
    assert folder == trainings_folder(context(tmp_path, seed=1))
    assert folder != trainings_folder(context(tmp_path, digest="b"))
