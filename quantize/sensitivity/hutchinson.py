"""Mean Hessian trace times the perturbation's energy, as HAWQ-V2 and HAWQ-V3 have it.

    rise(layer) = 1/2 * trace(H_layer) / n_layer * ||Q(W) - W||^2
    trace(H_layer) = E[v^T H v],  v uniform over {-1, 1}^n

Exact when the perturbation is white: its direction has nothing to do with the Hessian's.
One product H v with a probe over all layers serves every layer: blocks of v are independent, so
v_i^T (H v)_i has the expectation trace(H_ii).

Sources: Dong et al., "HAWQ-V2", arXiv:1911.03852; Yao et al., "HAWQ-V3",
arXiv:2011.10680; Hutchinson, 1990, for the estimator. They leave out the factor 1/2,
which changes no choice; with it, the figure is the rise of the loss itself.
"""

from __future__ import annotations

import torch

from edgesmith.pipeline.stage import Progress
from edgesmith.quantize.sensitivity.landscape import Landscape
from edgesmith.quantize.sensitivity.subject import Weights


def traces(field: Landscape, probes: int, seed: int, progress: Progress) -> dict[str, float]:
    """Trace of the Hessian's diagonal block of every layer; not negative where H is not."""
    generator = torch.Generator().manual_seed(seed)
    shapes = field.weights()
    totals = dict.fromkeys(shapes, 0.0)
    for _ in progress.track(range(probes), "Hessian trace"):
        probe = {
            name: torch.randint(0, 2, each.shape, generator=generator).float() * 2 - 1
            for name, each in shapes.items()
        }
        product = field.hessian_product(probe)
        for name, each in probe.items():
            totals[name] += float((each.double() * product[name].double()).sum())
    return {name: total / probes for name, total in totals.items()}


def rises(found: dict[str, float], perturbation: Weights) -> dict[str, float]:
    """Layer -> estimated rise of the loss for a perturbation, given the traces."""
    return {
        name: 0.5 * max(found[name], 0.0) / each.numel() * float(each.double().square().sum())
        for name, each in perturbation.items()
    }
