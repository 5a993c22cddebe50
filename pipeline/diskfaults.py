"""Operating-system errors on the cache and run folders, as errors that say what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesmith.pipeline.errors import CacheError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_NEARLY_FULL_BYTES = 1 << 20


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn operating-system errors in the body into `CacheError`s that name `folder`.

    Raises:
        CacheError: the body raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise as_cache_error(error, folder) from error


def as_cache_error(error: OSError, folder: Path) -> CacheError:
    """The `CacheError` for an operating-system error under `folder`."""
    place = error.filename or folder
    if error.errno in _FULL:
        return _full(folder)
    reason = error.strerror or str(error)
    if error.errno in _REFUSED:
        fix = "give the folder write permission, or choose others with --cache and --out"
    else:
        fix = "check the disk and the folder; deleting the cache folder is always safe"
    return CacheError(f"cannot use {place}: {reason}", fix=fix)


def disk_fault(error: BaseException, folder: Path) -> CacheError | None:
    """The `CacheError` behind a stage's exception when the disk is why it failed, else None.

    Libraries hide a full disk behind errors of their own (NumPy: a short write
    without errno; torch: RuntimeError), so free space decides where errno does not.
    """
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return _full(folder)
        inside = str(error.filename or "").startswith(str(folder))
        if error.errno == errno.EROFS or (inside and error.errno in _REFUSED):
            return as_cache_error(error, folder)
    return _full(folder) if _is_full(folder) else None


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _NEARLY_FULL_BYTES
    except OSError:
        return False


def _full(folder: Path) -> CacheError:
    return CacheError(
        f"no space left for {folder}, or a file reached the size limit",
        fix="free some space or choose another disk with --cache, then run the same command "
        "again: finished stages are kept",
    )
