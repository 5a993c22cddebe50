"""`make bench-search`: what the joint search claims, measured.

    python benchmarks/search.py [--folder FOLDER] [GROUP ...]
    python benchmarks/search.py record FOLDER

A folder keeps what the groups make: what was killed goes on there. Groups: step, samplers,
predictors, keywords, images, example, ray; all by default. The record keeps what was measured of
the other groups on the same machine, so that they can be run one at a time. Keywords and images
need the data that EDGESMITH_DATA names, and fail without. Samplers and predictors are compared on
a table of real evaluations, which `record` makes anew.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rows import Row, publish_groups
from searching.devices import images, keywords
from searching.example import example
from searching.predictors import predictors
from searching.ray_workers import ray_workers
from searching.recorded import TABLE, record
from searching.samplers import sampled
from searching.step import step

from edgesmith.pipeline.versions import installed

GROUPS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "step": step,
    "samplers": sampled,
    "predictors": predictors,
    "keywords": keywords,
    "images": images,
    "example": example,
    "ray": ray_workers,
}
RECORD, FOLDER = "record", "--folder"


def main(chosen: list[str]) -> bool:
    """Run groups, write and print what they found; whether every goal is met.

    Raises:
        SystemExit: there is no such group, or no folder to record in.
    """
    if chosen[:1] == [FOLDER]:
        if len(chosen) < 2:
            raise SystemExit(
                f"name a folder: python benchmarks/search.py {FOLDER} FOLDER [GROUP ...]"
            )
        return _measured(chosen[2:], Path(chosen[1]))
    if chosen[:1] == [RECORD]:
        if len(chosen) != 2:
            raise SystemExit(f"name a folder: python benchmarks/search.py {RECORD} FOLDER")
        print(f"{len(record(Path(chosen[1])).values)} candidates in {TABLE}")
        return True
    with tempfile.TemporaryDirectory() as folder:
        return _measured(chosen, Path(folder))


def _measured(chosen: list[str], folder: Path) -> bool:
    """Whether every goal is met.

    Raises:
        SystemExit: there is no such group.
    """
    if unknown := [name for name in chosen if name not in GROUPS]:
        raise SystemExit(f"no group {', '.join(unknown)}; choose of {', '.join(GROUPS)}")
    folder.mkdir(parents=True, exist_ok=True)
    versions = installed("brevitas", "pymoo", "scikit-learn", "ray")
    groups = {name: partial(group, folder) for name, group in GROUPS.items()}
    return publish_groups("search", groups, chosen or tuple(GROUPS), versions)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
