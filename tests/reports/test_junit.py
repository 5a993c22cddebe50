"""JUnit XML: read back with an XML parser, whatever the names are."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.results import DeploymentResult
from edgesmith.reports.junit import junit_xml
from edgesmith.reports.text import visible
from tests.reports.sample import HOSTILE, Sample, bare_result, sample_result


def suite_of(result: DeploymentResult) -> ET.Element:
    root = ET.fromstring(junit_xml(result))  # noqa: S314 - our own output
    (suite,) = root
    assert root.tag == "testsuites"
    return suite


def outcomes(suite: ET.Element) -> dict[str, str]:
    return {
        case.get("name", ""): next((child.tag for child in case if child.tag != "system-out"), "ok")
        for case in suite.iter("testcase")
    }


def test_one_case_per_budget_and_for_parity_and_agreement() -> None:
    suite = suite_of(sample_result())
    assert suite.get("name") == "edgesmith.mnist-cnn.cpu-litert"
    assert outcomes(suite) == {
        "budget: accuracy drop": "ok",
        "budget: latency p90": "ok",
        "budget: model size": "ok",
        "parity": "ok",
        "agreement": "ok",
    }


def test_failures_carry_messages() -> None:
    suite = suite_of(sample_result(Sample(ok=False)))
    failures = {case.get("name"): case.find("failure") for case in suite.iter("testcase")}
    budget, parity = failures["budget: latency p90"], failures["parity"]
    assert budget is not None
    assert parity is not None
    assert budget.get("message") == "Latency p90 is 0.223 ms, limit at most 0.200 ms"
    assert "scale 0.0123 became 0.0124" in (parity.text or "")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "2", "0")


def test_agreement_case_carries_its_budget() -> None:
    result = sample_result()
    checks = [replace(check, met="agreement" not in check.name) for check in result.budgets]
    found = outcomes(suite_of(replace(result, ok=False, budgets=tuple(checks))))
    assert found["agreement"] == "failure"
    assert "budget: prediction agreement" not in found


def test_budgets_that_were_not_checked_fail() -> None:
    result = sample_result()
    checks = [replace(check, value=None, met=False) for check in result.budgets]
    suite = suite_of(replace(result, ok=False, budgets=tuple(checks)))
    failures = [case.get("message") for case in suite.iter("failure")]
    assert "Latency p90 was not checked, limit at most 5.00 ms" in failures
    assert suite.get("failures") == "4"


def test_missing_parts_are_skipped_visibly() -> None:
    suite = suite_of(bare_result())
    assert outcomes(suite) == {"parity": "skipped", "agreement": "skipped"}
    assert suite.get("skipped") == "2"


def test_an_unexplained_failure_does_not_show_green() -> None:
    suite = suite_of(replace(bare_result(), ok=False))
    assert outcomes(suite)["verdict"] == "error"
    assert suite.get("errors") == "1"


def test_properties_hold_figures_with_all_digits_and_their_kind() -> None:
    result = sample_result()
    assert result.latency is not None
    suite = suite_of(result)
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    median = result.latency.deployed.median
    assert properties["deployed latency median"] == f"{median.value!r} ms (measured, n = 400)"
    assert properties["largest live activations"] == "31360 bytes (estimated, n = 1)"
    assert properties["version torch"] == "2.13.0"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_survive(name: str) -> None:
    result = sample_result(Sample(ok=False))
    assert result.parity is not None
    rows = (replace(result.parity.rows[-1], tensor=name, same=False), *result.parity.rows[:-1])
    suite = suite_of(replace(result, name=name, parity=replace(result.parity, rows=rows)))
    assert suite.get("name") == f"edgesmith.{visible(name)}.cpu-litert"
    failure = suite.find("testcase[@name='parity']/failure")
    assert failure is not None
    assert visible(name, lines=True) in (failure.text or "")


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_gives_well_formed_xml(text: str) -> None:
    result = bare_result()
    provenance = replace(result.provenance, versions={text: text})
    suite_of(replace(result, name=text, target=text, provenance=provenance))


def test_the_same_result_gives_the_same_text() -> None:
    assert junit_xml(sample_result()) == junit_xml(sample_result())
