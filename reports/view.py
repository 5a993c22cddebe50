"""From a result to what a report says: formatted strings and badges, no markup, no decisions left.

The view model is pure and complete: a template only places its strings. Every
figure is a `Number`, which carries the kind of its `Measurement`; two figures
of different kinds are never combined into a third.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from edgesmith.pipeline.results import (
    Artifact,
    BudgetCheck,
    DeploymentResult,
    Latency,
    LatencySeries,
    Parity,
    Provenance,
)
from edgesmith.reports.allocation import AllocationView, allocation_view
from edgesmith.reports.device import DeviceView, device_glance, device_view
from edgesmith.reports.formats import FormatsView, formats_view
from edgesmith.reports.numbers import (
    Named,
    Number,
    against_float,
    conditions_of,
    number,
    points_from,
)
from edgesmith.reports.pruning import PruningView, pruning_view
from edgesmith.reports.search import SearchView, search_view
from edgesmith.reports.tables import (
    NOTHING,
    ClassesView,
    LayersView,
    Pairs,
    classes_view,
    layers_view,
    pairs,
)
from edgesmith.reports.text import byte_size, count, exact, form_name, label, quantity, visible
from edgesmith.reports.training import TrainingView, training_view
from edgesmith.reports.verdict import Verdict, judge, parity_sentence

UNSTATED = "kind not stated"


@dataclass(frozen=True)
class BudgetView:
    """One budget: what was found (None: not checked), the limit, and the room left."""

    name: str
    found: Number | None
    limit: str
    margin: str
    verdict: Literal["met", "missed", "not checked"]


@dataclass(frozen=True)
class SeriesView:
    """One row of the latency table. `conditions` holds what the setting does not say."""

    name: str
    median: Number
    p90: Number
    p99: Number
    runs: str
    conditions: str


@dataclass(frozen=True)
class LatencyView:
    """Both timed models and how they were timed."""

    rows: tuple[SeriesView, ...]
    speedup: Number | None
    setting: str


@dataclass(frozen=True)
class ParityLine:
    """One tensor of the parity report."""

    tensor: str
    role: str
    dtype: str
    elements: str
    element_count: int
    same: bool
    difference: str


@dataclass(frozen=True)
class ParityView:
    """The parity report, differences first."""

    sentence: str
    same: bool
    rows: tuple[ParityLine, ...]


@dataclass(frozen=True)
class ArtifactView:
    """One file; `href` is empty where a link would leave the run's folder tree."""

    name: str
    path: str
    href: str
    size: str
    exact: str
    sha256: str


@dataclass(frozen=True)
class StageView:
    """One stage; `share` in 0..1 of the longest one's time."""

    name: str
    seconds: str
    cached: bool
    share: float


@dataclass(frozen=True)
class ProvenanceView:
    """What it takes to make the same files again."""

    spec_path: str
    spec_text: str
    spec_sha256: str
    version: str
    machine: Pairs
    versions: Pairs
    digests: Pairs
    stages: tuple[StageView, ...]


@dataclass(frozen=True)
class ReportView:
    """Everything that one HTML report says, in its order."""

    name: str
    target: str
    target_title: str
    verdict: Verdict
    glance: tuple[Named, ...]
    notes: tuple[str, ...]
    budgets: tuple[BudgetView, ...]
    accuracy: tuple[Named, ...]
    agreement: Number | None
    device: DeviceView | None
    latency: LatencyView | None
    sizes: tuple[Named, ...]
    memory: tuple[Named, ...]
    search: SearchView | None
    pruning: PruningView | None
    training: TrainingView | None
    allocation: AllocationView | None
    formats: FormatsView | None
    layers: LayersView
    classes: ClassesView | None
    parity: ParityView | None
    artifacts: tuple[ArtifactView, ...]
    provenance: ProvenanceView


def build_view(result: DeploymentResult) -> ReportView:
    """The view model of a result."""
    shown = (result.search, result.pruning, result.training)
    told = {said for found in shown if found for said in found.summary()}
    return ReportView(
        name=visible(result.name),
        target=visible(result.target),
        target_title=visible(result.target_title),
        verdict=judge(result),
        glance=_glance(result),
        notes=tuple(visible(note) for note in result.notes if note not in told),
        budgets=tuple(_budget(check) for check in result.budgets),
        accuracy=_accuracy(result),
        agreement=number(result.agreement) if result.agreement else None,
        device=device_view(result.device, result.layers) if result.device else None,
        latency=_latency(result.latency) if result.latency else None,
        sizes=against_float(result.size),
        memory=against_float(result.memory),
        search=search_view(result.search) if result.search else None,
        pruning=pruning_view(result.pruning) if result.pruning else None,
        training=training_view(result.training) if result.training else None,
        allocation=allocation_view(result.allocation) if result.allocation else None,
        formats=formats_view(result),
        layers=layers_view(result),
        classes=classes_view(result.confusion) if result.confusion else None,
        parity=_parity(result, result.parity) if result.parity else None,
        artifacts=tuple(_artifact(artifact) for artifact in result.artifacts),
        provenance=_provenance(result.provenance),
    )


