"""Named arrays in one .npz, whatever their names; no pickle, same arrays give same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import CacheError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_INDEX = "names.json"


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write the arrays; `load_arrays` reads them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_INDEX, _EPOCH), json.dumps(list(arrays)))
        for index, array in enumerate(arrays.values()):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{index}.npy", _EPOCH), buffer.getvalue())


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays by name.

    Raises:
        CacheError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names: list[str] = json.loads(archive.read(_INDEX))
            return {
                name: np.lib.format.read_array(
                    io.BytesIO(archive.read(f"{index}.npy")), allow_pickle=False
                )
                for index, name in enumerate(names)
            }
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CacheError(
            f"{path} cannot be read: {error}", fix="run the stage that wrote it again with --force"
        ) from error
