"""The whole quadratic form of the Hessian over layers and formats, terms between layers included.

    rise(policy) = 1/2 * sum_i,j dW_i^T H dW_j
                 = sum_i 1/2 dW_i^T H dW_i + sum_i<j dW_i^T H dW_j

dW_i is layer i's perturbation in its format. The first sum are the layers' own sensitivities, the
second are the cross terms that sums over layers leave out. One product H dW per layer and format
gives a whole row. The matrix is made positive semidefinite by dropping negative eigenvalues, so
that no combination is predicted to lower the loss.

Source: Deng et al., "Mixed-Precision Quantization with Cross-Layer Dependencies"
(CLADO), arXiv:2307.05657; they take differences of losses where we take
products.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.stage import Progress
from edgesmith.quantize.sensitivity.landscape import Landscape
from edgesmith.quantize.sensitivity.subject import Weights
from edgesmith.quantize.sensitivity.values import CrossTerm

Matrix = npt.NDArray[np.float64]
Entry = tuple[str, str]
"""Layer and format."""


def quadratic_form(
    field: Landscape, perturbations: Mapping[str, Weights], progress: Progress
) -> tuple[tuple[Entry, ...], Matrix]:
    """Entries and the matrix dW_i^T H dW_j over them, symmetric and positive semidefinite.

    Args:
        perturbations: format -> layer -> dW.
    """
    entries = tuple((layer, name) for name, each in perturbations.items() for layer in each)
    matrix = np.zeros((len(entries), len(entries)))
    for row, (layer, name) in enumerate(progress.track(entries, "Hessian products")):
        product = field.hessian_product({layer: perturbations[name][layer]})
        for column, (other, wanted) in enumerate(entries):
            step = perturbations[wanted][other].double()
            matrix[row, column] = float((step * product[other].double()).sum())
    return entries, positive_part((matrix + matrix.T) / 2)


def positive_part(matrix: Matrix) -> Matrix:
    """The nearest positive semidefinite matrix to a symmetric one, in the Frobenius norm."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def own_terms(entries: tuple[Entry, ...], matrix: Matrix) -> dict[Entry, float]:
    """Layer and format -> rise with that layer alone."""
    return {entry: 0.5 * float(matrix[row, row]) for row, entry in enumerate(entries)}


def cross_terms(entries: tuple[Entry, ...], matrix: Matrix) -> tuple[CrossTerm, ...]:
    """What every two layers add to the sum of their own terms."""
    order = {layer: number for number, layer in enumerate(dict.fromkeys(e[0] for e in entries))}
    return tuple(
        CrossTerm(*first, *second, float(matrix[row, column]))
        for row, first in enumerate(entries)
        for column, second in enumerate(entries)
        if order[first[0]] < order[second[0]]
    )
