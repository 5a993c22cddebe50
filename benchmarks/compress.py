"""`make bench-compress`: what quantization, bit allocation, QAT and pruning claim, measured.

    python benchmarks/compress.py [GROUP ...]

Groups: formats, mixed, engine, qat, pruning; all by default. The record keeps what was measured
of the other groups on the same machine, so that they can be run one at a time. The models are
MLPerf Tiny's IC (ResNet-8, CIFAR-10 as JPEG) and KWS (DS-CNN, spoken digits), with their official
weights or fine-tuned from them on the training split. EDGESMITH_DATA names the data; without it
this fails: a figure that was not measured is no figure. Accuracy is that of the test split (5,000
images, 480 recordings) and, unless a row says otherwise, of the artifact that a target runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from compression.engine import engine
from compression.formats import formats
from compression.mixed import mixed
from compression.pruning import pruning
from compression.qat import qat
from rows import Row, publish_groups

from edgesmith.pipeline.versions import installed

GROUPS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "formats": formats,
    "mixed": mixed,
    "engine": engine,
    "qat": qat,
    "pruning": pruning,
}


def main(chosen: list[str]) -> bool:
    """Run groups, write and print what they found; whether every goal is met.

    Raises:
        SystemExit: there is no such group, or EDGESMITH_DATA does not name the data.
    """
    if unknown := [name for name in chosen if name not in GROUPS]:
        raise SystemExit(f"no group {', '.join(unknown)}; choose of {', '.join(GROUPS)}")
    if not Path(os.environ.get("EDGESMITH_DATA", ""), "mlperf_tiny").is_dir():
        raise SystemExit("set EDGESMITH_DATA to the folder that holds mlperf_tiny/")
    versions = installed("brevitas", "neural-compressor", "scipy")
    with tempfile.TemporaryDirectory() as folder:
        groups = {name: partial(group, Path(folder)) for name, group in GROUPS.items()}
        return publish_groups("compress", groups, chosen or tuple(GROUPS), versions)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
