"""Files and folders in cache keys: what changes a key, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesmith.pipeline import file_identity
from edgesmith.pipeline.errors import FactoryError
from edgesmith.pipeline.file_identity import argument_paths, identities, identity
from edgesmith.pipeline.own_source import ROOMS, own_source_digest, source_digest
from edgesmith.pipeline.problems import ProblemCode
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.sources import declared_files
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.steps import key_parts, steps_of
from tests.guards import repository
from tests.pipeline.world import DATA, MODEL, SPEC, load, registries, write_spec

NAMES = st.sampled_from(["a", "b", "deep/a", "deep/er/c"])
TREES = st.dictionaries(NAMES, st.binary(max_size=3), max_size=4)


def grow(folder: Path, tree: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, TREES)
def test_folders_are_equal_when_their_files_are(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("trees")
    first, second = grow(root / "one", one), grow(root / "two", two)
    assert (identity(first) == identity(second)) == (one == two)


@pytest.mark.parametrize("limit", ["HASHED_BYTES", "MOST_FILES"])
def test_beyond_a_limit_size_and_time_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    folder = grow(tmp_path / "data", {"a": b"12", "b": b"34", "c": b"56"})
    whole = identity(folder)
    monkeypatch.setattr(file_identity, limit, 2)
    before = identity(folder)
    assert before != whole
    os.utime(folder / "a", ns=(1, 1))
    assert identity(folder) != before
    before = identity(folder)
    (folder / "d").write_bytes(b"")
    # Past the number of files that are looked at, only that there are more is known.
    assert (identity(folder) == before) == (limit == "MOST_FILES")


def test_a_large_file_counts_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"123")
    monkeypatch.setattr(file_identity, "HASHED_BYTES", 2)
    assert identity(path) == f"3 bytes, changed at {path.stat().st_mtime_ns}"


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    folder = grow(tmp_path / "data", {"a": b"1"})
    other = grow(tmp_path / "other", {"x": b"1"})
    (folder / "again").symlink_to(folder)
    (folder / "linked").symlink_to(other)
    (folder / "dangling").symlink_to(tmp_path / "none")
    before = identity(folder)
    (other / "x").write_bytes(b"2")
    assert identity(folder) != before


def test_bytecode_does_not_count(tmp_path: Path) -> None:
    folder = grow(tmp_path / "data", {"a.py": b"1"})
    before = identity(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").touch()
    assert identity(folder) == before


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    named = {
        name: tmp_path / name for name in ("none", "file/below", "pipe", "${NO_SUCH_VARIABLE}/x")
    }
    assert set(identities(named).values()) == {"missing"}


def test_arguments_that_are_paths(tmp_path: Path) -> None:
    spec = tmp_path / "spec"
    grow(spec, {"table.csv": b"", "images/one": b""})
    values = ["table.csv", {"deep": ["images", "../spec", ".", "..", "/", "none", "", "a\0b"]}, 3]
    found = argument_paths({"all": [*values, "x" * 5000, "y" * 300, str(spec / "images")]}, spec)
    assert found == {text: spec / text for text in ("table.csv", "images", str(spec / "images"))}


def parts_of(stage: str, spec: Spec) -> dict[str, str]:
    found = registries()
    step = next(each for each in steps_of(spec, (), found) if each.stage.name == stage)
    return key_parts(step, spec, found, {})


def changed(one: dict[str, str], two: dict[str, str]) -> set[str]:
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


DATA_SPEC = SPEC.replace("stage: make\n    text: abc", "stage: data")
LOAD_SPEC = SPEC.replace("stage: make\n    text: abc", "stage: load")


def test_a_folder_that_an_argument_names_is_in_the_key_of_data(tmp_path: Path) -> None:
    text = DATA_SPEC.replace("part: test", "part: test, seed: images")
    grow(tmp_path / "images", {"deep/one.png": b"1"})
    before = parts_of("data", load(tmp_path, text))
    (tmp_path / "images/deep/one.png").write_bytes(b"2")
    assert changed(before, parts_of("data", load(tmp_path, text))) == {"file images"}


def test_a_path_in_the_arguments_of_the_model_is_in_the_key_of_load(tmp_path: Path) -> None:
    text = LOAD_SPEC.replace("width: 8", "width: table.csv")
    write_spec(tmp_path)
    (tmp_path / "table.csv").write_text("1")
    before = parts_of("load", load(tmp_path, text))
    (tmp_path / "table.csv").write_text("2")
    assert changed(before, parts_of("load", load(tmp_path, text))) == {"file table.csv"}


def test_declared_files_are_in_the_keys_of_data_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declared by the module of a factory, of the trainer, or by one that they import."""
    outside = grow(tmp_path / "outside", {"w.npz": b"1"})
    monkeypatch.setenv("SOME_FOLDER", str(outside))
    place = tmp_path / "spec"
    text = LOAD_SPEC.replace("checkpoint: weights.safetensors", "trainer: train.py:train").replace(
        "data:\n", "data:\n  train: {factory: data.py:split, args: {part: train}}\n"
    )
    place.mkdir()
    (place / "train.py").write_text("import more\ndef train(): ...\n")
    (place / "more.py").write_text('CACHE_FILES: tuple[str, ...] = ["${SOME_FOLDER}/w.npz"]\n')

    def parts() -> dict[str, str]:
        spec = load_written(place, text)
        return {**parts_of("data", spec), **parts_of("load", spec)}

    write_spec(place, text)
    (place / "model.py").write_text('CACHE_FILES = ("table.csv",)\n' + MODEL)
    (place / "data.py").write_text('CACHE_FILES = ("table.csv",)\n' + DATA)
    before = parts()
    assert before["file of test: table.csv"] == "missing"
    (place / "table.csv").write_text("1")
    (outside / "w.npz").write_bytes(b"2")
    splits = ("train", "calibration", "selection", "test")
    assert changed(before, parts()) == {
        "file of trainer: ${SOME_FOLDER}/w.npz",
        "file of factory: table.csv",
        *(f"file of {split}: table.csv" for split in splits),
    }


