"""Sensitivities of a model by any of the methods, one file each in this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.quantize.sensitivity import (
    cross_terms,
    divergence,
    fisher,
    hutchinson,
    output_error,
)
from edgesmith.quantize.sensitivity.landscape import Landscape, landscape
from edgesmith.quantize.sensitivity.subject import Subject, Weights
from edgesmith.quantize.sensitivity.values import (
    RELATIVE,
    UNITS,
    CrossTerm,
    Sensitivities,
    Sensitivity,
    SensitivityOptions,
)

Rises = dict[str, dict[str, float]]
"""Format -> group -> rise."""


def measure(
    subject: Subject,
    weights: Sequence[str],
    activations: Sequence[str] = (),
    options: SensitivityOptions | None = None,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivities:
    """Sensitivity of every layer to every weight format, and of tied sets to activation formats.

    Args:
        weights: names of weight formats, as specs write them.
        activations: names of activation formats; nothing is measured for fewer than two.
        labels: [N] of the calibration samples, for the loss `labels`.
        seed: of probes and drawn labels.

    Raises:
        QuantizationError: an unknown format, or labels that the loss needs are missing.
    """
    options, shown = options or SensitivityOptions(), progress or SilentProgress()
    _check_comparable(options, activations)
    inputs = subject.samples[: options.samples]
    kept = None if labels is None else labels[: options.samples]
    field = landscape(subject.network, inputs, options.loss, kept, options.batch_size)
    perturbations = {name: subject.perturbation(name) for name in dict.fromkeys(weights)}
    found, cross = _weights(subject, field, perturbations, options, seed, shown)
    tied: Rises = {}
    if len(set(activations)) > 1:
        tied = {
            name: divergence.activation_rises(subject, field, name, shown)
            for name in dict.fromkeys(activations)
        }
    return Sensitivities(
        method=options.method,
        unit=RELATIVE if options.method == "output-error" else UNITS[options.loss],
        samples=len(inputs),
        seed=seed,
        weights=_listed(found),
        activations=_listed(tied),
        cross=cross,
    )


def _check_comparable(options: SensitivityOptions, activations: Sequence[str]) -> None:
    if options.method == "output-error" and len(set(activations)) > 1:
        raise QuantizationError(
            f"the method 'output-error' gives ratios of noise to signal, which do not add up with"
            f" the measured loss of the activation formats {', '.join(activations)}",
            fix="choose another method, or one activation format",
        )


def _weights(
    subject: Subject,
    field: Landscape,
    perturbations: Mapping[str, Weights],
    options: SensitivityOptions,
    seed: int,
    progress: Progress,
) -> tuple[Rises, tuple[CrossTerm, ...]]:
    if options.method == "hessian-trace":
        traces = hutchinson.traces(field, options.probes, seed, progress)
        return {name: hutchinson.rises(traces, each) for name, each in perturbations.items()}, ()
    if options.method == "fisher":
        found = fisher.information(field, seed, progress)
        return {name: fisher.rises(found, each) for name, each in perturbations.items()}, ()
    if options.method == "output-error":
        args = (field.inputs, perturbations, options.batch_size)
        return output_error.errors(subject.network, *args), ()
    if options.method == "divergence":
        return {
            name: divergence.rises(field, each, progress) for name, each in perturbations.items()
        }, ()
    entries, matrix = cross_terms.quadratic_form(field, perturbations, progress)
    own = cross_terms.own_terms(entries, matrix)
    rises: Rises = {name: {} for name in perturbations}
    for (layer, name), rise in own.items():
        rises[name][layer] = rise
    return rises, cross_terms.cross_terms(entries, matrix)


def _listed(found: Mapping[str, Mapping[str, float]]) -> tuple[Sensitivity, ...]:
    return tuple(
        Sensitivity(group, name, rise)
        for name, each in found.items()
        for group, rise in each.items()
    )
