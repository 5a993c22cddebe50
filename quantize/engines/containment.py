"""Running a package that logs, warns, draws random numbers and leaves files: none of it stays."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


@contextmanager
def contained() -> Iterator[Path]:
    """A temporary folder, which is also where temporary files go; afterwards all is as before.

    Within, nothing is logged and no warning is shown. Restored afterwards: the environment,
    torch's threads and default type, the states of all random generators.
    """
    disabled, temporary = logging.root.manager.disable, tempfile.tempdir
    environment = dict(os.environ)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    states = random.getstate(), np.random.get_state()
    with (
        tempfile.TemporaryDirectory(prefix="edgesmith-engine-") as folder,
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = temporary
            logging.disable(disabled)
            os.environ.clear()
            os.environ.update(environment)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            random.setstate(states[0])
            np.random.set_state(states[1])
