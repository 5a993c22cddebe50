"""Predictors on the table of real evaluations: how they rank what they have not seen.

What they learn from is drawn uniformly, as the population is that the published search begins with.
What `linas` begins with spans all sizes instead, wide layers beside wide ones: that finds the
front, and says less about each layer alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import Row

from edgesmith.nas.predictors._choose import PROXY, chosen, rank_correlation
from edgesmith.nas.predictors._scales import scale_of
from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers._surrogate import PROXY_METRIC
from edgesmith.nas.samplers.linas import Features
from edgesmith.nas.space import Candidate, Floats
from searching.recorded import Table
from searching.samplers import KNOWN, OBJECTIVES, SEEDS, Problem, won

LEAST_TAU = 0.85
FOLDS = 5


def predictors(folder: Path) -> Iterator[Row]:
    """Rank correlation on all other candidates, of what was learned from `KNOWN` of them."""
    yield from _rows(Problem.of(Table.read()))


def _rows(problem: Problem) -> Iterator[Row]:
    everything = list(problem.rows)
    drawn: dict[int, list[Candidate]] = {}
    spread: dict[int, list[Candidate]] = {}
    for seed in SEEDS:
        generator = np.random.default_rng([seed])
        places = generator.choice(len(everything), KNOWN, replace=False)
        drawn[seed] = [everything[at] for at in places]
        spread[seed] = Record(problem.task(seed)).of_all_sizes(KNOWN, generator)
    for metric in (each.metric for each in OBJECTIVES):
        label = f"Kendall's tau of {metric}, learned from {KNOWN}"
        found = [_taus(problem, metric, drawn[seed], seed) for seed in SEEDS]
        taus, proxies = zip(*found, strict=True)
        yield Row(label, statistics.mean(taus), "", goal=LEAST_TAU, better="higher")
        yield Row(f"{label}, of the {PROXY}", statistics.mean(proxies), "")
        above = (tau > proxy for tau, proxy in found)
        yield won(f"{label}, above the {PROXY}", above)
        others = [_taus(problem, metric, spread[seed], seed)[0] for seed in SEEDS]
        yield Row(f"{label} of all sizes, as linas begins", statistics.mean(others), "")


def _taus(problem: Problem, metric: str, known: list[Candidate], seed: int) -> tuple[float, float]:
    """Of the predictors and of the proxy, on all candidates that are not known."""
    seen = set(known)
    others = [each for each in problem.rows if each not in seen]
    features = Features(Record(problem.task(seed)), known)
    learned = scale_of(metric).forth(_column(problem, known, metric))
    fitted = chosen(features(known), learned, None, FOLDS, seed)
    actual = _column(problem, others, metric)
    proxy = _column(problem, others, PROXY_METRIC)
    return (
        rank_correlation(fitted.predict(features(others)), actual),
        rank_correlation(proxy, actual),
    )


def _column(problem: Problem, candidates: list[Candidate], metric: str) -> Floats:
    return np.array([problem.rows[each][metric] for each in candidates])
