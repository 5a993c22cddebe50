"""Whatever happens to an archive's file, what can be read of it is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.nas.archive import Archive, Contents, read_archive
from edgesmith.nas.space import Candidate, Gene, Space
from edgesmith.nas.values import Trial
from edgesmith.pipeline.errors import ArchiveError, CacheError
from tests.nas.driver.searches import SPACE

FACTS = {"task": "t", "data": "d", "model": "m"}
CANDIDATES: list[Candidate] = [(0, 0, 0, 0), (1, 0, 1, 0), (2, 1, 0, 1), (1, 0, 2, 1)]


def trial(number: int) -> Trial:
    metrics = {"accuracy": 0.1 * number, "bytes": 1e9}
    error = "" if number % 3 else "ES411: naïve “reason”\nin two lines"
    choices = SPACE.choices(CANDIDATES[number])
    return Trial(number, choices, "walk", metrics, error, {"seed": "1"})


def write(path: Path, *numbers: int) -> None:
    with Archive.opened(path, SPACE, FACTS) as archive:
        for number in numbers:
            archive.append(SPACE.key(CANDIDATES[number]), trial(number))


def read(path: Path) -> Contents:
    return read_archive(path, SPACE, FACTS)


def known(*numbers: int) -> dict[str, Trial]:
    return {SPACE.key(CANDIDATES[number]): trial(number) for number in numbers}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "evaluations.jsonl"


def test_trials_are_found_again_by_the_key_of_their_candidate(path: Path) -> None:
    assert read(path) == Contents({})
    write(path, 0, 1)
    write(path, 2)
    assert read(path) == Contents(known(0, 1, 2))


def test_the_file_is_only_ever_appended_to(path: Path) -> None:
    write(path, 0)
    before = path.read_bytes()
    write(path, 1)
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 3


def test_a_last_line_torn_at_any_byte_costs_that_line_only(path: Path) -> None:
    write(path, 0, 1, 2)
    content = path.read_bytes()
    start = content[:-1].rindex(b"\n") + 1
    for end in range(start, len(content)):
        path.write_bytes(content[:end])
        whole = end == len(content) - 1
        torn = () if whole or end == start else (4,)
        left = known(0, 1, 2) if whole else known(0, 1)
        assert read(path) == Contents(left, torn, torn=end > start)
        write(path, 3)
        assert read(path) == Contents(left | known(3), torn)


def test_a_header_torn_at_any_byte_is_damage_like_any_other(path: Path) -> None:
    write(path)
    content = path.read_bytes()
    for end in range(1, len(content) - 1):
        path.write_bytes(content[:end])
        write(path, 0)
        assert read(path) == Contents(known(0), (1,))


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_byte_costs_its_line_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("archive") / "evaluations.jsonl"
    write(path, 0, 1, 2)
    content = bytearray(path.read_bytes())
    place = data.draw(st.sampled_from([at for at, byte in enumerate(content) if byte != 10]))
    line = content[:place].count(b"\n") + 1
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    found = read(path)
    whole = [number for number in range(3) if number + 2 != line]
    assert known(*whole).items() <= found.known.items() <= known(0, 1, 2).items()
    lost = len(found.known) == len(whole) and line > 1
    assert found.corrupted[:1] == ((line,) if lost or line == 1 else ())


def test_damaged_lines_are_named(path: Path) -> None:
    write(path, 0, 1, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"0.1", b"0.9")
    path.write_bytes(b"".join(lines))
    assert read(path) == Contents(known(0, 2), (3,))


@pytest.mark.parametrize("rubbish", [b"[" * 100_000, b"\xff\xfe", b"7", b"{}", b""])
def test_rubbish_is_skipped(path: Path, rubbish: bytes) -> None:
    write(path, 0)
    with path.open("ab") as stream:
        stream.write(rubbish + b"\n")
    write(path, 1)
    assert read(path) == Contents(known(0, 1), (3,))


def test_one_writes_and_others_read(path: Path) -> None:
    with Archive.opened(path, SPACE, FACTS) as archive:
        archive.append(SPACE.key(CANDIDATES[0]), trial(0))
        assert read(path) == read(path) == Contents(known(0))
        with (
            pytest.raises(ArchiveError, match="another process is writing"),
            Archive.opened(path, SPACE, FACTS),
        ):
            pass
    write(path, 1)


@pytest.mark.parametrize(
    ("facts", "named"),
    [(FACTS | {"model": "other"}, "another model"), ({"task": "t"}, "another data, model")],
)
def test_an_archive_of_something_else_is_refused(
    path: Path, facts: dict[str, str], named: str
) -> None:
    write(path, 0)
    with pytest.raises(ArchiveError) as caught:
        read_archive(path, SPACE, facts)
    assert caught.value.message.endswith(named)
    with pytest.raises(ArchiveError), Archive.opened(path, SPACE, facts):
        pass
    assert read(path) == Contents(known(0))


def test_an_archive_of_another_space_is_refused(path: Path) -> None:
    write(path, 0)
    with pytest.raises(ArchiveError, match="another space"):
        read_archive(path, Space((Gene("width:a", (2, 1)),)), FACTS)


def test_without_its_header_an_archive_of_something_else_gives_nothing(path: Path) -> None:
    write(path, 0, 1)
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    assert read(path) == Contents(known(0, 1))
    assert read_archive(path, SPACE, FACTS | {"data": "other"}) == Contents({}, (1, 2))


def test_a_file_that_cannot_be_written_is_an_error_with_its_name(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(CacheError, match=path.name):
        write(path, 0)


def test_of_others_only_what_rests_on_the_same_and_did_not_fail_counts(path: Path) -> None:
    write(path, 0, 1, 2)
    other, damaged = path.with_name("other.jsonl"), path.with_name("damaged.jsonl")
    with Archive.opened(other, SPACE, {**FACTS, "data": "e"}) as archive:
        archive.append(SPACE.key(CANDIDATES[3]), trial(3))
    damaged.write_bytes(b"no archive")
    beside = [path, other, damaged, path.parent]
    with Archive.opened(path.with_name("own.jsonl"), SPACE, FACTS, beside) as archive:
        assert archive.others == {k: each for k, each in known(0, 1, 2).items() if not each.failed}
        assert archive.others
        assert archive.known == {}
        assert archive.corrupted == ()
