"""Predictions of several forms of one model, compared: accuracy, agreement, confusion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from edgesmith.pipeline.errors import DataError
from edgesmith.pipeline.results import AccuracyRow, Confusion
from edgesmith.pipeline.values import Interval, Kind, Measurement

Array = npt.NDArray[np.generic]
Labels = npt.NDArray[np.int64]


def predictions(outputs: Array) -> Labels:
    """Class of the largest output; outputs [samples, ...] (real values or codes of one scale).

    Raises:
        DataError: the output is not one value per class.
    """
    sizes = [size for size in outputs.shape[1:] if size != 1]
    if len(sizes) != 1:
        raise DataError(
            f"the model's output has shape {list(outputs.shape[1:])} per sample; a classifier has "
            "one value for each of two or more classes",
            fix="end the model in one output per class (two for a yes/no question)",
        )
    return np.asarray(np.argmax(outputs.reshape(len(outputs), -1), axis=1), np.int64)


def check_labels(labels: Labels, classes: int) -> None:
    """Labels must name classes that the model has.

    Raises:
        DataError: a label is as large as the number of outputs, or larger.
    """
    if labels.size and int(labels.max()) >= classes:
        raise DataError(
            f"data.test has label {int(labels.max())}, but the model has {classes} outputs "
            f"(classes 0 to {classes - 1})",
            fix="correct the labels in the data factory, or the model's number of outputs",
        )


def share(metric: str, hits: npt.NDArray[np.bool_], target: str) -> Measurement:
    """Percent of true entries, with the Wilson score interval (Wilson, 1927) at 95 %."""
    count, total = int(hits.sum()), int(hits.size)
    bounds = binomtest(count, total).proportion_ci(method="wilson")
    return Measurement(
        metric=metric,
        value=100.0 * count / total,
        unit="%",
        kind=Kind.MEASURED,
        target=target,
        samples=total,
        interval=Interval(100.0 * float(bounds.low), 100.0 * float(bounds.high)),
    )


def accuracy_row(form: str, predicted: Labels, labels: Labels, target: str) -> AccuracyRow:
    """Top-1 accuracy of one form of the model."""
    return AccuracyRow(form, share("accuracy", predicted == labels, target))


def confusion(
    names: Sequence[str] | None, labels: Labels, floating: Labels, deployed: Labels, classes: int
) -> Confusion:
    """Counts [true][predicted] of both forms; classes without a name get their number."""
    known = tuple(names or ())
    titles = tuple(known[i] if i < len(known) else str(i) for i in range(classes))
    return Confusion(titles, _counts(labels, floating, classes), _counts(labels, deployed, classes))


def _counts(labels: Labels, predicted: Labels, classes: int) -> tuple[tuple[int, ...], ...]:
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return tuple(tuple(int(value) for value in row) for row in table)
