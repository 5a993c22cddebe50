"""Objectives and constraints of candidates that were not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgesmith.nas.predictors._choose import Chosen, chosen
from edgesmith.nas.predictors._scales import scale_of
from edgesmith.nas.samplers._record import metrics_of
from edgesmith.nas.samplers.base import Log
from edgesmith.nas.space import Floats
from edgesmith.nas.values import Metrics, PredictorQuality, Task

LEAST = 3
"""Measurements, without which nothing can be left out and learned from the rest."""
PROXY_METRIC = "bit-operations"
"""Computed metric that predictors are compared with: multiply-accumulates times both widths."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Predictors for each metric that has to be measured; computed metrics are exact.

    Args:
        fitted: by metric.
    """

    task: Task
    fitted: Mapping[str, Chosen]

    @classmethod
    def learned(
        cls,
        task: Task,
        features: Floats,
        metrics: Sequence[Metrics],
        computed: Sequence[Metrics],
        log: Log,
        folds: int,
    ) -> Surrogate:
        """Choose and fit predictors, and log how good they are.

        Args:
            features: [N, F] of measured candidates, N at least `LEAST`.
            metrics: [N], of the same.
            computed: [N], those that need no evaluation.
            log: is told the quality of each.
            folds: of the cross-validation.
        """
        proxy = None
        if PROXY_METRIC in computed[0]:
            proxy = np.array([each[PROXY_METRIC] for each in computed])
        fitted = {}
        for name in metrics_of(task):
            if name in computed[0]:
                continue
            values = scale_of(name).forth(np.array([each[name] for each in metrics]))
            found = chosen(features, values, proxy, folds, task.seed)
            fitted[name] = found
            log.predictors.append(
                PredictorQuality(name, len(metrics), tuple(found.fitted), found.taus)
            )
        return cls(task, fitted)

    def __call__(self, features: Floats, computed: Sequence[Metrics]) -> tuple[Floats, Floats]:
        """Losses [N, K] and violations [N] of candidates by their features [N, F]."""
        columns = {
            name: scale_of(name).back(each.predict(features)).tolist()
            for name, each in self.fitted.items()
        }
        metrics = [
            {**known, **{name: column[at] for name, column in columns.items()}}
            for at, known in enumerate(computed)
        ]
        losses = np.array([self.task.losses(each) for each in metrics])
        return losses, np.array([self.task.violation(each) for each in metrics])
