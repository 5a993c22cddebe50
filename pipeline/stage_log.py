"""A log file per stage run: the stage's own messages, its libraries' and Python's warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesmith.pipeline.diskfaults import cache_errors

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def stage_log(stage: str, path: Path) -> Iterator[logging.Logger]:
    """Collect all logging of the body in a file; warnings go there, not to the terminal.

    Raises:
        CacheError: the file cannot be opened.
    """
    with cache_errors(path.parent):
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    root, log = logging.getLogger(), logging.getLogger(f"edgesmith.stage.{stage}")
    levels = root.level, log.level
    root.addHandler(handler)
    root.setLevel(min(root.level, logging.INFO))
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(levels[0])
        log.setLevel(levels[1])
        handler.close()
