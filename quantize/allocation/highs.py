"""SciPy's mixed-integer solver, HiGHS, without what it prints.

One of its heuristics leaves a line on the process's standard output, whatever `disp` says (SciPy
1.17).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scipy import optimize

_STDOUT = 1


def milp(*arguments: Any, **options: Any) -> optimize.OptimizeResult:
    """`scipy.optimize.milp`; nothing else may write to the standard output meanwhile."""
    with _silent():
        return optimize.milp(*arguments, **options)


@contextmanager
def _silent() -> Iterator[None]:
    sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # closed: nothing can be printed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
        ctypes.CDLL(None).fflush(None)  # what C has buffered goes where it was meant to go
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(nowhere)
