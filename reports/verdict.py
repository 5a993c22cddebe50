"""Whether a deployment passes, and in words why not; the HTML report and JUnit say the same."""

from __future__ import annotations

from dataclasses import dataclass

from edgesmith.pipeline.results import BudgetCheck, DeploymentResult
from edgesmith.reports.text import label, quantity, visible


@dataclass(frozen=True)
class Verdict:
    """`reasons` is empty exactly when `ok`."""

    ok: bool
    headline: str
    reasons: tuple[str, ...]


def budget_sentence(check: BudgetCheck) -> str:
    """`Latency p90 is 5.20 ms, limit at most 5.00 ms`."""
    bound = "at most" if check.better == "lower" else "at least"
    unit = visible(check.unit)
    found = "was not checked" if check.value is None else f"is {quantity(check.value, unit)}"
    return f"{label(check.name, check.unit)} {found}, limit {bound} {quantity(check.limit, unit)}"


def parity_sentence(result: DeploymentResult) -> str:
    """How many tensors are identical; empty without a parity report."""
    if result.parity is None:
        return ""
    compared, different = result.parity.compared, result.parity.different
    if different == 0:
        return f"all {compared:,} tensors shipped exactly as they were scored"
    return f"{different:,} of {compared:,} tensors shipped differ from those that were scored"


def judge(result: DeploymentResult) -> Verdict:
    """The verdict of a result.

    A result that is not ok although nothing recorded in it failed stays failed,
    and says so: a report must never look better than the run was.
    """
    reasons = [budget_sentence(check) for check in result.budgets if not check.met]
    if result.parity is not None and result.parity.different:
        reasons.append(parity_sentence(result))
    if not result.ok and not reasons:
        reasons.append("The run was recorded as failed without a missed budget")
    if reasons:
        return Verdict(False, _failed_headline(result), tuple(reasons))
    return Verdict(True, _passed_headline(result), ())


def _passed_headline(result: DeploymentResult) -> str:
    total = len(result.budgets)
    if total == 0:
        return "No budget was set"
    return "The budget is met" if total == 1 else f"All {total} budgets are met"


def _failed_headline(result: DeploymentResult) -> str:
    unchecked = sum(check.value is None for check in result.budgets)
    missed = sum(not check.met for check in result.budgets) - unchecked
    differs = result.parity is not None and result.parity.different > 0
    counts = {"missed": missed, "not checked": unchecked}
    said = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not said:
        return "The shipped integers differ" if differs else "The run failed"
    number, _, rest = said.partition(" ")
    also = ", and the shipped integers differ" if differs else ""
    return f"{number} of {len(result.budgets)} budgets {rest}{also}"
