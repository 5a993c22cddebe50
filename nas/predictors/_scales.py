"""On what scale a metric is learned: that on which choices come closest to adding up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgesmith.nas.space import Floats
from edgesmith.nas.values import ACCURACY, LOSS

_MARGIN = 0.2  # percent: all and none right have odds too
_LEAST = 1e-6  # nats: no loss has a logarithm too


@dataclass(frozen=True)
class Scale:
    """Metrics as they are learned, and back; neither changes an order."""

    forth: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


def scale_of(metric: str) -> Scale:
    """Accuracy by the logarithm of its odds, since a choice multiplies errors, and loss by its own;
    others as they are.

    Near its ceiling accuracy hardly moves, whatever is chosen: on its own scale what differs there
    is lost beside what differs below.
    """
    return {ACCURACY: _ODDS, LOSS: _LOGARITHM}.get(metric, _PLAIN)


def _odds(percent: Floats) -> Floats:
    inside = percent.clip(0.0, 100.0)
    return np.log((inside + _MARGIN) / (100.0 - inside + _MARGIN))


def _percent(odds: Floats) -> Floats:
    right = 1.0 / (1.0 + np.exp(-odds))
    return (100.0 + 2 * _MARGIN) * right - _MARGIN


_ODDS = Scale(_odds, _percent)
_LOGARITHM = Scale(lambda values: np.log(values.clip(_LEAST)), np.exp)
_PLAIN = Scale(lambda values: values, lambda values: values)
