"""Where the data of this example lies: the folder that `EDGESMITH_DATA` names."""

from __future__ import annotations

import os
from pathlib import Path

from edgesmith.pipeline.errors import DataError


def data_file(name: str) -> Path:
    """The path of a file in the data folder.

    Raises:
        DataError: the variable is not set, or the folder does not have the file.
    """
    folder = os.environ.get("EDGESMITH_DATA", "")
    if not folder:
        raise DataError(
            f"this example reads {name}, and EDGESMITH_DATA does not say from where",
            fix="set EDGESMITH_DATA to the folder with the data (examples/mlperf_tiny/README.md)",
        )
    path = Path(folder, name)
    if not path.is_file():
        raise DataError(
            f"there is no file {name!r} in EDGESMITH_DATA ({folder})",
            fix="put the file there (examples/mlperf_tiny/README.md says what it is)",
        )
    return path
