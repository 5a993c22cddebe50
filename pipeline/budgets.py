"""Budgets of a spec against what a deployment found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgesmith.pipeline.results import BudgetCheck
from edgesmith.pipeline.values import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesmith.pipeline.results import AccuracyRow, Device, Latency
    from edgesmith.pipeline.spec import Budgets
    from edgesmith.pipeline.values import Measurement

NEED_FLOAT = ("accuracy_drop_points", "agreement_percent")
"""Budgets that compare with a float model; a spec with a model file cannot set them."""
_NO_FLOAT = "there is no float model to compare with"
_NO_DEVICE = "this target has no device with flash and RAM of its own"


@dataclass(frozen=True)
class _Budget:
    """One budget that the spec sets, and what was found; `why_not` where nothing was."""

    key: str
    name: str
    limit: float
    unit: str
    better: Literal["lower", "higher"]
    value: float | None
    kind: Kind | None
    why_not: str

    def check(self) -> BudgetCheck:
        return BudgetCheck(
            self.name, self.limit, self.value, self.unit, self.better, self._met(), self.kind
        )

    def _met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


@dataclass(frozen=True)
class Figures:
    """What a deployment found, as far as budgets ask for it."""

    accuracy: tuple[AccuracyRow, ...]
    agreement: Measurement | None
    latency: Latency | None
    size: Measurement
    device: Device | None = None


def check_budgets(
    budgets: Budgets, figures: Figures
) -> tuple[tuple[BudgetCheck, ...], tuple[str, ...]]:
    """One check per budget, and a note for every budget that could not be checked.

    What cannot be checked is not met: a budget is a demand, and silence would pass it. A device
    with a known flash and RAM sets two budgets by itself.
    """
    found = (*_found(budgets, figures), *_fit(figures.device))
    notes = tuple(f"{b.key} was not checked: {b.why_not}" for b in found if b.value is None)
    return tuple(budget.check() for budget in found), notes


def _found(budgets: Budgets, figures: Figures) -> Iterator[_Budget]:
    device = figures.device
    if budgets.accuracy_drop_points is not None:
        drop, limit = _drop(figures.accuracy), budgets.accuracy_drop_points
        kind = None if drop is None else Kind.MEASURED
        yield _Budget(
            "accuracy_drop_points", "accuracy drop", limit, "points", "lower", drop, kind, _NO_FLOAT
        )
    if budgets.agreement_percent is not None:
        value, kind = _figure(figures.agreement)
        limit, name = budgets.agreement_percent, "prediction agreement"
        yield _Budget("agreement_percent", name, limit, "%", "higher", value, kind, _NO_FLOAT)
    if budgets.latency_ms is not None:
        percentile, limit = budgets.latency_ms.percentile, budgets.latency_ms.max
        name, why_not = f"latency {percentile}", "this target cannot be timed here"
        timed = getattr(figures.latency.deployed, percentile) if figures.latency else None
        if timed is None and device is not None:
            # A mean over samples: an estimate has no percentiles.
            name, timed = "time, estimated", device.time
        value, kind = _figure(timed)
        yield _Budget("latency_ms", name, limit, "ms", "lower", value, kind, why_not)
    for key, name, most, figure in (
        ("size_bytes", "model size", budgets.size_bytes, figures.size),
        ("flash_bytes", "flash", budgets.flash_bytes, device.flash if device else None),
        ("ram_bytes", "RAM", budgets.ram_bytes, device.ram if device else None),
    ):
        if most is not None:
            value, kind = _figure(figure)
            yield _Budget(key, name, most, "bytes", "lower", value, kind, _NO_DEVICE)


def _fit(device: Device | None) -> Iterator[_Budget]:
    """What the device has, as budgets."""
    if device is None:
        return
    for key, name, limit, figure in (
        ("flash", "fits in flash", device.flash_limit, device.flash),
        ("ram", "fits in RAM", device.ram_limit, device.ram),
    ):
        if limit is not None:
            yield _Budget(key, name, limit, "bytes", "lower", figure.value, figure.kind, "")


def _figure(found: Measurement | None) -> tuple[float | None, Kind | None]:
    return (None, None) if found is None else (found.value, found.kind)


def _drop(accuracy: tuple[AccuracyRow, ...]) -> float | None:
    """Percentage points that the deployed model loses against float."""
    found = {row.form: row.accuracy.value for row in accuracy}
    if "float" not in found or "deployed" not in found:
        return None
    # Rounded: a difference of two percentages must not miss its limit by 1e-14.
    return round(found["float"] - found["deployed"], 6)
