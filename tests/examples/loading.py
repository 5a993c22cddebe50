"""Example code, imported as the runner imports it; and the data folder, or a visible skip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from edgesmith.pipeline.factories import resolve_factory

EXAMPLES = Path(__file__).parents[2] / "examples"

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def example(name: str, place: str) -> Any:
    """A function or class of an example: `example("mnist", "data.py:split")`."""
    return resolve_factory(place, EXAMPLES / name)


def data_folder() -> Path:
    """The folder with models and data too large for the project; skips the test without it."""
    folder = os.environ.get("EDGESMITH_DATA", "")
    if not folder:
        pytest.skip("EDGESMITH_DATA is not set")
    return Path(folder)


@torch.no_grad()
def outputs(model: nn.Module, inputs: Floats) -> Floats:
    """What a model in evaluation mode gives, in batches."""
    batches = [model.eval()(batch) for batch in torch.from_numpy(inputs).split(250)]
    values: Floats = torch.cat(batches).numpy()
    return values


def accuracy(model: nn.Module, inputs: Floats, labels: Labels) -> float:
    """Share of samples classified right."""
    return float((outputs(model, inputs).argmax(1) == labels).mean())