def _glance(result: DeploymentResult) -> tuple[Named, ...]:
    """The few figures that most readers come for."""
    found = [one for one in _accuracy(result) if one.lead]
    found = [replace(one, name="Accuracy, deployed") for one in found]
    if result.agreement:
        agreement = number(result.agreement)
        found.append(Named("Predictions", agreement, "agree with float"))
    if result.latency and result.latency.speedup:
        speedup = number(result.latency.speedup)
        found.append(Named("Speed", speedup, "against float, at the median"))
    if result.device:
        return (*found, *device_glance(result.device))
    shrunk = [one for one in against_float(result.size) if one.lead]
    return (*found, *shrunk[:1])


def _budget(check: BudgetCheck) -> BudgetView:
    unit = visible(check.unit)
    name = label(check.name, check.unit)
    lower = check.better == "lower"
    limit = f"{'at most' if lower else 'at least'} {quantity(check.limit, unit)}"
    if check.value is None:
        return BudgetView(name, None, limit, NOTHING, "not checked")
    room = check.limit - check.value if lower else check.value - check.limit
    if room == 0:
        margin = "exactly at the limit"
    else:
        room_unit = "points" if unit == "%" else unit
        margin = f"{quantity(abs(room), room_unit)} {'to spare' if room > 0 else 'too far'}"
    kind = check.kind.value if check.kind else UNSTATED
    found = Number(quantity(check.value, unit), kind, exact(check.value, unit))
    return BudgetView(name, found, limit, margin, "met" if check.met else "missed")


def _accuracy(result: DeploymentResult) -> tuple[Named, ...]:
    baseline = next((row.accuracy for row in result.accuracy if row.form == "float"), None)
    return tuple(
        Named(
            name=form_name(row.form),
            number=number(row.accuracy),
            compared=points_from(row.accuracy, baseline),
            lead=row.form == "deployed",
        )
        for row in result.accuracy
    )


def _latency(latency: Latency) -> LatencyView:
    series = [latency.deployed]
    if latency.float_baseline:
        series.append(latency.float_baseline)
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    interleaved = "both models timed in turn in one run, " if latency.float_baseline else ""
    return LatencyView(
        rows=tuple(_series(one) for one in series),
        speedup=number(latency.speedup) if latency.speedup else None,
        setting=f"{interleaved}one sample per call, {threads}, {count(latency.warmups)} warm-ups",
    )


def _series(series: LatencySeries) -> SeriesView:
    return SeriesView(
        name=form_name(series.form),
        median=number(series.median),
        p90=number(series.p90),
        p99=number(series.p99),
        runs=count(len(series.samples_ms)),
        conditions=conditions_of(series.median, said=("threads", "warmups")),
    )


def _parity(result: DeploymentResult, parity: Parity) -> ParityView:
    lines = tuple(
        ParityLine(
            tensor=visible(row.tensor),
            role=visible(row.role),
            dtype=visible(row.dtype),
            elements=count(row.elements),
            element_count=row.elements,
            same=row.same,
            difference=visible(row.difference),
        )
        for row in sorted(parity.rows, key=lambda row: row.same)
    )
    sentence = parity_sentence(result)
    return ParityView(f"{sentence[:1].upper()}{sentence[1:]}.", parity.different == 0, lines)


def _artifact(artifact: Artifact) -> ArtifactView:
    return ArtifactView(
        name=visible(artifact.name),
        path=visible(artifact.path),
        href=_relative_href(artifact.path),
        size=byte_size(artifact.bytes),
        exact=f"{count(artifact.bytes)} bytes",
        sha256=visible(artifact.sha256),
    )


def _relative_href(path: str) -> str:
    """A link that stays on this disk: schemes are quoted away, absolute paths get no link."""
    if not path or path.startswith(("/", "\\")):
        return ""
    return quote(path.encode("utf-8", "backslashreplace"), safe="/")


def _provenance(found: Provenance) -> ProvenanceView:
    longest = max((seconds for _, seconds, _ in found.stages), default=0.0)
    return ProvenanceView(
        spec_path=visible(found.spec_path),
        spec_text=visible(found.spec_text, lines=True),
        spec_sha256=visible(found.spec_sha256),
        version=visible(found.edgesmith_version),
        machine=pairs(found.machine),
        versions=pairs(found.versions),
        digests=pairs(found.digests),
        stages=tuple(
            StageView(
                visible(name),
                quantity(seconds, "s"),
                cached,
                round(seconds / longest, 4) if longest > 0 else 0.0,
            )
            for name, seconds, cached in found.stages
        ),
    )
