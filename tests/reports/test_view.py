"""The view model: every figure keeps its kind, and a report never looks better than its run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import BudgetCheck, DeploymentResult, Parity, ParityRow
from edgesmith.pipeline.values import Interval, Kind
from edgesmith.reports.numbers import KINDS_DIFFER, against_float, number
from edgesmith.reports.render import render_html
from edgesmith.reports.verdict import judge
from edgesmith.reports.view import UNSTATED, build_view
from tests.reports.sample import EDGES, HOSTILE, Sample, bare_result, measured, sample_result


def test_a_result_read_back_from_json_gives_the_same_view() -> None:
    result = sample_result()
    assert build_view(from_json(DeploymentResult, to_json(result))) == build_view(result)


def test_passing_verdict() -> None:
    verdict = judge(sample_result())
    assert (verdict.ok, verdict.headline, verdict.reasons) == (True, "All 4 budgets are met", ())


def test_failing_verdict_names_the_budget_and_the_tensors() -> None:
    verdict = judge(sample_result(Sample(ok=False)))
    assert not verdict.ok
    assert verdict.headline == "1 of 4 budgets missed, and the shipped integers differ"
    assert verdict.reasons == (
        "Latency p90 is 0.223 ms, limit at most 0.200 ms",
        "1 of 52 tensors shipped differ from those that were scored",
    )


def test_a_failed_run_without_a_recorded_reason_stays_failed() -> None:
    verdict = judge(replace(bare_result(), ok=False))
    assert (verdict.ok, verdict.headline) == (False, "The run failed")
    assert verdict.reasons


@pytest.mark.parametrize("different", [0, 1])
def test_differing_tensors_fail_even_when_the_result_says_ok(different: int) -> None:
    verdict = judge(replace(bare_result(), parity=Parity(3, different, ())))
    assert verdict.ok is (different == 0)


def test_no_budget_is_said_so() -> None:
    assert judge(bare_result()).headline == "No budget was set"


def test_number_carries_everything() -> None:
    found = measured("median", 0.20431, "ms", 400, Interval(0.2, 0.21))
    shown = number(replace(found, kind=Kind.SIMULATED, conditions={"delegate": "XNNPACK"}))
    assert (shown.text, shown.kind, shown.exact) == ("0.204 ms", "simulated", "0.20431 ms")
    assert (shown.interval, shown.samples) == ("0.200 to 0.210 ms", "n = 400")
    assert shown.note == "delegate XNNPACK"


def test_latency_conditions_are_said_once() -> None:
    result = sample_result()
    assert result.latency is not None
    deployed = result.latency.deployed
    conditions = {"threads": "1", "warmups": "10", "delegate": "XNNPACK"}
    latency = replace(
        result.latency,
        deployed=replace(deployed, median=replace(deployed.median, conditions=conditions)),
    )
    view = build_view(replace(result, latency=latency)).latency
    assert view is not None
    assert [row.conditions for row in view.rows] == ["delegate XNNPACK", ""]
    assert "1 thread, 10 warm-ups" in view.setting


def test_interval_across_units_keeps_both() -> None:
    found = measured("file", 1000, "bytes", 1, Interval(900, 1100))
    assert number(found).interval == "900 bytes to 1.10 kB"


def test_accuracy_is_compared_with_float_only_within_a_kind() -> None:
    result = sample_result()
    deployed = result.accuracy[-1]
    simulated = replace(deployed, accuracy=replace(deployed.accuracy, kind=Kind.SIMULATED))
    view = build_view(replace(result, accuracy=(result.accuracy[0], deployed, simulated)))
    assert [row.compared for row in view.accuracy] == ["", "−0.10 points from float", KINDS_DIFFER]
    assert [row.lead for row in view.accuracy] == [False, True, True]


def test_sizes_find_their_float_counterpart() -> None:
    sizes = against_float(sample_result().size)
    assert [(row.name, row.compared) for row in sizes] == [
        ("Deployed file", "3.75× smaller than float"),
        ("Float file", ""),
        ("Weights and biases", ""),
    ]


@pytest.mark.parametrize(
    ("value", "kind", "compared"),
    [
        (200.0, Kind.MEASURED, "2.00× larger than float"),
        (50.0, Kind.MEASURED, "2.00× smaller than float"),
        (50.0, Kind.ESTIMATED, KINDS_DIFFER),
        (0.0, Kind.MEASURED, ""),
    ],
)
def test_ratio(value: float, kind: Kind, compared: str) -> None:
    deployed = replace(measured("deployed_file", value, "bytes", 1), kind=kind)
    rows = against_float((deployed, measured("float_file", 100, "bytes", 1)))
    assert rows[0].compared == compared


@pytest.mark.parametrize(
    ("value", "better", "margin"),
    [
        (4.0, "lower", "1.00 ms to spare"),
        (6.0, "lower", "1.00 ms too far"),
        (6.0, "higher", "1.00 ms to spare"),
        (5.0, "lower", "exactly at the limit"),
    ],
)
def test_budget_margin(value: float, better: str, margin: str) -> None:
    check = BudgetCheck("latency_ms", 5.0, value, "ms", better, met=True)
    view = build_view(replace(bare_result(), budgets=(check,))).budgets[0]
    assert view.margin == margin
    assert view.found is not None
    assert view.found.kind == UNSTATED


@pytest.mark.parametrize(
    ("unchecked", "missed", "headline"),
    [
        (1, 0, "1 of 4 budgets not checked"),
        (2, 1, "1 of 4 budgets missed and 2 not checked"),
        (0, 2, "2 of 4 budgets missed"),
    ],
)
def test_a_budget_that_was_not_checked_is_not_a_missed_one(
    unchecked: int, missed: int, headline: str
) -> None:
    result = sample_result()
    checks = [
        replace(check, met=index >= unchecked + missed, value=None if index < unchecked else 1.0)
        for index, check in enumerate(result.budgets)
    ]
    changed = replace(result, ok=not (unchecked or missed), budgets=tuple(checks))
    view = build_view(changed)
    assert view.verdict.headline == headline
    assert [budget.verdict for budget in view.budgets] == (
        ["not checked"] * unchecked + ["missed"] * missed + ["met"] * (4 - unchecked - missed)
    )
    assert all(
        (budget.found is None) == (budget.verdict == "not checked") for budget in view.budgets
    )
    assert ("not checked</td>" in render_html(changed)) == (unchecked > 0)


def test_layers_have_a_cell_triple_per_edge_and_mark_the_worst() -> None:
    result = sample_result()
    layers = build_view(result).layers
    assert layers.edges[0] == "float → fake-quantized"
    assert len(layers.edges) == len(EDGES)
    assert all(len(row.drift) == len(EDGES) for row in layers.rows)
    assert tuple(row.name for row in layers.rows if row.worst) == result.worst_layers
    assert layers.samples == "n = 64"


def test_no_difference_sorts_above_every_sqnr_and_missing_drift_has_no_key() -> None:
    first, second, *rest = sample_result().layers
    result = replace(sample_result(), layers=(first, replace(second, drift=()), *rest))
    rows = build_view(result).layers.rows
    assert rows[0].drift[3][2].text == "same"
    assert float(rows[0].drift[3][2].key) == float("inf")
    assert all(cell.key == "" for triple in rows[1].drift for cell in triple)


def test_classes_recall_and_commonest_mistake() -> None:
    view = build_view(sample_result()).classes
    assert view is not None
    result = sample_result()
    assert result.confusion is not None
    counts = result.confusion.deployed_counts[0]
    samples, _, deployed, _, mistake = view.rows[0].cells
    assert samples.key == str(sum(counts))
    assert float(deployed.key) == pytest.approx(100 * counts[0] / sum(counts))
    assert mistake.key == str(max(counts[1:]))


def test_parity_lists_differences_first() -> None:
    rows = (
        ParityRow("a", "weight", "int8", 9, True),
        ParityRow("b", "bias", "int32", 3, False, "codes differ"),
        ParityRow("c", "weight", "int8", 9, True),
    )
    view = build_view(replace(bare_result(), parity=Parity(3, 1, rows))).parity
    assert view is not None
    assert [row.tensor for row in view.rows] == ["b", "a", "c"]
    assert not view.same


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("mnist.tflite", "mnist.tflite"),
        ("../export/a b.onnx", "../export/a%20b.onnx"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("https://example.org/x", "https%3A//example.org/x"),
        ("//example.org/x", ""),
        ("/etc/passwd", ""),
        ("\\\\host\\share", ""),
        ("a?b#c", "a%3Fb%23c"),
        ("", ""),
    ],
)
def test_artifact_links_stay_relative(path: str, href: str) -> None:
    artifact = replace(sample_result().artifacts[0], path=path)
    assert build_view(replace(bare_result(), artifacts=(artifact,))).artifacts[0].href == href


def test_hostile_names_are_made_visible_not_dropped() -> None:
    view = build_view(sample_result(Sample(layers=9, hostile=True)))
    assert view.name == HOSTILE[0]
    assert view.layers.rows[4].name == r"\u202egnp.exe"
    assert "\x00" not in view.provenance.spec_text
    assert "\n" in view.provenance.spec_text


def test_bare_result_has_a_view() -> None:
    view = build_view(bare_result())
    assert (view.latency, view.classes, view.parity, view.layers.rows) == (None, None, None, ())
