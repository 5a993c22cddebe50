"""Plots: what they draw is what the result holds, and bins are honest."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgesmith.pipeline.results import DriftEdge
from edgesmith.pipeline.values import Kind
from edgesmith.reports.histogram import histogram, nice_ticks
from edgesmith.reports.plots import confusion_figure, figures, unique_names
from edgesmith.reports.plotstyle import PALETTE, Figure, literal
from edgesmith.reports.text import edge_name
from tests.reports.sample import EDGES, HOSTILE, Sample, bare_result, sample_result

TIMES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200)


@given(st.lists(TIMES, min_size=1, max_size=2))
@example([[1.0000000000000002e-06, 1e-06]])
def test_every_run_is_in_a_bin_or_counted_beyond(series: list[list[float]]) -> None:
    found = histogram(series)
    assert found is not None
    assert all(low < high for low, high in pairwise(found.edges))
    beyond = [sum(x > found.high for x in one) for one in series]
    assert sum(beyond) == found.beyond
    for one, shares, right in zip(series, found.shares, beyond, strict=True):
        binned = round(sum(shares) * len(one) / 100)
        # A value equal to the last edge after rounding may fall out on the right.
        assert len(one) - right - 1 <= binned <= len(one) - right
    assert found.beyond <= math.ceil(0.02 * max(map(len, series))) * len(series)


@pytest.mark.parametrize("series", [[], [[]], [[0.0, -1.0, math.nan, math.inf]]])
def test_no_usable_runs_give_no_histogram(series: list[list[float]]) -> None:
    assert histogram(series) is None


def test_far_apart_series_share_a_logarithmic_axis() -> None:
    near, far = histogram([[1.0, 1.1], [2.0, 2.1]]), histogram([[1.0, 1.1], [20.0, 21.0]])
    assert near is not None
    assert far is not None
    assert (near.logarithmic, far.logarithmic) == (False, True)


@given(st.floats(1e-5, 1e4), st.floats(6, 1e4))
def test_ticks_lie_inside(low: float, ratio: float) -> None:
    ticks = nice_ticks(low, low * ratio)
    assert ticks == sorted(ticks)
    assert len(ticks) >= 2
    assert low <= ticks[0] <= ticks[-1] <= low * ratio


@given(st.lists(st.text(max_size=30), max_size=40))
def test_class_names_never_merge(labels: list[str]) -> None:
    names = unique_names(labels)
    assert len(set(names)) == len(names) == len(labels)


def test_literal_text_cannot_be_markup() -> None:
    assert literal("<b>&amp;</b>\u202e") == "&lt;b&gt;&amp;amp;&lt;/b&gt;\\u202e"


def test_all_plots_of_a_full_result_and_none_of_a_bare_one() -> None:
    assert set(figures(sample_result())) == {
        "plot-accuracy",
        "plot-latency",
        "plot-drift",
        "plot-confusion",
    }
    assert figures(bare_result()) == {}


def test_drift_draws_every_edge_twice_with_true_figures_in_the_hover() -> None:
    result = sample_result()
    drift = figures(result)["plot-drift"]
    lines = drift["data"]
    assert [line["name"] for line in lines[::2]] == [literal(edge_name(edge)) for edge in EDGES]
    assert len(lines) == 2 * len(EDGES)
    assert len(lines[0]["x"]) == len(result.layers)
    first = result.layers[0].drift[0]
    assert lines[0]["y"][0] == pytest.approx(math.log10(1 + first.max_lsb))
    assert lines[7]["customdata"][0] == "no difference"
    assert len(drift["layout"]["shapes"]) == len(result.worst_layers)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_leaves_a_gap(bad: float) -> None:
    result = sample_result()
    first = replace(result.layers[0], drift=(DriftEdge(EDGES[0], bad, bad, 0.5, bad),))
    found = figures(replace(result, layers=(first, *result.layers[1:])))["plot-drift"]
    json.dumps(found, allow_nan=False)
    assert found["data"][0]["y"][0] is None


def test_confusion_difference_is_deployed_minus_float() -> None:
    confusion = sample_result().confusion
    assert confusion is not None
    figure = confusion_figure(confusion)
    assert figure is not None
    deployed, before, change = (trace for trace in figure["data"])
    assert (deployed["visible"], before["visible"], change["visible"]) == (True, False, False)
    for row, new, old in zip(
        change["z"], deployed["customdata"], before["customdata"], strict=True
    ):
        assert row == [a - b for a, b in zip(new, old, strict=True)]


def test_kinds_have_their_own_symbols() -> None:
    result = sample_result()
    last = result.accuracy[-1]
    estimated = replace(last, accuracy=replace(last.accuracy, kind=Kind.ESTIMATED))
    traces = figures(replace(result, accuracy=(*result.accuracy[:-1], estimated)))
    symbols = [trace["marker"]["symbol"] for trace in traces["plot-accuracy"]["data"]]
    assert symbols[-1] not in symbols[:-1]


def colours_of(found: dict[str, Figure]) -> set[str]:
    """Every colour that figures name, but for the transparent one."""
    drawn: set[str] = set()

    def collect(value: object, in_colour: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(item, in_colour or "color" in key)
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item, in_colour)
        elif in_colour and isinstance(value, str) and value.startswith(("#", "rgba")):
            drawn.add(value)

    for figure in found.values():
        collect({"data": figure["data"], "layout": figure["layout"]}, in_colour=False)
    return drawn - {"rgba(0,0,0,0)"}


def test_every_colour_drawn_has_a_dark_partner() -> None:
    assert colours_of(figures(sample_result(Sample(hostile=True)))) <= set(PALETTE)


def test_names_in_figures_are_escaped() -> None:
    text = json.dumps(figures(sample_result(Sample(layers=9, classes=9, hostile=True))))
    assert "<img" not in text
    assert "<script" not in text
    assert literal(HOSTILE[0]) in json.loads(text)["plot-drift"]["data"][0]["text"]