def load_written(folder: Path, text: str) -> Spec:
    from edgesmith.pipeline.lint import load_spec

    (folder / "spec.yaml").write_text(text)
    return load_spec(folder / "spec.yaml", registries())


def test_relative_declarations_start_at_their_module(tmp_path: Path) -> None:
    grow(tmp_path / "pack", {"__init__.py": b"", "data.py": b'CACHE_FILES = ("t.csv", "/a/b")'})
    (tmp_path / "m.py").write_text('import pack.data\nCACHE_FILES = ("t.csv",)\n')
    assert declared_files("m.py:make", tmp_path) == {
        "t.csv": tmp_path / "t.csv",
        "pack/t.csv": tmp_path / "pack" / "t.csv",
        "/a/b": Path("/a/b"),
    }


@pytest.mark.parametrize("value", ["make()", "'a.csv'", "('a', 3)", "['a', x]", "('',)", "{'a'}"])
def test_a_declaration_that_only_running_would_tell(tmp_path: Path, value: str) -> None:
    path = write_spec(tmp_path)
    (tmp_path / "model.py").write_text(f"{MODEL}CACHE_FILES = {value}\n")
    with pytest.raises(FactoryError, match=r"model\.py:3: CACHE_FILES is not a list of plain"):
        declared_files("model.py:build_model", tmp_path)
    from edgesmith.pipeline.lint import check_source
    from edgesmith.pipeline.spec_source import read_source

    _, problems = check_source(read_source(path), registries())
    assert [each.code for each in problems] == [ProblemCode.BAD_FACTORY]


@pytest.mark.parametrize("spec", ["ic.yaml", "kws.yaml"])
def test_the_mlperf_tiny_example_declares_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: str
) -> None:
    """What the example opens goes through `data_file`, with names that stand in its source."""
    folder = repository.ROOT / "examples" / "mlperf_tiny"
    monkeypatch.setenv("EDGESMITH_DATA", str(tmp_path))
    trainer = "weights.py:official" if spec == "ic.yaml" else "training.py:digits"
    assert trainer in (folder / spec).read_text()
    archive = "ic_resnet8_weights.npz" if spec == "ic.yaml" else "kws_dscnn_weights.npz"
    assert tmp_path / "mlperf_tiny" / archive in declared_files(trainer, folder).values()
    data = set(declared_files("data.py:cifar10", folder).values())
    names = ("cifar10_train.zip", "cifar10_test_dev.zip", "fsdd_dev.zip")
    assert data == {tmp_path / name for name in names}
    assert all(f'data_file("{name}")' in (folder / "data.py").read_text() for name in names)


def test_the_own_source_is_in_every_key(tmp_path: Path) -> None:
    spec = load(tmp_path, DATA_SPEC)
    for step in steps_of(spec, ("plain-board",), registries()):
        assert key_parts(step, spec, registries(), {})["edgesmith source"] == own_source_digest()


def test_the_own_source_covers_every_room() -> None:
    assert set(ROOMS) == set(repository.ROOMS)


@pytest.mark.parametrize("name", ["deep/kernel.c", "page.html.j2", "a.py", "new.js"])
def test_any_source_file_counts_and_nothing_else(tmp_path: Path, name: str) -> None:
    room = grow(tmp_path / "room", {"a.py": b"1", "deep/b.py": b"2"})
    before = source_digest(room)
    (room / "a.pyc").touch()
    (room / "notes.md").touch()
    assert source_digest(room) == before
    (room / name).write_bytes(b"3")
    assert source_digest(room) != before


def test_the_facts_of_a_target_are_in_a_key_once(tmp_path: Path) -> None:
    text = DATA_SPEC.replace("[plain-board]", "[cpu-litert]").replace("stage: data", "stage: run")
    spec = load(tmp_path, text)
    found = Registries.discovered()
    for step in steps_of(spec, ("cpu-litert",), found):
        parts = key_parts(step, spec, found, {})
        facts = [name for name, value in parts.items() if "TFLite file" in value]
        assert facts == (["target summary"] if step.target else []), step.label
