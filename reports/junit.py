"""JUnit XML for continuous integration: one suite per target, one case per thing that can fail.

The cases are every budget, the parity of the shipped integers, and the agreement
of predictions (which carries its budget where the spec sets one). Attributes and
nesting follow the format that Jenkins and GitLab read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from edgesmith.pipeline.results import BudgetCheck, DeploymentResult, Device
from edgesmith.pipeline.values import Measurement
from edgesmith.reports.allocation import chosen_point, kind_of
from edgesmith.reports.formats import totals
from edgesmith.reports.text import visible
from edgesmith.reports.verdict import budget_sentence, parity_sentence

Outcome = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True)
class _Case:
    name: str
    outcome: Outcome
    message: str
    detail: str = ""


def junit_xml(result: DeploymentResult) -> str:
    """A result as one test suite; the same result gives the same text.

    Returns:
        An XML 1.0 document. Characters that XML cannot hold are written as escapes.
    """
    seconds = sum(seconds for _, seconds, _ in result.provenance.stages)
    suite = _suite_name(result.name, result.target)
    return _document(suite, list(_cases(result)), list(_properties(result)), seconds)


def junit_skipped(name: str, target: str, reason: str) -> str:
    """A target that was skipped as one test suite with one skipped case."""
    case = _Case("deployment", "skipped", f"skipped: {reason}")
    return _document(_suite_name(name, target), [case], [("target", target)], 0.0)


def _document(
    name: str, cases: list[_Case], properties: list[tuple[str, str]], seconds: float
) -> str:
    counts = {
        "tests": str(len(cases)),
        "failures": _tally(cases, "failure"),
        "errors": _tally(cases, "error"),
        "skipped": _tally(cases, "skipped"),
        "time": f"{seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": "edgesmith", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts})
    listed = ET.SubElement(suite, "properties")
    for what, value in properties:
        ET.SubElement(listed, "property", {"name": visible(what), "value": visible(value)})
    for case in cases:
        _append(suite, case, name)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite_name(name: str, target: str) -> str:
    return f"edgesmith.{visible(name)}.{visible(target)}"


def _tally(cases: list[_Case], outcome: Outcome) -> str:
    return str(sum(case.outcome == outcome for case in cases))


def _cases(result: DeploymentResult) -> Iterator[_Case]:
    found = [_budget(check) for check in result.budgets if not _is_agreement(check)]
    found += [_parity(result), _agreement(result)]
    yield from found
    if not result.ok and not any(case.outcome in {"failure", "error"} for case in found):
        # A run that failed for a reason not recorded here must not show green.
        yield _Case("verdict", "error", "the run was recorded as failed without a missed budget")


def _is_agreement(check: BudgetCheck) -> bool:
    return "agreement" in check.name


def _budget(check: BudgetCheck) -> _Case:
    outcome: Outcome = "passed" if check.met else "failure"
    return _Case(f"budget: {check.name}", outcome, budget_sentence(check))


def _parity(result: DeploymentResult) -> _Case:
    parity = result.parity
    if parity is None:
        return _Case("parity", "skipped", "no parity report: there is no search to compare with")
    different = [row for row in parity.rows if not row.same]
    detail = "\n".join(f"{row.role} {row.tensor}: {row.difference}" for row in different)
    outcome: Outcome = "failure" if parity.different or different else "passed"
    return _Case("parity", outcome, parity_sentence(result), detail)


def _agreement(result: DeploymentResult) -> _Case:
    checks = [check for check in result.budgets if _is_agreement(check)]
    missed = [budget_sentence(check) for check in checks if not check.met]
    if missed:
        return _Case("agreement", "failure", "; ".join(missed))
    if result.agreement is None:
        return _Case("agreement", "skipped", "agreement with float was not found out")
    return _Case("agreement", "passed", _figure(result.agreement))


def _append(suite: ET.Element, case: _Case, classname: str) -> None:
    element = ET.SubElement(
        suite, "testcase", {"classname": classname, "name": visible(case.name), "time": "0"}
    )
    message = visible(case.message)
    if case.outcome == "passed":
        ET.SubElement(element, "system-out").text = message
        return
    problem = ET.SubElement(element, case.outcome, {"message": message})
    if case.outcome != "skipped":
        problem.set("type", "edgesmith." + case.name.split(":", 1)[0])
        problem.text = visible(case.detail, lines=True) or message


def _properties(result: DeploymentResult) -> Iterator[tuple[str, str]]:
    provenance = result.provenance
    yield "target", result.target
    yield "verdict", "pass" if result.ok else "fail"
    for row in result.accuracy:
        yield f"accuracy {row.form}", _figure(row.accuracy)
    if result.agreement:
        yield "agreement", _figure(result.agreement)
    if result.latency:
        for series in filter(None, (result.latency.deployed, result.latency.float_baseline)):
            for found in (series.median, series.p90, series.p99):
                yield f"{series.form} {found.metric}", _figure(found)
    for found in (*result.size, *result.memory):
        yield found.metric, _figure(found)
    if result.device:
        yield from _device(result.device)
    yield from _compression(result)
    yield "spec sha256", provenance.spec_sha256
    yield "edgesmith version", provenance.edgesmith_version
    for name, value in sorted(provenance.versions.items()):
        yield f"version {name}", value


def _compression(result: DeploymentResult) -> Iterator[tuple[str, str]]:
    weights = totals(result.layers)
    if weights is not None:
        yield "weights", f"{weights.weights} in {weights.code_bytes} bytes (measured)"
        yield "weights, zero", f"{weights.zeros} (measured)"
        formats = ", ".join(f"{name} x {n}" for name, n in weights.by_format.items())
        yield "weights, formats of layers", formats
    search = result.search
    if search is not None and search.chosen is not None:
        for metric, value in search.trials[search.chosen].metrics.items():
            yield f"search {metric}", f"{value!r} {search.units[metric]} ({search.kinds[metric]})"
    pruning = result.pruning
    if pruning is not None:
        for when, found in (("before", pruning.before), ("after", pruning.after)):
            yield f"pruning cost {when}", f"{found.value!r} {found.unit} ({found.kind.value})"
        yield "pruning goal", "reached" if pruning.reached else "not reached"
    if result.allocation is not None and (chosen := chosen_point(result.allocation)):
        for resource, value in chosen.costs.items():
            kind = kind_of(result.allocation, resource).value
            yield f"allocation {resource}", f"{value!r} ({kind})"
    if result.training is not None:
        change = result.training.before, result.training.after
        yield "quantization-aware training", f"{change[0]!r} -> {change[1]!r} % (measured)"


def _device(device: Device) -> Iterator[tuple[str, str]]:
    figures = {
        "flash": device.flash,
        "RAM": device.ram,
        "arena": device.arena,
        "stack": device.stack,
        "instructions": device.instructions,
        "cycles": device.cycles,
        "time": device.time,
        "cycles per MAC": device.cycles_per_mac,
    }
    yield "device core", device.core
    yield "device emulator", device.emulator
    for name, found in figures.items():
        if found is not None:
            yield f"device {name}", _figure(found)


def _figure(found: Measurement) -> str:
    """Machine readers want every digit, and the kind with it."""
    return f"{found.value!r} {found.unit} ({found.kind.value}, n = {found.samples})"
