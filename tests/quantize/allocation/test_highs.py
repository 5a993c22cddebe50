"""What the solver prints stays out of the process's output."""

from __future__ import annotations

import ctypes
import os

import pytest
from scipy import optimize

from edgesmith.quantize.allocation.highs import milp


def test_nothing_of_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy(*_: object, **options: object) -> object:
        os.write(1, b"at once")
        ctypes.CDLL(None).puts(b"from the buffer of C")
        return options

    monkeypatch.setattr(optimize, "milp", noisy)
    print("before")
    assert milp([1], options=3) == {"options": 3}
    print("after")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"


def test_errors_leave_the_output_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("no such program")

    monkeypatch.setattr(optimize, "milp", failing)
    with pytest.raises(ValueError, match="no such program"):
        milp()
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"


def test_it_works_without_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: int) -> int:
        raise OSError("bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    assert milp([1.0], bounds=optimize.Bounds(2, 3)).x == [2.0]
