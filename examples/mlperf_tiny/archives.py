"""Members of a data archive (.zip), read with every size checked before anything is unpacked."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgesmith.pipeline.errors import DataError

MAX_MEMBERS = 100_000
FIX = "put the original archive into the data folder again"


@dataclass(frozen=True)
class Member:
    """One file of an archive. Equal `content` means equal bytes, as far as CRC and size tell."""

    name: str
    label: str
    content: tuple[int, int]


def members(path: Path, pattern: re.Pattern[str], max_bytes: int) -> list[Member]:
    """All files of an archive, each content once, in the order of their names' SHA-256.

    That order looks random and is the same everywhere. Nothing is unpacked.

    Args:
        pattern: what every name must match; its group `label` is the class.
        max_bytes: size that no member may exceed.

    Raises:
        DataError: not a .zip archive, too many members, a name or a size that is not expected.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [each for each in archive.infolist() if not each.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a .zip archive: {error}", fix=FIX) from error
    if not entries:
        raise DataError(f"{path} has no files", fix=FIX)
    if len(entries) > MAX_MEMBERS:
        raise DataError(f"{path} has {len(entries)} files, more than {MAX_MEMBERS}", fix=FIX)
    found: dict[tuple[int, int], Member] = {}
    for entry in sorted(entries, key=lambda each: hashlib.sha256(each.filename.encode()).digest()):
        match = pattern.fullmatch(entry.filename)
        if match is None:
            raise DataError(f"{path} has a file that does not belong: {entry.filename!r}", fix=FIX)
        if entry.file_size > max_bytes:
            raise DataError(
                f"{entry.filename!r} in {path} has {entry.file_size} bytes, more than {max_bytes}",
                fix=FIX,
            )
        content = (entry.CRC, entry.file_size)
        found.setdefault(content, Member(entry.filename, match["label"], content))
    return list(found.values())


def read(path: Path, chosen: list[Member]) -> list[bytes]:
    """The bytes of some members; never more of one than the archive's directory says.

    Raises:
        DataError: a member is damaged.
    """
    contents = []
    with zipfile.ZipFile(path) as archive:
        for member in chosen:
            size = member.content[1]
            try:
                with archive.open(member.name) as file:
                    content = file.read(size + 1)
            except (
                OSError,
                EOFError,
                zipfile.BadZipFile,
                zlib.error,
                NotImplementedError,
            ) as error:
                message = f"cannot unpack {member.name!r} from {path}: {error}"
                raise DataError(message, fix=FIX) from error
            if len(content) != size:
                message = f"{member.name!r} in {path} unpacks to another size than stated"
                raise DataError(message, fix=FIX)
            contents.append(content)
    return contents


def take_by(key: Callable[[Member], str], items: list[Member], part: slice) -> list[Member]:
    """The same slice of every group, one member of each group in turn.

    Any prefix of the result is as balanced as it can be.
    """
    groups: dict[str, list[Member]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    taken = [groups[name][part] for name in sorted(groups)]
    longest = max((len(group) for group in taken), default=0)
    return [group[i] for i in range(longest) for group in taken if i < len(group)]
